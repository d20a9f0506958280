// The emulation itself: what it lets pass must be right, what is wrong must be seen.
#include <gtest/gtest.h>

#include <cmath>
#include <numeric>
#include <stdexcept>
#include <vector>

#include "cuda/device.cuh"

namespace keyseek::cuda::test {
namespace {

using emulation::Launch;
using emulation::Order;

struct Floats {
  float x[64];
};

TEST(Emulation, RunsEveryThreadOfEveryBlockOnce) {
  std::vector<int> runs(3 * 2 * 40);
  emulation::run({{3, 2}, 40, Order::shuffled},
                 [&] { ++runs[(blockIdx.y * gridDim.x + blockIdx.x) * 40 + threadIdx.x]; });
  EXPECT_EQ(runs, std::vector<int>(runs.size(), 1));
}

TEST(Emulation, ShufflesWithinWarps) {
  std::vector<float> got(64);
  for (const Order order : {Order::ascending, Order::descending, Order::shuffled}) {
    emulation::run({{1, 1}, 64, order}, [&] {
      float x = static_cast<float>(threadIdx.x);
      for (unsigned mask = 16; mask > 0; mask /= 2) x += __shfl_xor_sync(kWholeWarp, x, mask);
      got[threadIdx.x] = x;
    });
    for (unsigned i = 0; i < 64; ++i) EXPECT_EQ(got[i], i < 32 ? 496.0F : 1520.0F);
  }
}

/// Neighbours read what each other wrote.
std::vector<float> exchange(const Launch& launch) {
  std::vector<float> got(64);
  emulation::run(launch, [&] {
    KEYSEEK_SHARED(Floats, shared);
    shared.x[threadIdx.x] = static_cast<float>(threadIdx.x);
    __syncthreads();
    got[threadIdx.x] = shared.x[63 - threadIdx.x];
  });
  return got;
}

TEST(Emulation, BarriersHoldAndTheirLossIsSeen) {
  std::vector<float> right(64);
  std::iota(right.rbegin(), right.rend(), 0.0F);
  for (const Order order : {Order::ascending, Order::descending, Order::shuffled}) {
    EXPECT_EQ(exchange({{1, 1}, 64, order, 1, -1}), right);
    const auto wrong = exchange({{1, 1}, 64, order, 1, 0});
    EXPECT_TRUE(std::isnan(std::accumulate(wrong.begin(), wrong.end(), 0.0F)));
  }
}

TEST(Emulation, SharedMemoryStartsAsNan) {
  int nan = 0;
  emulation::run({{2, 1}, 1}, [&] {
    KEYSEEK_SHARED(Floats, shared);
    nan += std::isnan(shared.x[5]) ? 1 : 0;
    shared.x[5] = 0.0F;
  });
  EXPECT_EQ(nan, 2);
}

TEST(Emulation, ABarrierThatSomeNeverReachIsAnError) {
  EXPECT_THROW(emulation::run({{1, 1}, 64},
                              [] {
                                if (threadIdx.x != 7) __syncthreads();
                              }),
               std::runtime_error);
}

TEST(Emulation, AShuffleThatSomeNeverReachIsAnError) {
  EXPECT_THROW(emulation::run({{1, 1}, 32},
                              [] {
                                if (threadIdx.x < 16) __shfl_xor_sync(kWholeWarp, 1.0F, 1);
                              }),
               std::runtime_error);
}

TEST(Emulation, AnUnalignedAccessIsAnError) {
  alignas(16) std::byte memory[64] = {};
  EXPECT_NO_THROW(emulation::run({{1, 1}, 1}, [&] { load(memory + 16); }));
  EXPECT_THROW(emulation::run({{1, 1}, 1}, [&] { load(memory + 8); }), std::runtime_error);
}

}  // namespace
}  // namespace keyseek::cuda::test
