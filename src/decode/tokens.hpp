/// The tokens of one head, wherever they are kept, as one sequence of rows.
#pragma once

#include <cstddef>
#include <span>
#include <vector>

#include "keyseek/attention.hpp"

namespace keyseek {

/// Sink and pinned tokens, then the indexed ones, then the recent ones; each in order of
/// position. Looks at memory of others.
struct Tokens {
  struct Piece {
    AnyMatrixView keys;
    ValuesView values;

    /// Of a key and its value.
    [[nodiscard]] std::size_t row_bytes() const { return keys.row_bytes() + values.row_bytes(); }
  };
  Piece sink, indexed, recent;
  std::span<const std::size_t> pinned = {};  ///< positions, increasing

  [[nodiscard]] std::size_t size() const {
    return sink.keys.rows + indexed.keys.rows + recent.keys.rows;
  }
  /// Some rows of a piece, whose positions follow one another.
  struct Run {
    const Piece* piece;
    std::size_t first, count;
  };
  /// All tokens in order of position; looks at the pieces.
  [[nodiscard]] std::vector<Run> by_position() const;
  /// The first row behind the sink that is of this position or a later one.
  [[nodiscard]] std::size_t row_of(std::size_t position) const;
  /// Attention over rows [first, last), merged into `into`.
  void attend(MatrixView<float> queries, std::size_t first, std::size_t last, Logits logits,
              AttendScratch& scratch, Partial& part, Partial& into) const;
};

/// Position of indexed token `row` when the first `sink` tokens and the pinned ones are not
/// among the indexed.
[[nodiscard]] std::size_t position_of(std::size_t row, std::size_t sink,
                                      std::span<const std::size_t> pinned);

}  // namespace keyseek
