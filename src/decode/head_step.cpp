// What a HeadCache does in a step.
#include <algorithm>
#include <chrono>
#include <numeric>

#include "base/fail.hpp"
#include "decode/head_state.hpp"
#include "decode/stop.hpp"
#include "decode/tokens.hpp"
#include "keyseek/tail.hpp"

namespace keyseek {
namespace {

using Clock = std::chrono::steady_clock;

double microseconds_since(Clock::time_point begin) {
  return std::chrono::duration<double, std::micro>(Clock::now() - begin).count();
}

}  // namespace

void HeadCache::State::attend_all(MatrixView<float> queries, DecodeScratch::State& scratch,
                                  float* out) {
  const auto begin = Clock::now();
  require_queries(queries);
  make_room_to_remember(1);
  attend_but(0, 0, queries, scratch);
  std::copy_n(scratch.all.out.data(), group * value_dim, out);
  scratch.last.stats.total_us = microseconds_since(begin);
  accept(queries, scratch);
}

void HeadCache::State::forget_attention() noexcept {
  remembered_at.resize(last.remembered);
  remembered.resize(last.remembered * group * dim);
  std::swap(last, before);
}

void HeadCache::State::step_over_all(MatrixView<float> queries, const float* key,
                                     const float* value, DecodeScratch::State& scratch,
                                     float* out) {
  const auto begin = Clock::now();
  require_queries(queries);
  take_token(key, value);
  try {
    attend_all(queries, scratch, out);
  } catch (...) {
    drop_tokens(1);
    throw;
  }
  last.stats.total_us = microseconds_since(begin);
}

void HeadCache::State::step_over_written(MatrixView<float> queries, std::span<const Id> more,
                                         DecodeScratch::State& scratch, float* out) {
  const auto begin = Clock::now();
  require_queries(queries);
  take_written(1, more, {});
  try {
    attend_all(queries, scratch, out);
  } catch (...) {
    undo_written(1);
    throw;
  }
  last.stats.total_us = microseconds_since(begin);
}

void HeadCache::State::step_over_rest(MatrixView<float> queries, const float* key,
                                      const float* value, DecodeScratch::State& scratch, float* out,
                                      float* lse) {
  const auto begin = Clock::now();
  require_queries(queries);
  take_token(key, value);
  try {
    make_room_to_remember(1);
    attend_but(sink(), std::min(params.window, recent_keys.rows()), queries, scratch);
  } catch (...) {
    drop_tokens(1);
    throw;
  }
  std::copy_n(scratch.all.out.data(), group * value_dim, out);
  std::copy_n(scratch.all.lse.data(), group, lse);
  scratch.last.stats.total_us = microseconds_since(begin);
  accept(queries, scratch);
}

void HeadCache::State::undo_step() noexcept {
  forget_attention();
  drop_tokens(1);
}

void HeadCache::State::require_queries(MatrixView<float> queries) const {
  require(queries.rows == group && queries.cols == dim, "queries are {} x {}, must be {} x {}",
          queries.rows, queries.cols, group, dim);
  require_finite(AnyMatrixView::of(queries), "queries");
}

/// Makes what attention left in the scratch the head's own, and remembers the queries.
void HeadCache::State::accept(MatrixView<float> queries, DecodeScratch::State& scratch) noexcept {
  scratch.last.remembered = remembered_at.size();
  std::swap(before, last);
  std::swap(last, scratch.last);
  remember(queries, tokens() - 1, 1);
}

StaticPart HeadCache::State::static_part() const {
  require_own();
  // A device would let the tokens that come next into the sink; here they enter the window.
  require(sink() == params.sink, "the prompt had {} tokens, a static part needs its sink of {}",
          sink(), params.sink);
  const std::size_t window = std::min(params.window, recent_keys.rows());
  const std::size_t first = recent_keys.rows() - window;
  return {sink_keys.view().slice(0, sink()), sink_values.view().slice(0, sink()),
          recent_keys.view().slice(first, window), recent_values.view().slice(first, window)};
}

/// Leaves in scratch.all the attention over all tokens but the first `sink` and the newest
/// `window`; of these the stop rule then sees nothing.
void HeadCache::State::attend_but(std::size_t first, std::size_t window, MatrixView<float> queries,
                                  DecodeScratch::State& scratch) const {
  StepStats& stats = scratch.last.stats;
  stats = {};
  Partial& all = scratch.all;
  all.reset(group, value_dim, params.null_logits);
  const Tokens all_tokens = pieces();
  const bool everything = plan.retriever == Retriever::everything;
  const std::size_t first_indexed = sink_keys.rows(), first_recent = first_indexed + indexed();
  const std::size_t end = all_tokens.size() - window;
  const auto attending = Clock::now();
  all_tokens.attend(queries, first, everything ? first_recent : first_indexed, params.logits(),
                    scratch.attend, scratch.part, all);
  all_tokens.attend(queries, first_recent, end, params.logits(), scratch.attend, scratch.part, all);
  stats.exact = first_indexed - first + end - first_recent + (everything ? indexed() : 0);
  if (everything) {
    scratch.last.hits.group = 0;  // there is no warm start
    stats.bytes_read = indexed_keys.bytes() + indexed_values.bytes();
  } else {
    attend_indexed(queries, scratch, all);
  }
  stats.attend_us = microseconds_since(attending) - stats.search_us;
}

/// `into` is the attention over the exact tokens, and becomes that over all.
void HeadCache::State::attend_indexed(MatrixView<float> queries, DecodeScratch::State& scratch,
                                      Partial& into) const {
  Hits& hits = scratch.last.hits;
  StepStats& stats = scratch.last.stats;
  const auto begin = Clock::now();
  retrieve_for(queries, scratch);
  stats.search_us = microseconds_since(begin);
  // The next search starts from all that was found; attended is what the stop rule keeps.
  scratch.kept.resize(group);
  for (std::size_t g = 0; g < group; ++g)
    scratch.kept[g] =
        kept_by(plan.stop, hits.row_scores(g), params.logits(), into.best[g], into.lse[g]);
  stats.retrieved = std::accumulate(scratch.kept.begin(), scratch.kept.end(), std::size_t{0});
  std::swap(hits.count, scratch.kept);
  attend_hits(hits, values_of_indexed(), params.logits(), scratch.attend, scratch.part);
  if (!tail.empty()) {
    attend_tail(queries, hits, scratch.part, tail, scratch.attend, scratch.summary);
    merge(scratch.summary, into);
  }
  std::swap(hits.count, scratch.kept);
  merge(scratch.part, into);
  stats.bytes_read += stats.retrieved * values_of_indexed().row_bytes() + tail.bytes();
}

/// Leaves in scratch.last what the plan's search finds, warm from what the last one found.
void HeadCache::State::retrieve_for(MatrixView<float> queries,
                                    DecodeScratch::State& scratch) const {
  Hits& hits = scratch.last.hits;
  StepStats& stats = scratch.last.stats;
  if (plan.retriever == Retriever::none) {
    hits.group = group;
    hits.k = 0;
    hits.count.assign(group, 0);
    return;
  }
  index.search(plan, queries, params.scan_novel, last.hits.group == 0 ? nullptr : &last.hits,
               scratch.search, hits);
  stats.scanned = hits.stats.looked_at();
  stats.bytes_read = hits.stats.bytes_read;
}

void HeadCache::State::retrieve(MatrixView<float> queries, std::size_t k,
                                DecodeScratch::State& scratch, Hits& hits) const {
  require(!index.empty(), "this head has no index: its plan is '{}'", to_string(plan.retriever));
  HeadPlan other = plan;
  other.stop.k = std::min(k, indexed());
  index.search(other, queries, params.scan_novel, nullptr, scratch.search, hits);
  for (std::size_t g = 0; g < hits.group; ++g)
    for (std::size_t r = 0; r < hits.count[g]; ++r) {
      Id& id = hits.ids[g * hits.k + r];
      id = static_cast<Id>(position_of(id, sink(), pinned));
    }
}

}  // namespace keyseek
