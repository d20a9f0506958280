/// A sample of rows that says enough about all of them.
#pragma once

#include <algorithm>
#include <cstddef>

#include "keyseek/matrix.hpp"

namespace keyseek {

/// Up to `most` rows of m, evenly spaced.
[[nodiscard]] inline Matrix<float> even_rows(AnyMatrixView m, std::size_t most) {
  const std::size_t count = std::min(m.rows, most);
  Matrix<float> rows(count, m.cols);
  for (std::size_t i = 0; i < count; ++i) m.copy_row(i * m.rows / count, rows.row(i));
  return rows;
}

}  // namespace keyseek
