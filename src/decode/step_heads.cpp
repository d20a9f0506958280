// One call for many heads: all of them do it, on the threads of a pool, or none.
#include <algorithm>

#include "base/fail.hpp"
#include "decode/head_state.hpp"
#include "keyseek/decode_pool.hpp"

namespace keyseek {
namespace {

using State = HeadCache::State;

/// Work on the heads of one call, each on any thread of a pool: all are done, or none.
class OccupiedHeads {
 public:
  /// Throws Error when one is named twice, or somebody else is at work on it.
  explicit OccupiedHeads(std::span<HeadCache* const> heads);
  ~OccupiedHeads() { leave(heads_.size()); }
  OccupiedHeads(const OccupiedHeads&) = delete;
  OccupiedHeads& operator=(const OccupiedHeads&) = delete;

  /// body(i, head, scratch) for each; when one throws, `undo` for those that are done.
  template <class Body>
  void each(DecodePool& pool, void (HeadCache::State::*undo)() noexcept, const Body& body);

 private:
  void leave(std::size_t count) noexcept;
  [[nodiscard]] HeadCache::State& head(std::size_t i) const {
    return HeadCache::State::of(*heads_[i]);
  }

  std::span<HeadCache* const> heads_;
};

OccupiedHeads::OccupiedHeads(std::span<HeadCache* const> heads) : heads_(heads) {
  for (std::size_t i = 0; i < heads.size(); ++i) {
    Occupancy& occupancy = head(i).occupancy;
    if (occupancy.enter()) {
      occupancy.done = false;
      continue;
    }
    leave(i);
    const auto first = std::find(heads.begin(), heads.end(), heads[i]) - heads.begin();
    require(static_cast<std::size_t>(first) == i,
            "heads[{}] and heads[{}] are the same HeadCache: name each once", first, i);
    fail(ErrorCode::invalid_argument, "heads[{}]: {}", i, kOccupied);
  }
}

void OccupiedHeads::leave(std::size_t count) noexcept {
  for (std::size_t i = 0; i < count; ++i) head(i).occupancy.leave();
}

template <class Body>
void OccupiedHeads::each(DecodePool& pool, void (HeadCache::State::*undo)() noexcept,
                         const Body& body) {
  try {
    pool.run(heads_.size(), [&](std::size_t i, DecodeScratch& scratch) {
      body(i, head(i), DecodeScratch::State::of(scratch));
      head(i).occupancy.done = true;
    });
  } catch (...) {
    for (std::size_t i = 0; i < heads_.size(); ++i)
      if (head(i).occupancy.done) (head(i).*undo)();
    throw;
  }
}

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
  OccupiedHeads(heads).each(pool, &State::drop_token,
                            [&](std::size_t i, State& head, DecodeScratch::State&) {
                              head.take_token(keys.row(i), values.row(i));
                            });
}

void attend_heads(std::span<HeadCache* const> heads, MatrixView<float> queries, DecodePool& pool,
                  float* out) {
  if (heads.empty()) return;
  require_alike(heads);
  require_queries(heads, queries);
  OccupiedHeads(heads).each(pool, &State::forget_attention,
                            [&](std::size_t i, State& head, DecodeScratch::State& scratch) {
                              head.attend_all(queries.slice(i * head.group, head.group), scratch,
                                              out + i * head.group * head.value_dim);
                            });
}

void step_heads(std::span<HeadCache* const> heads, MatrixView<float> queries,
                MatrixView<float> keys, MatrixView<float> values, DecodePool& pool, float* out) {
  if (heads.empty()) return;
  require_alike(heads);
  require_queries(heads, queries);
  require_tokens(heads, keys, values);
  OccupiedHeads(heads).each(
      pool, &State::undo_step, [&](std::size_t i, State& head, DecodeScratch::State& scratch) {
        head.step_over_all(queries.slice(i * head.group, head.group), keys.row(i), values.row(i),
                           scratch, out + i * head.group * head.value_dim);
      });
}

void step_heads_beside_static(std::span<HeadCache* const> heads, MatrixView<float> queries,
                              MatrixView<float> keys, MatrixView<float> values, DecodePool& pool,
                              float* out, float* lse) {
  if (heads.empty()) return;
  require_alike(heads);
  require_queries(heads, queries);
  require_tokens(heads, keys, values);
  OccupiedHeads(heads).each(
      pool, &State::undo_step, [&](std::size_t i, State& head, DecodeScratch::State& scratch) {
        head.step_over_rest(queries.slice(i * head.group, head.group), keys.row(i), values.row(i),
                            scratch, out + i * head.group * head.value_dim, lse + i * head.group);
      });
}

}  // namespace keyseek
