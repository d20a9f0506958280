// What a HeadCache does in a step.
#include <algorithm>
#include <chrono>
#include <numeric>

#include "base/fail.hpp"
#include "decode/head_index.hpp"
#include "decode/occupied.hpp"
#include "decode/stop.hpp"
#include "decode/tokens.hpp"
#include "keyseek/decode.hpp"
#include "keyseek/tail.hpp"
#include "score/range.hpp"

namespace keyseek {
namespace {

// Decoded queries kept for the next refresh, at most; the rest would add memory, not recall.
constexpr std::size_t kRemembered = 256;

using Clock = std::chrono::steady_clock;

double microseconds_since(Clock::time_point begin) {
  return std::chrono::duration<double, std::micro>(Clock::now() - begin).count();
}

/// Room for `more` elements, which grows as push_back's does.
template <class T>
void make_room(std::vector<T>& values, std::size_t more) {
  const std::size_t needed = values.size() + more;
  if (needed > values.capacity()) values.reserve(std::max(2 * values.capacity(), needed));
}

}  // namespace

void HeadCache::append(const float* key, const float* value) {
  const Occupied self(occupancy_);
  take_token(key, value);
}

void HeadCache::attend(MatrixView<float> queries, DecodeScratch& scratch, float* out) {
  const Occupied self(occupancy_);
  attend_all(queries, scratch, out);
}

void HeadCache::step(MatrixView<float> queries, const float* key, const float* value,
                     DecodeScratch& scratch, float* out) {
  const Occupied self(occupancy_);
  step_over_all(queries, key, value, scratch, out);
}

void HeadCache::step_beside_static(MatrixView<float> queries, const float* key, const float* value,
                                   DecodeScratch& scratch, float* out, float* lse) {
  const Occupied self(occupancy_);
  step_over_rest(queries, key, value, scratch, out, lse);
}

/// Checks a token and takes it; refreshes first when a horizon is full.
void HeadCache::take_token(const float* key, const float* value) {
  require(group_ > 0, "the HeadCache is empty: prefill one first");
  recent_keys_.check(key, "key");
  recent_values_.check(value, "value");
  require_range(AnyMatrixView::of(MatrixView<float>(key, 1, dim_)), "key");
  require_range(AnyMatrixView::of(MatrixView<float>(value, 1, value_dim_)), "value", kLargestValue);
  // Not a sum: a window of any size means that nothing is indexed.
  const std::size_t recent = recent_keys_.rows();
  if (recent >= params_.window && recent - params_.window >= params_.horizon)
    refresh_remembered({.threads = 1});
  recent_keys_.make_room();
  recent_values_.make_room();
  recent_keys_.append(key);
  recent_values_.append(value);
}

void HeadCache::drop_token() noexcept {
  recent_keys_.drop_back();
  recent_values_.drop_back();
}

void HeadCache::attend_all(MatrixView<float> queries, DecodeScratch& scratch, float* out) {
  const auto begin = Clock::now();
  require_queries(queries);
  make_room_to_remember();
  attend_but(0, 0, queries, scratch);
  std::copy_n(scratch.all.out.data(), group_ * value_dim_, out);
  scratch.last.stats.total_us = microseconds_since(begin);
  accept(queries, scratch);
}

void HeadCache::forget_attention() noexcept {
  remembered_at_.resize(last_.remembered);
  remembered_.resize(last_.remembered * group_ * dim_);
  std::swap(last_, before_);
}

void HeadCache::step_over_all(MatrixView<float> queries, const float* key, const float* value,
                              DecodeScratch& scratch, float* out) {
  const auto begin = Clock::now();
  require_queries(queries);
  take_token(key, value);
  try {
    attend_all(queries, scratch, out);
  } catch (...) {
    drop_token();
    throw;
  }
  last_.stats.total_us = microseconds_since(begin);
}

void HeadCache::step_over_rest(MatrixView<float> queries, const float* key, const float* value,
                               DecodeScratch& scratch, float* out, float* lse) {
  const auto begin = Clock::now();
  require_queries(queries);
  take_token(key, value);
  try {
    make_room_to_remember();
    attend_but(sink(), std::min(params_.window, recent_keys_.rows()), queries, scratch);
  } catch (...) {
    drop_token();
    throw;
  }
  std::copy_n(scratch.all.out.data(), group_ * value_dim_, out);
  std::copy_n(scratch.all.lse.data(), group_, lse);
  scratch.last.stats.total_us = microseconds_since(begin);
  accept(queries, scratch);
}

void HeadCache::undo_step() noexcept {
  forget_attention();
  drop_token();
}

void HeadCache::require_queries(MatrixView<float> queries) const {
  require(group_ > 0, "the HeadCache is empty: prefill one first");
  require(queries.rows == group_ && queries.cols == dim_, "queries are {} x {}, must be {} x {}",
          queries.rows, queries.cols, group_, dim_);
  require_finite(AnyMatrixView::of(queries), "queries");
}

/// Makes what attention left in the scratch the head's own, and remembers the queries of some
/// positions: every so many, so that a horizon leaves kRemembered of them.
void HeadCache::accept(MatrixView<float> queries, DecodeScratch& scratch) noexcept {
  scratch.last.remembered = remembered_at_.size();
  std::swap(before_, last_);
  std::swap(last_, scratch.last);
  const std::size_t every = std::max<std::size_t>(1, params_.horizon / kRemembered);
  const std::size_t position = tokens() - 1;
  if (position % every != 0) return;
  // Of a position that is attended more than once, the first queries.
  if (!remembered_at_.empty() && remembered_at_.back() == position) return;
  for (std::size_t g = 0; g < group_; ++g)
    remembered_.insert(remembered_.end(), queries.row(g), queries.row(g) + dim_);
  remembered_at_.push_back(position);
}

void HeadCache::make_room_to_remember() {
  make_room(remembered_, group_ * dim_);
  make_room(remembered_at_, 1);
}

StaticPart HeadCache::static_part() const {
  require(group_ > 0, "the HeadCache is empty: prefill one first");
  // A device would let the tokens that come next into the sink; here they enter the window.
  require(sink() == params_.sink, "the prompt had {} tokens, a static part needs its sink of {}",
          sink(), params_.sink);
  const std::size_t window = std::min(params_.window, recent_keys_.rows());
  const std::size_t first = recent_keys_.rows() - window;
  return {sink_keys_.view().slice(0, sink()), sink_values_.view().slice(0, sink()),
          recent_keys_.view().slice(first, window), recent_values_.view().slice(first, window)};
}

/// Leaves in scratch.all the attention over all tokens but the first `sink` and the newest
/// `window`; of these the stop rule then sees nothing.
void HeadCache::attend_but(std::size_t sink, std::size_t window, MatrixView<float> queries,
                           DecodeScratch& scratch) const {
  StepStats& stats = scratch.last.stats;
  stats = {};
  Partial& all = scratch.all;
  all.reset(group_, value_dim_, params_.null_logits);
  Tokens tokens;
  tokens.sink = {sink_keys_.view(), {sink_values_.view()}};
  tokens.indexed = {indexed_keys_.view(), indexed_values()};
  tokens.recent = {recent_keys_.view(), {recent_values_.view()}};
  const bool everything = plan_.retriever == Retriever::everything;
  const std::size_t first_indexed = sink_keys_.rows(), first_recent = first_indexed + indexed();
  const std::size_t last = tokens.size() - window;
  const auto attending = Clock::now();
  tokens.attend(queries, sink, everything ? first_recent : first_indexed, params_.logits(),
                scratch.attend, scratch.part, all);
  tokens.attend(queries, first_recent, last, params_.logits(), scratch.attend, scratch.part, all);
  stats.exact = first_indexed - sink + last - first_recent + (everything ? indexed() : 0);
  if (everything) {
    scratch.last.hits.group = 0;  // there is no warm start
    stats.bytes_read = indexed_keys_.bytes() + indexed_values_.bytes();
  } else {
    attend_indexed(queries, scratch, all);
  }
  stats.attend_us = microseconds_since(attending) - stats.search_us;
}

/// `into` is the attention over the exact tokens, and becomes that over all.
void HeadCache::attend_indexed(MatrixView<float> queries, DecodeScratch& scratch,
                               Partial& into) const {
  Hits& hits = scratch.last.hits;
  StepStats& stats = scratch.last.stats;
  const auto begin = Clock::now();
  retrieve_for(queries, scratch);
  stats.search_us = microseconds_since(begin);
  // The next search starts from all that was found; attended is what the stop rule keeps.
  scratch.kept.resize(group_);
  for (std::size_t g = 0; g < group_; ++g)
    scratch.kept[g] =
        kept_by(plan_.stop, hits.row_scores(g), params_.logits(), into.best[g], into.lse[g]);
  stats.retrieved = std::accumulate(scratch.kept.begin(), scratch.kept.end(), std::size_t{0});
  std::swap(hits.count, scratch.kept);
  attend_hits(hits, indexed_values(), params_.logits(), scratch.attend, scratch.part);
  if (!tail_.empty()) {
    attend_tail(queries, hits, scratch.part, tail_, scratch.attend, scratch.summary);
    merge(scratch.summary, into);
  }
  std::swap(hits.count, scratch.kept);
  merge(scratch.part, into);
  stats.bytes_read += stats.retrieved * indexed_values().row_bytes() + tail_.bytes();
}

/// Leaves in scratch.last what the plan's search finds, warm from what the last one found.
void HeadCache::retrieve_for(MatrixView<float> queries, DecodeScratch& scratch) const {
  Hits& hits = scratch.last.hits;
  StepStats& stats = scratch.last.stats;
  if (plan_.retriever == Retriever::none) {
    hits.group = group_;
    hits.k = 0;
    hits.count.assign(group_, 0);
    return;
  }
  search_index(index_, plan_, queries, params_.scan_novel,
               last_.hits.group == 0 ? nullptr : &last_.hits, scratch.search, hits);
  stats.scanned = hits.stats.looked_at();
  stats.bytes_read = hits.stats.bytes_read;
}

void HeadCache::retrieve(MatrixView<float> queries, std::size_t k, DecodeScratch& scratch,
                         Hits& hits) const {
  require(group_ > 0, "the HeadCache is empty: prefill one first");
  require(!index_.empty(), "this head has no index: its plan is '{}'", to_string(plan_.retriever));
  HeadPlan plan = plan_;
  plan.stop.k = std::min(k, indexed());
  search_index(index_, plan, queries, params_.scan_novel, nullptr, scratch.search, hits);
  for (std::size_t g = 0; g < hits.group; ++g)
    for (std::size_t r = 0; r < hits.count[g]; ++r) {
      Id& id = hits.ids[g * hits.k + r];
      id = static_cast<Id>(position_of(id, sink(), pinned_));
    }
}

}  // namespace keyseek
