// The kernel `merge`, emulated, against a merge in f64.
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "static_problem.hpp"

namespace keyseek::cuda::test {
namespace {

/// Parts with lse around `level`, some of them empty.
struct PartsProblem {
  PartsProblem(std::uint32_t number, std::uint32_t queries, std::uint32_t dim, double level,
               bool all_empty = false)
      : count(number), parts{nullptr, queries, dim} {
    Random random(count + dim);
    memory.resize(parts.stride() * count);
    parts.data = memory.data();
    for (std::uint32_t p = 0; p < count; ++p) {
      for (std::uint32_t q = 0; q < queries; ++q) {
        const bool empty = all_empty || (p + q) % 5 == 4;
        parts.lse(p, q) =
            empty ? -INFINITY : static_cast<float>(level) + 3.0F * keyseek::test::normal(random);
        for (std::uint32_t c = 0; c < dim; ++c)
          parts.out(p, q)[c] = empty ? 0.0F : keyseek::test::normal(random);
      }
    }
  }

  [[nodiscard]] Reference truth(std::uint32_t q) const {
    Reference all;
    all.out.resize(parts.dim);
    double top = -keyseek::test::kInfinity, sum = 0;
    for (std::uint32_t p = 0; p < count; ++p) top = std::max(top, double{parts.lse(p, q)});
    if (std::isinf(top)) return all;
    for (std::uint32_t p = 0; p < count; ++p) {
      const double weight = std::exp(double{parts.lse(p, q)} - top);
      sum += weight;
      for (std::uint32_t c = 0; c < parts.dim; ++c)
        all.out[c] += weight * double{parts.out(p, q)[c]};
    }
    for (double& x : all.out) x /= sum;
    all.lse = top + std::log(sum);
    return all;
  }

  [[nodiscard]] Partial merged(Dtype out_type, bool with_lse = true) const {
    AlignedVector<std::byte> out(parts.queries * parts.dim * size_of(out_type));
    Partial result;
    result.reset(parts.queries, parts.dim);
    const MergeArgs a{parts, count, out.data(), with_lse ? result.lse.data() : nullptr};
    const MergeKernel kernel = merge_kernel(out_type);
    emulation::run({{merge_blocks(parts), 1}, kMergeThreads}, [&] { kernel(a); });
    const AnyMatrixView stored{out.data(), out_type, parts.queries, parts.dim, parts.dim};
    for (std::size_t q = 0; q < parts.queries; ++q) stored.copy_row(q, result.out.row(q));
    return result;
  }

  std::uint32_t count;
  Parts parts;
  AlignedVector<float> memory;
};

TEST(Merge, AnyNumberOfParts) {
  for (const Dtype out_type : {Dtype::f32, Dtype::f16, Dtype::bf16}) {
    for (const std::uint32_t dim : {64U, 96U, 128U, 256U}) {
      for (const std::uint32_t count : {1U, 2U, 3U, 11U, 65U}) {
        SCOPED_TRACE(testing::Message()
                     << to_string(out_type) << " d " << dim << ", " << count << " parts");
        const PartsProblem problem(count, 7, dim, 2.0);
        const Partial got = problem.merged(out_type);
        const double bound = out_type == Dtype::f32 ? 1e-5 : error_bound(out_type);
        for (std::uint32_t q = 0; q < 7; ++q) {
          const Reference truth = problem.truth(q);
          if (std::isinf(truth.lse)) continue;  // EmptyPartsMakeAnEmptyWhole
          EXPECT_LT(keyseek::test::relative_error(got.out.row(q), truth.out), bound);
          EXPECT_NEAR(got.lse[q], truth.lse, 1e-5 * std::max(1.0, std::fabs(truth.lse)));
        }
      }
    }
  }
}

TEST(Merge, ExtremeMasses) {
  for (const double level : {-1e5, -80.0, 80.0, 1e5}) {
    const PartsProblem problem(9, 3, 64, level);
    const Partial got = problem.merged(Dtype::f32);
    for (std::uint32_t q = 0; q < 3; ++q)
      EXPECT_LT(keyseek::test::relative_error(got.out.row(q), problem.truth(q).out), 1e-5) << level;
  }
}

TEST(Merge, EmptyPartsMakeAnEmptyWhole) {
  const PartsProblem problem(4, 3, 64, 0.0, true);
  const Partial got = problem.merged(Dtype::f16);
  for (std::uint32_t q = 0; q < 3; ++q) {
    EXPECT_EQ(got.lse[q], -INFINITY);
    for (std::uint32_t c = 0; c < 64; ++c) EXPECT_EQ(got.out.row(q)[c], 0.0F);
  }
}

TEST(Merge, WithoutLse) {
  const PartsProblem problem(3, 2, 64, 0.0);
  const Partial with = problem.merged(Dtype::f32), without = problem.merged(Dtype::f32, false);
  EXPECT_TRUE(std::equal(with.out.data(), with.out.data() + 2 * 64, without.out.data()));
}

TEST(Merge, IsTheMergeOfTheCpu) {
  const PartsProblem problem(2, 5, 128, 1.0);
  Partial both;
  for (std::uint32_t p = 0; p < 2; ++p) {
    Partial part;
    part.reset(5, 128);
    for (std::uint32_t q = 0; q < 5; ++q) {
      std::copy_n(problem.parts.out(p, q), 128, part.out.row(q));
      part.lse[q] = problem.parts.lse(p, q);
    }
    keyseek::merge(part, both);
  }
  const Partial got = problem.merged(Dtype::f32);
  for (std::size_t i = 0; i < std::size_t{5} * 128; ++i)
    EXPECT_NEAR(got.out.data()[i], both.out.data()[i], 1e-5);
}

}  // namespace
}  // namespace keyseek::cuda::test
