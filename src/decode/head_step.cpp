// What a HeadCache does in a step.
#include <algorithm>
#include <chrono>
#include <numeric>

#include "base/fail.hpp"
#include "decode/head_index.hpp"
#include "decode/stop.hpp"
#include "decode/tokens.hpp"
#include "keyseek/decode.hpp"
#include "keyseek/tail.hpp"

namespace keyseek {
namespace {

// Decoded queries kept for the next refresh, at most; the rest would add memory, not recall.
constexpr std::size_t kRemembered = 256;

using Clock = std::chrono::steady_clock;

double microseconds_since(Clock::time_point begin) {
  return std::chrono::duration<double, std::micro>(Clock::now() - begin).count();
}

}  // namespace

void HeadCache::step(MatrixView<float> queries, const float* key, const float* value,
                     DecodeScratch& scratch, float* out) {
  const auto begin = Clock::now();
  append(queries, key, value);
  attend_but(0, 0, queries, scratch);
  std::copy_n(scratch.all.out.data(), group_ * value_dim_, out);
  stats_.total_us = microseconds_since(begin);
}

void HeadCache::step_beside_static(MatrixView<float> queries, const float* key, const float* value,
                                   DecodeScratch& scratch, float* out, float* lse) {
  const auto begin = Clock::now();
  append(queries, key, value);
  attend_but(sink(), std::min(params_.window, recent_keys_.rows()), queries, scratch);
  std::copy_n(scratch.all.out.data(), group_ * value_dim_, out);
  std::copy_n(scratch.all.lse.data(), group_, lse);
  stats_.total_us = microseconds_since(begin);
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

/// Checks and appends the token of a step; refreshes first when a horizon is full.
void HeadCache::append(MatrixView<float> queries, const float* key, const float* value) {
  require(group_ > 0, "the HeadCache is empty: prefill one first");
  require(queries.rows == group_ && queries.cols == dim_, "queries are {} x {}, must be {} x {}",
          queries.rows, queries.cols, group_, dim_);
  require_finite(AnyMatrixView::of(queries), "queries");
  recent_keys_.check(key, "key");
  recent_values_.check(value, "value");
  // Not a sum: a window of any size means that nothing is indexed.
  const std::size_t recent = recent_keys_.rows();
  if (recent >= params_.window && recent - params_.window >= params_.horizon)
    refresh({.threads = 1});
  recent_keys_.append(key);
  recent_values_.append(value);
  remember(queries);
}

/// Leaves in scratch.all the attention over all tokens but the first `sink` and the newest
/// `window`; of these the stop rule then sees nothing.
void HeadCache::attend_but(std::size_t sink, std::size_t window, MatrixView<float> queries,
                           DecodeScratch& scratch) {
  stats_ = {};
  Partial& all = scratch.all;
  all.reset(group_, value_dim_);
  Tokens tokens;
  tokens.sink = {sink_keys_.view(), {sink_values_.view()}};
  tokens.indexed = {indexed_keys_.view(), indexed_values()};
  tokens.recent = {recent_keys_.view(), {recent_values_.view()}};
  const bool everything = plan_.retriever == Retriever::everything;
  const std::size_t first_indexed = sink_keys_.rows(), first_recent = first_indexed + indexed();
  const std::size_t last = tokens.size() - window;
  const auto attending = Clock::now();
  tokens.attend(queries, sink, everything ? first_recent : first_indexed, params_.scale,
                scratch.attend, scratch.part, all);
  tokens.attend(queries, first_recent, last, params_.scale, scratch.attend, scratch.part, all);
  stats_.exact = first_indexed - sink + last - first_recent + (everything ? indexed() : 0);
  if (everything) {
    stats_.bytes_read = indexed_keys_.bytes() + indexed_values_.bytes();
  } else {
    attend_indexed(queries, scratch, all);
  }
  stats_.attend_us = microseconds_since(attending) - stats_.search_us;
}

/// `into` is the attention over the exact tokens, and becomes that over all.
void HeadCache::attend_indexed(MatrixView<float> queries, DecodeScratch& scratch, Partial& into) {
  const auto begin = Clock::now();
  retrieve_for(queries, scratch);
  stats_.search_us = microseconds_since(begin);
  // The next search starts from all that was found; attended is what the stop rule keeps.
  scratch.kept.resize(group_);
  for (std::size_t g = 0; g < group_; ++g)
    scratch.kept[g] =
        kept_by(plan_.stop, hits_.row_scores(g), params_.scale, into.best[g], into.lse[g]);
  stats_.retrieved = std::accumulate(scratch.kept.begin(), scratch.kept.end(), std::size_t{0});
  std::swap(hits_.count, scratch.kept);
  attend_hits(hits_, indexed_values(), params_.scale, scratch.attend, scratch.part);
  if (!tail_.empty()) {
    attend_tail(queries, hits_, scratch.part, tail_, scratch.attend, scratch.summary);
    merge(scratch.summary, into);
  }
  std::swap(hits_.count, scratch.kept);
  merge(scratch.part, into);
  stats_.bytes_read += stats_.retrieved * indexed_values().row_bytes() + tail_.bytes();
}

/// Leaves in hits_ what the plan's search finds.
void HeadCache::retrieve_for(MatrixView<float> queries, DecodeScratch& scratch) {
  if (plan_.retriever == Retriever::none) {
    hits_.group = group_;
    hits_.k = 0;
    hits_.count.assign(group_, 0);
    return;
  }
  search_index(index_, plan_, queries, params_.scan_novel, hits_.group == 0 ? nullptr : &hits_,
               scratch.search, hits_);
  stats_.scanned = hits_.stats.looked_at();
  stats_.bytes_read = hits_.stats.bytes_read;
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

/// Every so many positions, so that a horizon leaves kRemembered of them.
void HeadCache::remember(MatrixView<float> queries) {
  const std::size_t every = std::max<std::size_t>(1, params_.horizon / kRemembered);
  const std::size_t position = tokens() - 1;
  if (position % every != 0) return;
  for (std::size_t g = 0; g < group_; ++g)
    remembered_.insert(remembered_.end(), queries.row(g), queries.row(g) + dim_);
  remembered_at_.push_back(position);
}

}  // namespace keyseek
