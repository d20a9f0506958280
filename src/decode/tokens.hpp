/// The tokens of one head, wherever they are kept, as one sequence.
#pragma once

#include <array>
#include <cstddef>

#include "keyseek/attention.hpp"

namespace keyseek {

/// Sink, indexed and recent tokens in order of position; looks at memory of others.
struct Tokens {
  struct Piece {
    AnyMatrixView keys;
    AnyMatrixView values;
  };
  Piece sink, indexed, recent;

  [[nodiscard]] std::size_t size() const {
    return sink.keys.rows + indexed.keys.rows + recent.keys.rows;
  }
  /// Attention over positions [first, last), merged into `into`.
  void attend(MatrixView<float> queries, std::size_t first, std::size_t last, float scale,
              AttendScratch& scratch, Partial& part, Partial& into) const;
};

}  // namespace keyseek
