#include "keyseek/score.hpp"

#include "base/fail.hpp"
#include "score/kernels.hpp"

namespace keyseek {
namespace {

void score_rows(AnyMatrixView keys, const Id* ids, std::size_t n, MatrixView<float> queries,
                float* out) {
  require(queries.cols == keys.cols, "queries have dimension {}, keys have {}", queries.cols,
          keys.cols);
  kernels().score_rows[static_cast<std::size_t>(keys.dtype)](
      keys.data, keys.stride, ids, n, queries.data, queries.stride, queries.rows, keys.cols, out);
}

}  // namespace

float inner_product(AnyMatrixView keys, std::size_t i, const float* query) {
  require(i < keys.rows, "i is {}, but there are {} keys", i, keys.rows);
  float out = 0;
  score_rows(keys.slice(i, 1), nullptr, 1, {query, 1, keys.cols}, &out);
  return out;
}

void score(AnyMatrixView keys, MatrixView<float> queries, float* out) {
  score_rows(keys, nullptr, keys.rows, queries, out);
}

void score_ids(AnyMatrixView keys, std::span<const Id> ids, MatrixView<float> queries, float* out) {
  for (const Id id : ids)
    require(id < keys.rows, "ids hold {}, but there are {} keys", id, keys.rows);
  score_rows(keys, ids.data(), ids.size(), queries, out);
}

}  // namespace keyseek
