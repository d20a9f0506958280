/// Multiplies matrices of vectors tile by tile, and transposes them.
#include "score/products.hpp"

#include <algorithm>
#include <vector>

#include "base/parallel.hpp"
#include "score/rows.hpp"

namespace keyseek {

Matrix<float> products(MatrixView<float> a, MatrixView<float> b, const Execution& run,
                       std::string_view stage) {
  constexpr std::size_t kTile = 64;  // rows of either side that a second-level cache holds
  Matrix<float> out(a.rows, b.rows);
  parallel_for(a.rows, kTile, run, stage, [&](std::size_t begin, std::size_t end, int) {
    std::vector<float> tile((end - begin) * kTile);
    for (std::size_t first = 0; first < b.rows; first += kTile) {
      const std::size_t count = std::min(kTile, b.rows - first);
      score_rows(rows_of(AnyMatrixView::of(a.slice(begin, end - begin))), b.slice(first, count),
                 tile.data());
      for (std::size_t i = begin; i < end; ++i)
        std::copy_n(tile.data() + (i - begin) * count, count, out.row(i) + first);
    }
  });
  return out;
}

Matrix<float> transposed(MatrixView<float> m) {
  Matrix<float> out(m.cols, m.rows);
  for (std::size_t i = 0; i < m.rows; ++i)
    for (std::size_t j = 0; j < m.cols; ++j) out.row(j)[i] = m.row(i)[j];
  return out;
}

}  // namespace keyseek
