// A turn: tokens that come at once, each attended exactly over all tokens up to it.
#include <algorithm>

#include "base/fail.hpp"
#include "decode/head_state.hpp"
#include "score/kernels.hpp"

namespace keyseek {

void HeadCache::State::extend(MatrixView<float> queries, MatrixView<float> keys,
                              MatrixView<float> values, DecodeScratch::State& scratch, float* out) {
  const std::size_t past = tokens();
  take_tokens(keys, values, queries);
  try {
    attend_turn(queries, past, scratch, out);
  } catch (...) {
    drop_tokens(keys.rows);
    throw;
  }
}

void HeadCache::State::extend_over_written(MatrixView<float> queries, std::span<const Id> more,
                                           DecodeScratch::State& scratch, float* out) {
  require(queries.rows % group == 0, "queries has {} rows, no multiple of group = {}", queries.rows,
          group);
  const std::size_t past = tokens(), count = queries.rows / group;
  require_turn(queries, count);
  take_written(count, more, queries);
  try {
    attend_turn(queries, past, scratch, out);
  } catch (...) {
    undo_written(count);
    throw;
  }
}

void HeadCache::State::require_tokens(MatrixView<float> keys, MatrixView<float> values) const {
  require(keys.rows == values.rows, "keys has {} rows, values has {}", keys.rows, values.rows);
  if (keys.rows == 0) return;
  require(keys.cols == dim, "keys have dimension {}, the head has {}", keys.cols, dim);
  require(values.cols == value_dim, "values have dimension {}, the head has {}", values.cols,
          value_dim);
}

void HeadCache::State::require_turn(MatrixView<float> queries, std::size_t tokens) const {
  require(queries.rows == tokens * group && (tokens == 0 || queries.cols == dim),
          "queries are {} x {}, must be {} x {}", queries.rows, queries.cols, tokens * group, dim);
  if (tokens > 0) require_finite(AnyMatrixView::of(queries), "queries");
}

/// Of the newest tokens, all but the first `past`. A few of them at a time share what came before
/// these, and each then attends to those of the few up to itself.
void HeadCache::State::attend_turn(MatrixView<float> queries, std::size_t past,
                                   DecodeScratch::State& scratch, float* out) const {
  const Tokens all_tokens = pieces();
  const std::size_t count = queries.rows / group, few = std::max<std::size_t>(1, kMaxGroup / group);
  for (std::size_t first = 0; first < count; first += few) {
    const std::size_t some = std::min(few, count - first), shared = past + first;
    scratch.all.reset(some * group, value_dim, params.null_logits);
    all_tokens.attend(queries.slice(first * group, some * group), 0, shared, params.logits(),
                      scratch.attend, scratch.part, scratch.all);
    for (std::size_t i = 0; i < some; ++i) {
      Partial one = scratch.all.slice(i * group, group);
      all_tokens.attend(queries.slice((first + i) * group, group), shared, shared + i + 1,
                        params.logits(), scratch.attend, scratch.part, one);
      std::copy_n(one.out.data(), group * value_dim, out + (first + i) * group * value_dim);
    }
  }
}

}  // namespace keyseek
