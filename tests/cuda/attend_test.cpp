// The kernel `attend`, emulated, against attention in f64.
#include <gtest/gtest.h>

#include <bit>
#include <limits>

#include "static_problem.hpp"

namespace keyseek::cuda::test {
namespace {

using emulation::Order;

constexpr Dtype kDtypes[] = {Dtype::f16, Dtype::bf16};
constexpr std::uint32_t kDims[] = {64, 96, 128, 256};
constexpr Order kOrders[] = {Order::ascending, Order::descending, Order::shuffled};

TEST(Attend, EveryTypeDimensionAndGroup) {
  for (const Dtype dtype : kDtypes) {
    for (const std::uint32_t dim : kDims) {
      for (std::uint32_t group = 1; group <= kMostQueries; ++group) {
        SCOPED_TRACE(testing::Message() << to_string(dtype) << " d " << dim << " G " << group);
        StaticProblem problem({dtype, 2, group, dim, 45, 3, 0.1F});
        problem.attend();
        expect_truth(problem.merged(), problem, 1e-5);
      }
    }
  }
}

// The group is attended in tiles of 8, the last one not full.
TEST(Attend, GroupsOfMoreThanATile) {
  for (const Dtype dtype : kDtypes) {
    for (const std::uint32_t dim : kDims) {
      for (const std::uint32_t group : {9U, 12U, 16U, kMostGroup}) {
        SCOPED_TRACE(testing::Message() << to_string(dtype) << " d " << dim << " G " << group);
        StaticProblem problem({dtype, 2, group, dim, 21, 2, 0.1F});
        problem.attend();
        expect_truth(problem.merged(), problem, 1e-5);
      }
    }
  }
}

TEST(Attend, StoredOutputsKeepTheirPromise) {
  for (const Dtype dtype : kDtypes) {
    for (const std::uint32_t dim : kDims) {
      SCOPED_TRACE(testing::Message() << to_string(dtype) << " d " << dim);
      StaticProblem problem({dtype, 1, 4, dim, 640, 10, 0.1F});
      problem.attend();
      expect_truth(problem.merged(dtype), problem, error_bound(dtype));
    }
  }
}

TEST(Attend, AnyLengthInAnyNumberOfSplits) {
  for (const std::uint32_t splits : {1U, 2U, 7U}) {
    StaticProblem problem({Dtype::f16, 36, 2, 96, 80, splits, 0.1F});
    for (std::uint32_t head = 0; head < 32; ++head) problem.rings[head].rows = head;
    for (std::uint32_t head = 32; head < 36; ++head) problem.rings[head].rows = head + 44;
    problem.attend();
    SCOPED_TRACE(testing::Message() << splits << " splits");
    expect_truth(problem.merged(), problem, 1e-5);
  }
}

TEST(Attend, RowsThatAreNotFilledDoNotMatter) {
  StaticProblem problem({Dtype::f16, 1, 3, 64, 40, 2, 0.1F});
  problem.rings[0].rows = 21;
  Matrix<float> nan(40, 64);
  const Matrix<float> keys = to_f32(problem.keys.view());
  for (std::size_t i = 0; i < 40 * 64; ++i) {
    nan.data()[i] = i < 21 * 64 ? keys.data()[i] : std::numeric_limits<float>::quiet_NaN();
  }
  problem.keys = problem.values = keyseek::test::stored_as(nan, Dtype::f16);
  problem.attend();
  expect_truth(problem.merged(), problem, 1e-5);
}

// Logits up to +-1e6 (f32 has them to 1/16): nothing overflows, and the winner takes all.
TEST(Attend, ExtremeScores) {
  for (const Dtype dtype : kDtypes) {
    for (const float size : {0.0F, 1e-4F, 100.0F, 1e4F}) {
      SCOPED_TRACE(testing::Message() << to_string(dtype) << " queries times " << size);
      StaticProblem problem({dtype, 1, 4, 128, 70, 3, 1.0F}, 5, size);
      problem.attend();
      expect_truth(problem.merged(), problem, error_bound(dtype));
    }
  }
}

TEST(Attend, OneTokenOutweighsTheRest) {
  for (const std::size_t row : {std::size_t{0}, std::size_t{33}, std::size_t{69}}) {
    StaticProblem problem({Dtype::bf16, 1, 1, 64, 70, 4, 1.0F});
    Matrix<float> keys = to_f32(problem.keys.view());
    for (std::size_t c = 0; c < 64; ++c) {
      float query[64];
      problem.queries.view().copy_row(0, query);
      keys.row(row)[c] = 1e3F * query[c];
    }
    problem.keys = keyseek::test::stored_as(keys, Dtype::bf16);
    problem.attend();
    expect_truth(problem.merged(), problem, 1e-5);
  }
}

std::vector<std::uint32_t> bits(const AlignedVector<float>& values) {
  std::vector<std::uint32_t> all;
  for (const float x : values) all.push_back(std::bit_cast<std::uint32_t>(x));
  return all;
}

TEST(Attend, SameBitsInEveryThreadOrder) {
  for (const std::uint32_t dim : kDims) {
    StaticProblem problem({Dtype::f16, 2, 4, dim, 75, 2, 0.1F});
    problem.attend(Order::ascending);
    const auto first = bits(problem.part_memory);
    for (const Order order : {Order::descending, Order::shuffled}) {
      StaticProblem::fill_nan(problem.part_memory);
      problem.attend(order);
      EXPECT_EQ(bits(problem.part_memory), first) << "d " << dim;
    }
  }
}

// What the tests above would see if the kernel had forgotten its barrier.
TEST(Attend, AMissingBarrierIsSeen) {
  StaticProblem problem({Dtype::f16, 1, 4, 128, 75, 1, 0.1F});
  problem.attend();
  const auto right = bits(problem.part_memory);
  int wrong = 0;
  for (const Order order : kOrders) {
    StaticProblem::fill_nan(problem.part_memory);
    problem.attend(order, 0);
    wrong += bits(problem.part_memory) != right ? 1 : 0;
  }
  EXPECT_GT(wrong, 0);
}

TEST(Attend, ReadsEachByteOnceForEveryEightQueries) {
  for (const std::uint32_t group : {8U, 20U}) {
    for (const std::uint32_t dim : kDims) {
      StaticProblem problem({Dtype::bf16, 2, group, dim, 75, 4, 0.1F});
      problem.rings = {{75, 0}, {30, 0}};
      for (const AnyMatrixView rows : {problem.keys.view(), problem.values.view()}) {
        const emulation::ReadCounts reads(rows.data, rows.rows * dim * 2);
        problem.attend();
        const std::size_t per_row = dim / kPacked;
        for (std::size_t i = 0; i < reads.counts().size(); ++i) {
          const bool filled = i / per_row < 75 + 30;
          ASSERT_EQ(reads.counts()[i], filled ? (group + 7) / 8 : 0U)
              << "d " << dim << ", piece " << i;
        }
      }
    }
  }
}

TEST(Attend, HasNoKernelForOtherShapes) {
  EXPECT_EQ(attend_kernel(Dtype::f16, 80, 1), nullptr);
  EXPECT_EQ(attend_kernel(Dtype::f32, 64, 1), nullptr);
  EXPECT_EQ(attend_kernel(Dtype::f16, 64, kMostGroup + 1), nullptr);
}

}  // namespace
}  // namespace keyseek::cuda::test
