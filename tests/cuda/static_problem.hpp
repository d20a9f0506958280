/// Heads with rows on the "device", and what attention over them is.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "cuda/dispatch.cuh"
#include "support/attention_reference.hpp"
#include "support/random_data.hpp"

namespace keyseek::cuda::test {

using keyseek::test::Reference;

/// Which rows a test wants.
struct Shape {
  Dtype dtype = Dtype::f16;
  std::uint32_t heads = 1, group = 1, dim = 64, capacity = 1, splits = 1;
  float scale = 0.125F;
};

struct StaticProblem {
  explicit StaticProblem(const Shape& s, std::uint64_t seed = 1, float largest_query = 1.0F)
      : shape(s), rings(s.heads, {s.capacity, 0}) {
    Matrix<float> made = keyseek::test::normal_matrix(s.heads * s.group, s.dim, seed);
    for (std::size_t i = 0; i < made.rows() * s.dim; ++i) made.data()[i] *= largest_query;
    queries = keyseek::test::stored_as(made, s.dtype);
    keys = keyseek::test::stored_as(
        keyseek::test::normal_matrix(std::size_t{s.heads} * s.capacity, s.dim, seed + 1), s.dtype);
    values = keyseek::test::stored_as(
        keyseek::test::normal_matrix(std::size_t{s.heads} * s.capacity, s.dim, seed + 2), s.dtype);
    part_memory.resize(Parts{nullptr, s.heads * s.group, s.dim}.stride() * s.splits);
    fill_nan(part_memory);
  }

  static void fill_nan(AlignedVector<float>& memory) {
    std::fill(memory.begin(), memory.end(), std::numeric_limits<float>::quiet_NaN());
  }

  [[nodiscard]] Parts parts() { return {part_memory.data(), shape.heads * shape.group, shape.dim}; }

  [[nodiscard]] AttendArgs args() {
    return {queries.view().data, keys.view().data, values.view().data, rings.data(), parts(),
            shape.heads,         shape.group,      shape.capacity,     shape.splits, shape.scale};
  }

  void attend(emulation::Order order = emulation::Order::ascending, int skipped_barrier = -1) {
    const AttendArgs a = args();
    const AttendKernel kernel = attend_kernel(shape.dtype, shape.dim, shape.group);
    emulation::run({{shape.splits, shape.heads, attend_tiles(shape.group)},
                    kAttendThreads,
                    order,
                    1,
                    skipped_barrier},
                   [&] { kernel(a); });
  }

  /// The attention over all parts, as stored in `out_type`.
  Partial merged(Dtype out_type = Dtype::f32) {
    const std::uint32_t rows = shape.heads * shape.group;
    AlignedVector<std::byte> out(rows * shape.dim * size_of(out_type));
    Partial result;
    result.reset(rows, shape.dim);
    const MergeArgs a{parts(), shape.splits, out.data(), result.lse.data()};
    const MergeKernel kernel = merge_kernel(out_type);
    emulation::run({{merge_blocks(a.parts), 1}, kMergeThreads}, [&] { kernel(a); });
    const AnyMatrixView stored{out.data(), out_type, rows, shape.dim, shape.dim};
    for (std::size_t i = 0; i < rows; ++i) stored.copy_row(i, result.out.row(i));
    return result;
  }

  /// Attention of query `q` (all heads counted) in f64.
  [[nodiscard]] Reference truth(std::size_t q) const {
    const std::size_t head = q / shape.group, first = head * shape.capacity;
    std::vector<float> query(shape.dim);
    queries.view().copy_row(q, query.data());
    return keyseek::test::reference(query.data(), keys.view().slice(first, shape.capacity),
                                    {values.view().slice(first, shape.capacity)},
                                    keyseek::test::range(0, rings[head].rows), double{shape.scale});
  }

  Shape shape;
  AnyMatrix queries, keys, values;
  std::vector<Ring> rings;
  AlignedVector<float> part_memory;
};

/// Relative error of outputs that a kernel may have: what is promised for each element type.
inline double error_bound(Dtype dtype) { return dtype == Dtype::bf16 ? 1e-2 : 1e-3; }

inline void expect_truth(const Partial& got, const StaticProblem& problem, double bound) {
  for (std::size_t q = 0; q < got.lse.size(); ++q) {
    const Reference truth = problem.truth(q);
    if (std::isinf(truth.lse)) {
      EXPECT_EQ(got.lse[q], -INFINITY) << "query " << q;
      for (std::size_t c = 0; c < got.out.cols(); ++c) EXPECT_EQ(got.out.row(q)[c], 0.0F);
      continue;
    }
    EXPECT_LT(keyseek::test::relative_error(got.out.row(q), truth.out), bound) << "query " << q;
    EXPECT_NEAR(got.lse[q], truth.lse, 1e-5 * std::max(1.0, std::fabs(truth.lse)));
  }
}

}  // namespace keyseek::cuda::test
