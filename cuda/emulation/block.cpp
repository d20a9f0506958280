/// Runs the threads of a block as fibers, in an order of the caller's choice, until all have ended.
#include "cuda/emulation/block.hpp"

#include <algorithm>
#include <array>
#include <cstring>
#include <deque>
#include <memory>
#include <numeric>
#include <random>
#include <stdexcept>

#include "cuda/emulation/fiber.hpp"

namespace keyseek::cuda::emulation {
namespace {

constexpr unsigned kLanes = 32;

/// Where threads meet: each comes, and all go on when the last has come.
struct Meeting {
  unsigned expected = 0, come = 0, held = 0;
};

struct Thread {
  Fiber fiber;
  Index index;
  const Meeting* waits_at = nullptr;  ///< and goes on once its `held` is no longer `waits_for`
  unsigned waits_for = 0;
  int barriers = 0;
};

struct Warp {
  Meeting meeting;
  // Two sets in turn: a lane may bring its next value while others still read the last.
  std::array<std::array<float, kLanes>, 2> values{};
};

class Block {
 public:
  Block(const Launch& launch, const std::function<void()>& kernel)
      : launch_(launch), kernel_(kernel), order_(launch.threads) {
    for (unsigned i = 0; i < launch.threads; ++i) threads_.emplace_back().index = {i, 0, 0};
    std::iota(order_.begin(), order_.end(), 0U);
    if (launch.order == Order::descending) std::reverse(order_.begin(), order_.end());
    random_.seed(launch.seed);
  }

  void run(Index block) {
    blockIdx = block;
    if (launch_.order == Order::shuffled) std::shuffle(order_.begin(), order_.end(), random_);
    shared_.reset();
    block_meeting_ = {launch_.threads, 0, 0};
    warps_.assign((launch_.threads + kLanes - 1) / kLanes, {{kLanes, 0, 0}, {}});
    for (Thread& thread : threads_) {
      thread.fiber.start(kernel_);
      thread.waits_at = nullptr;
      thread.barriers = 0;
    }
    while (run_all_once()) {
    }
    for (const Thread& thread : threads_) {
      if (!thread.fiber.ended()) {
        throw std::runtime_error("thread " + std::to_string(thread.index.x) +
                                 " waits for threads that never come");
      }
    }
  }

  void barrier() {
    if (running_->barriers++ == launch_.skipped_barrier) return;
    meet(block_meeting_);
  }

  float shuffle_xor(unsigned lanes, float mine, unsigned mask) {
    if (lanes != 0xffffffffU) throw std::runtime_error("a shuffle without all lanes of the warp");
    const unsigned lane = running_->index.x % kLanes;
    Warp& warp = warps_[running_->index.x / kLanes];
    auto& values = warp.values[warp.meeting.held % 2];
    values[lane] = mine;
    meet(warp.meeting);
    return values[lane ^ mask];
  }

  void* shared_bytes(std::size_t bytes) {
    if (shared_ == nullptr) {
      shared_.reset(new std::byte[bytes]);
      std::memset(shared_.get(), 0xff, bytes);
      shared_size_ = bytes;
    }
    if (bytes != shared_size_) throw std::runtime_error("a block has one shared variable");
    return shared_.get();
  }

 private:
  /// False when no thread could move.
  bool run_all_once() {
    bool moved = false;
    for (const unsigned i : order_) {
      Thread& thread = threads_[i];
      const bool waits = thread.waits_at != nullptr && thread.waits_at->held == thread.waits_for;
      if (thread.fiber.ended() || waits) continue;
      running_ = &thread;
      threadIdx = thread.index;
      thread.waits_at = nullptr;
      thread.fiber.resume();
      moved = true;
    }
    return moved;
  }

  void meet(Meeting& meeting) {
    if (++meeting.come == meeting.expected) {
      meeting.come = 0;
      ++meeting.held;
      return;
    }
    running_->waits_at = &meeting;
    running_->waits_for = meeting.held;
    running_->fiber.yield();
  }

  const Launch& launch_;
  const std::function<void()>& kernel_;
  std::vector<unsigned> order_;
  std::mt19937_64 random_;
  std::deque<Thread> threads_;
  std::vector<Warp> warps_;
  Meeting block_meeting_;
  std::unique_ptr<std::byte[]> shared_;
  std::size_t shared_size_ = 0;
  Thread* running_ = nullptr;
};

Block* block = nullptr;         // of the launch that runs
ReadCounts* counted = nullptr;  // if anybody counts

void require_aligned(const void* p, std::size_t bytes) {
  if (reinterpret_cast<std::uintptr_t>(p) % bytes != 0)
    throw std::runtime_error("an access of " + std::to_string(bytes) + " bytes is not aligned");
}

}  // namespace

void run(const Launch& launch, const std::function<void()>& kernel) {
  Block fibers(launch, kernel);
  block = &fibers;
  gridDim = launch.grid;
  for (unsigned z = 0; z < launch.grid.z; ++z) {
    for (unsigned y = 0; y < launch.grid.y; ++y) {
      for (unsigned x = 0; x < launch.grid.x; ++x) fibers.run({x, y, z});
    }
  }
  block = nullptr;
}

void barrier() { block->barrier(); }

float shuffle_xor(unsigned lanes, float mine, unsigned mask) {
  return block->shuffle_xor(lanes, mine, mask);
}

void* shared_bytes(std::size_t bytes) { return block->shared_bytes(bytes); }

void read(const void* from, void* to, std::size_t bytes) {
  require_aligned(from, bytes);
  if (counted != nullptr) counted->count(from);
  std::memcpy(to, from, bytes);
}

void write(const void* from, void* to, std::size_t bytes) {
  require_aligned(to, bytes);
  std::memcpy(to, from, bytes);
}

ReadCounts::ReadCounts(const void* memory, std::size_t bytes)
    : memory_(static_cast<const std::byte*>(memory)), counts_(bytes / 16) {
  counted = this;
}

ReadCounts::~ReadCounts() { counted = nullptr; }

void ReadCounts::count(const void* from) {
  const auto begin = reinterpret_cast<std::uintptr_t>(memory_);
  const auto place = reinterpret_cast<std::uintptr_t>(from);
  if (place >= begin && (place - begin) / 16 < counts_.size()) ++counts_[(place - begin) / 16];
}

}  // namespace keyseek::cuda::emulation
