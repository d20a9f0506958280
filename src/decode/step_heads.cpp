// One call for many heads: all of them do it, on the threads of a pool, or none.
#include <algorithm>
#include <functional>

#include "base/fail.hpp"
#include "decode/head_state.hpp"
#include "decode/refresh_task.hpp"
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

  /// body(i, head, scratch) for each; when one throws, undo(head) for those that are done.
  template <class Undo, class Body>
  void each(DecodePool& pool, const Undo& undo, const Body& body);

 private:
  void leave(std::size_t count) noexcept;
  /// Has what heads began planned in the background, as long as a head wants it.
  void plan_aside(DecodePool& pool) noexcept;
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

template <class Undo, class Body>
void OccupiedHeads::each(DecodePool& pool, const Undo& undo, const Body& body) {
  try {
    pool.run(heads_.size(), [&](std::size_t i, DecodeScratch& scratch) {
      body(i, head(i), DecodeScratch::State::of(scratch));
      head(i).occupancy.done = true;
    });
  } catch (...) {
    for (std::size_t i = 0; i < heads_.size(); ++i)
      if (head(i).occupancy.done) std::invoke(undo, head(i));
    throw;
  }
  plan_aside(pool);
}

void OccupiedHeads::plan_aside(DecodePool& pool) noexcept {
  try {
    for (std::size_t i = 0; i < heads_.size(); ++i) {
      const std::shared_ptr<RefreshTask>& begun = head(i).pending;
      if (!begun || !begun->offer()) continue;
      pool.run_aside([begun = std::weak_ptr(begun)](const Execution& run) {
        const std::shared_ptr<RefreshTask> task = begun.lock();
        if (!task) return;
        Execution wanted = run;
        wanted.progress = [&](std::string_view stage, std::size_t done, std::size_t total) {
          return task.use_count() > 1 && run.progress(stage, done, total);
        };
        task->run(wanted);
      });
    }
  } catch (...) {  // for want of memory or threads: steps plan what is left when it is due
  }
}

void require_there(std::span<HeadCache* const> heads) {
  for (const HeadCache* head : heads)
    require(head != nullptr && head->group() > 0, "a HeadCache is empty: prefill it first");
}

void require_alike(std::span<HeadCache* const> heads) {
  require_there(heads);
  for (const HeadCache* head : heads) {
    require(head->group() == heads[0]->group() && head->dim() == heads[0]->dim() &&
                head->value_dim() == heads[0]->value_dim(),
            "heads differ in shape");
  }
}

/// Of `count` tokens of each head.
void require_queries(std::span<HeadCache* const> heads, std::size_t count,
                     MatrixView<float> queries) {
  const std::size_t rows = heads.size() * count * heads[0]->group();
  require(queries.rows == rows, "queries has {} rows, must have {}", queries.rows, rows);
  require(queries.cols == heads[0]->dim(), "queries have dimension {}, the heads {}", queries.cols,
          heads[0]->dim());
}

/// `count` of each head.
void require_tokens(std::span<HeadCache* const> heads, std::size_t count, MatrixView<float> keys,
                    MatrixView<float> values) {
  const std::size_t rows = heads.size() * count;
  require(keys.rows == rows && values.rows == rows,
          "keys has {} rows and values {}, there are {} heads", keys.rows, values.rows,
          heads.size());
  if (rows == 0) return;
  require(keys.cols == heads[0]->dim(), "keys have dimension {}, the heads {}", keys.cols,
          heads[0]->dim());
  require(values.cols == heads[0]->value_dim(), "values have dimension {}, the heads {}",
          values.cols, heads[0]->value_dim());
}

/// How many tokens there are of each head.
std::size_t require_turn(std::span<HeadCache* const> heads, MatrixView<float> keys,
                         MatrixView<float> values) {
  require_alike(heads);
  require(keys.rows % heads.size() == 0, "keys has {} rows, no multiple of {} heads", keys.rows,
          heads.size());
  require_tokens(heads, keys.rows / heads.size(), keys, values);
  return keys.rows / heads.size();
}

/// The rows of head i, of which each has so many.
MatrixView<float> share_of(MatrixView<float> rows, std::size_t i, std::size_t each) {
  return rows.empty() ? rows : rows.slice(i * each, each);
}

}  // namespace

void append_heads(std::span<HeadCache* const> heads, MatrixView<float> keys,
                  MatrixView<float> values, DecodePool& pool, MatrixView<float> queries) {
  if (heads.empty()) return;
  const std::size_t count = require_turn(heads, keys, values);
  if (!queries.empty()) require_queries(heads, count, queries);
  OccupiedHeads(heads).each(
      pool, [&](State& head) { head.drop_tokens(count); },
      [&](std::size_t i, State& head, DecodeScratch::State&) {
        const MatrixView<float> own = share_of(queries, i, count * head.group);
        if (!own.empty()) head.require_turn(own, count);
        head.take_tokens(share_of(keys, i, count), share_of(values, i, count), own);
      });
}

void announce_heads(std::span<HeadCache* const> heads, std::size_t tokens,
                    std::span<const std::span<const Id>> pages, DecodePool& pool,
                    MatrixView<float> queries) {
  if (heads.empty()) return;
  require_alike(heads);
  require(pages.empty() || pages.size() == heads.size(), "pages are of {} heads, there are {}",
          pages.size(), heads.size());
  if (!queries.empty()) require_queries(heads, tokens, queries);
  OccupiedHeads(heads).each(
      pool, [&](State& head) { head.undo_written(tokens); },
      [&](std::size_t i, State& head, DecodeScratch::State&) {
        const MatrixView<float> own = share_of(queries, i, tokens * head.group);
        if (!own.empty()) head.require_turn(own, tokens);
        head.take_written(tokens, pages.empty() ? std::span<const Id>() : pages[i], own);
      });
}

void extend_heads(std::span<HeadCache* const> heads, MatrixView<float> queries,
                  MatrixView<float> keys, MatrixView<float> values, DecodePool& pool, float* out) {
  if (heads.empty()) return;
  const std::size_t count = require_turn(heads, keys, values);
  require_queries(heads, count, queries);
  OccupiedHeads(heads).each(
      pool, [&](State& head) { head.drop_tokens(count); },
      [&](std::size_t i, State& head, DecodeScratch::State& scratch) {
        const std::size_t rows = count * head.group;
        const MatrixView<float> own = share_of(queries, i, rows);
        head.require_turn(own, count);
        head.extend(own, share_of(keys, i, count), share_of(values, i, count), scratch,
                    out + i * rows * head.value_dim);
      });
}

void truncate_heads(std::span<HeadCache* const> heads, std::span<const std::size_t> tokens,
                    DecodePool& pool) {
  require(tokens.size() == heads.size(), "tokens are of {} heads, there are {}", tokens.size(),
          heads.size());
  require_there(heads);
  std::vector<State::Cut> cuts(heads.size());
  OccupiedHeads occupied(heads);
  occupied.each(
      pool, [](State&) {},
      [&](std::size_t i, State& head, DecodeScratch::State&) { cuts[i] = head.cut_to(tokens[i]); });
  for (std::size_t i = 0; i < heads.size(); ++i) State::of(*heads[i]).keep(std::move(cuts[i]));
}

void copy_tokens(std::span<HeadCache* const> heads, DecodePool& pool,
                 const std::function<std::pair<void*, void*>(std::size_t)>& to) {
  require_there(heads);
  OccupiedHeads(heads).each(
      pool, [](State&) {},
      [&](std::size_t i, State& head, DecodeScratch::State&) {
        const auto [keys, values] = to(i);
        head.copy_tokens(keys, values);
      });
}

void attend_heads(std::span<HeadCache* const> heads, MatrixView<float> queries, DecodePool& pool,
                  float* out) {
  if (heads.empty()) return;
  require_alike(heads);
  require_queries(heads, 1, queries);
  OccupiedHeads(heads).each(pool, &State::forget_attention,
                            [&](std::size_t i, State& head, DecodeScratch::State& scratch) {
                              head.attend_all(queries.slice(i * head.group, head.group), scratch,
                                              out + i * head.group * head.value_dim);
                            });
}

void attend_heads(std::span<HeadCache* const> heads, AnyMatrixView queries, DecodePool& pool,
                  float* out) {
  DecodeScratch scratch;
  attend_heads(heads, DecodeScratch::State::of(scratch).widened(queries), pool, out);
}

void step_heads(std::span<HeadCache* const> heads, MatrixView<float> queries,
                MatrixView<float> keys, MatrixView<float> values, DecodePool& pool, float* out) {
  if (heads.empty()) return;
  require_alike(heads);
  require_queries(heads, 1, queries);
  require_tokens(heads, 1, keys, values);
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
  require_queries(heads, 1, queries);
  require_tokens(heads, 1, keys, values);
  OccupiedHeads(heads).each(
      pool, &State::undo_step, [&](std::size_t i, State& head, DecodeScratch::State& scratch) {
        head.step_over_rest(queries.slice(i * head.group, head.group), keys.row(i), values.row(i),
                            scratch, out + i * head.group * head.value_dim, lse + i * head.group);
      });
}

}  // namespace keyseek
