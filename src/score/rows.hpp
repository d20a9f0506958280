/// Products and sums of stored rows, with the kernel of their element type.
#pragma once

#include <algorithm>
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

/// Calls use(piece, first) for pieces of `rows`, from the first row to the last, which name their
/// rows as the kernels read them: by place in memory. This is where borrowed rows are found.
template <class Use>
void each_piece(const RowsView& rows, const Use& use) {
  constexpr std::size_t kPiece = 256;  // a multiple of what kernels take at a time
  const Id* slots = rows.matrix.slots;
  if (slots == nullptr) {
    use(rows, std::size_t{0});
  } else if (rows.ids == nullptr) {
    use(RowsView{rows.matrix, slots, rows.count}, std::size_t{0});
  } else {
    Id places[kPiece];
    for (std::size_t first = 0; first < rows.count; first += kPiece) {
      const std::size_t count = std::min(kPiece, rows.count - first);
      for (std::size_t j = 0; j < count; ++j) places[j] = slots[rows.ids[first + j]];
      use(RowsView{rows.matrix, places, count}, first);
    }
  }
}

/// out[j * G + g] = <row j of `keys`, queries[g]>, for `queries` [G, d].
inline void score_rows(const RowsView& keys, const MatrixView<float>& queries, float* out) {
  if (keys.count == 0) return;  // `out` may be no array at all
  const ScoreRows score = kernels().score_rows[static_cast<std::size_t>(keys.matrix.dtype)];
  each_piece(keys, [&](const RowsView& piece, std::size_t first) {
    score(piece, queries, out + first * queries.rows);
  });
}

/// sums[g] += weight of row j for query g * row j, over all rows; `sums` is [group, d].
inline void add_rows(const RowsView& values, const WeightsView& weights, float* sums) {
  const AddRows add = kernels().add_rows[static_cast<std::size_t>(values.matrix.dtype)];
  each_piece(values, [&](const RowsView& piece, std::size_t first) {
    add(piece, {weights.data + first * weights.group, weights.group}, sums);
  });
}

}  // namespace keyseek
