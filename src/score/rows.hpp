/// Products and sums of stored rows, with the kernel of their element type.
#pragma once

#include <cstddef>
#include <span>

#include "keyseek/matrix.hpp"
#include "score/kernels.hpp"

namespace keyseek {

/// All rows of `m`.
[[nodiscard]] inline RowsView rows_of(AnyMatrixView m) noexcept { return {m, nullptr, m.rows}; }
/// Those that `ids` names, each below m.rows.
[[nodiscard]] inline RowsView rows_of(AnyMatrixView m, std::span<const Id> ids) noexcept {
  return {m, ids.data(), ids.size()};
}

/// out[j * G + g] = <row j of `keys`, queries[g]>, for `queries` [G, d].
inline void score_rows(const RowsView& keys, const MatrixView<float>& queries, float* out) {
  if (keys.count == 0) return;  // `out` may be no array at all
  kernels().score_rows[static_cast<std::size_t>(keys.matrix.dtype)](keys, queries, out);
}

/// sums[g] += weight of row j for query g * row j, over all rows; `sums` is [group, d].
inline void add_rows(const RowsView& values, const WeightsView& weights, float* sums) {
  kernels().add_rows[static_cast<std::size_t>(values.matrix.dtype)](values, weights, sums);
}

}  // namespace keyseek
