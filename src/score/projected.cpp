/// Projects queries to few coordinates and encodes them there.
#include "score/projected.hpp"

#include "score/codes.hpp"
#include "score/rows.hpp"

namespace keyseek {

void project(MatrixView<float> queries, AnyMatrixView map, float* out, float* scratch) {
  score_rows(rows_of(map), queries, scratch);
  for (std::size_t g = 0; g < queries.rows; ++g) {
    for (std::size_t r = 0; r < map.rows; ++r)
      out[g * map.rows + r] = scratch[r * queries.rows + g];
  }
}

void encode_projected(MatrixView<float> rows, EncodedQueries& out) {
  const std::size_t cols = code_cols(rows.cols);
  // Each by its own size: memory may have run out after one of them had grown.
  if (out.codes.rows() != rows.rows || out.codes.cols() != cols)
    out.codes = Matrix<std::int8_t>(rows.rows, cols);
  out.scale.resize(rows.rows);
  out.correction.resize(rows.rows);
  for (std::size_t g = 0; g < rows.rows; ++g) {
    const QueryCode code = encode_query(rows.row(g), rows.cols, out.codes.row(g));
    out.scale[g] = code.scale;
    out.correction[g] = code.correction;
  }
}

}  // namespace keyseek
