/// Checks what the public functions of scoring are given and calls the kernels.
#include "keyseek/score.hpp"

#include "base/fail.hpp"
#include "score/rows.hpp"

namespace keyseek {
namespace {

void score_checked(const RowsView& keys, MatrixView<float> queries, float* out) {
  require(queries.cols == keys.matrix.cols, "queries have dimension {}, keys have {}", queries.cols,
          keys.matrix.cols);
  score_rows(keys, queries, out);
}

}  // namespace

float inner_product(AnyMatrixView keys, std::size_t i, const float* query) {
  require(i < keys.rows, "i is {}, but there are {} keys", i, keys.rows);
  float out = 0;
  score_rows(rows_of(keys.slice(i, 1)), {query, 1, keys.cols}, &out);
  return out;
}

void score(AnyMatrixView keys, MatrixView<float> queries, float* out) {
  score_checked(rows_of(keys), queries, out);
}

void score_ids(AnyMatrixView keys, std::span<const Id> ids, MatrixView<float> queries, float* out) {
  for (const Id id : ids)
    require(id < keys.rows, "ids hold {}, but there are {} keys", id, keys.rows);
  score_checked(rows_of(keys, ids), queries, out);
}

}  // namespace keyseek
