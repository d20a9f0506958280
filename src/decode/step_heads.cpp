#include "base/fail.hpp"
#include "decode/occupied.hpp"
#include "keyseek/decode.hpp"

namespace keyseek {
namespace {

void require_alike(std::span<HeadCache* const> heads) {
  for (const HeadCache* head : heads) {
    require(head != nullptr && head->group() > 0, "a HeadCache is empty: prefill it first");
    require(head->group() == heads[0]->group() && head->dim() == heads[0]->dim() &&
                head->value_dim() == heads[0]->value_dim(),
            "heads differ in shape");
  }
}

void require_queries(std::span<HeadCache* const> heads, MatrixView<float> queries) {
  const std::size_t rows = heads.size() * heads[0]->group();
  require(queries.rows == rows, "queries has {} rows, must have {}", queries.rows, rows);
  require(queries.cols == heads[0]->dim(), "queries have dimension {}, the heads {}", queries.cols,
          heads[0]->dim());
}

void require_tokens(std::span<HeadCache* const> heads, MatrixView<float> keys,
                    MatrixView<float> values) {
  require(keys.rows == heads.size() && values.rows == heads.size(),
          "keys has {} rows and values {}, there are {} heads", keys.rows, values.rows,
          heads.size());
  require(keys.cols == heads[0]->dim(), "keys have dimension {}, the heads {}", keys.cols,
          heads[0]->dim());
  require(values.cols == heads[0]->value_dim(), "values have dimension {}, the heads {}",
          values.cols, heads[0]->value_dim());
}

}  // namespace

void append_heads(std::span<HeadCache* const> heads, MatrixView<float> keys,
                  MatrixView<float> values, DecodePool& pool) {
  if (heads.empty()) return;
  require_alike(heads);
  require_tokens(heads, keys, values);
  OccupiedHeads(heads).append(keys, values, pool);
}

void attend_heads(std::span<HeadCache* const> heads, MatrixView<float> queries, DecodePool& pool,
                  float* out) {
  if (heads.empty()) return;
  require_alike(heads);
  require_queries(heads, queries);
  OccupiedHeads(heads).attend(queries, pool, out);
}

void step_heads(std::span<HeadCache* const> heads, MatrixView<float> queries,
                MatrixView<float> keys, MatrixView<float> values, DecodePool& pool, float* out) {
  if (heads.empty()) return;
  require_alike(heads);
  require_queries(heads, queries);
  require_tokens(heads, keys, values);
  OccupiedHeads(heads).step(queries, keys, values, pool, out);
}

void step_heads_beside_static(std::span<HeadCache* const> heads, MatrixView<float> queries,
                              MatrixView<float> keys, MatrixView<float> values, DecodePool& pool,
                              float* out, float* lse) {
  if (heads.empty()) return;
  require_alike(heads);
  require_queries(heads, queries);
  require_tokens(heads, keys, values);
  OccupiedHeads(heads).step_beside_static(queries, keys, values, pool, out, lse);
}

}  // namespace keyseek
