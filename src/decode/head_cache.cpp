#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstring>
#include <numeric>

#include "base/fail.hpp"
#include "decode/head_index.hpp"
#include "decode/plan.hpp"
#include "decode/stop.hpp"
#include "keyseek/decode.hpp"
#include "keyseek/tail.hpp"
#include "score/kernels.hpp"

namespace keyseek {
namespace {

// Decoded queries kept for the next refresh, at most; the rest would add memory, not recall.
constexpr std::size_t kRemembered = 256;
// Positions that choose the pinned tokens: SnapKV's observation window.
constexpr std::size_t kPinningQueries = 64;

/// Rows of `first`, then `count` rows of `more`.
AnyMatrix joined(const AnyMatrix& first, AnyMatrixView more) {
  const std::size_t row = more.cols * size_of(more.dtype);
  AlignedVector<std::byte> bytes((first.rows() + more.rows) * row);
  if (first.rows() > 0) std::memcpy(bytes.data(), first.view().data, first.bytes());
  if (more.rows > 0) std::memcpy(bytes.data() + first.rows() * row, more.data, more.rows * row);
  return {SharedArray<std::byte>(std::move(bytes)), more.dtype, first.rows() + more.rows,
          more.cols};
}

/// Rows of f32, f16 or bf16 in 8 bits, each over its largest element; appends the scales.
AnyMatrix in_8_bits(AnyMatrixView rows, std::vector<float>& scales) {
  AlignedVector<std::byte> codes(rows.rows * rows.cols);
  std::vector<float> row(rows.cols);
  for (std::size_t i = 0; i < rows.rows; ++i) {
    rows.copy_row(i, row.data());
    float largest = 0;
    for (const float x : row) largest = std::max(largest, std::abs(x));
    const float scale = largest > 0 ? largest / 127.0F : 1.0F;
    for (std::size_t j = 0; j < rows.cols; ++j) {
      const auto code = static_cast<std::int8_t>(std::lround(row[j] / scale));
      codes[i * rows.cols + j] = static_cast<std::byte>(code);
    }
    scales.push_back(scale);
  }
  return {SharedArray<std::byte>(std::move(codes)), Dtype::i8, rows.rows, rows.cols};
}

/// Rows `ids` of m, in that order.
AnyMatrix gathered(AnyMatrixView m, const std::vector<std::size_t>& ids) {
  const std::size_t row = m.cols * size_of(m.dtype);
  AlignedVector<std::byte> bytes(ids.size() * row);
  for (std::size_t i = 0; i < ids.size(); ++i)
    std::memcpy(bytes.data() + i * row, m.row(ids[i]), row);
  return {SharedArray<std::byte>(std::move(bytes)), m.dtype, ids.size(), m.cols};
}

using Clock = std::chrono::steady_clock;

double microseconds_since(Clock::time_point begin) {
  return std::chrono::duration<double, std::micro>(Clock::now() - begin).count();
}

}  // namespace

std::string_view to_string(Retriever retriever) noexcept {
  switch (retriever) {
    case Retriever::none:
      return "none";
    case Retriever::flat:
      return "flat";
    case Retriever::projection:
      return "projection";
    case Retriever::custom:
      return "custom";
    case Retriever::everything:
      break;
  }
  return "everything";
}

std::string_view to_string(Rule rule) noexcept {
  switch (rule) {
    case Rule::dipr:
      return "dipr";
    case Rule::mass:
      return "mass";
    case Rule::top_k:
      break;
  }
  return "top-k";
}

void DecodeParams::validate() const {
  require(max_error > 0.0 && max_error < 1.0, "max_error is {}, must be in (0, 1)", max_error);
  require(safety > 0.0 && safety <= 1.0, "safety is {}, must be in (0, 1]", safety);
  require(std::isfinite(scale) && scale > 0.0F, "scale is {}, must be above 0", scale);
  require(window >= 1, "window is 0: a token attends at least to itself");
  require(horizon >= 1, "horizon is 0");
  require(least_k <= max_k, "least_k is {}, max_k only {}", least_k, max_k);
  require(share > 0.0 && share <= 1.0, "share is {}, must be in (0, 1]", share);
  require(observed >= 1 && held_out >= 1, "observed is {} and held_out {}, must be at least 1",
          observed, held_out);
  require(max_memory > 1.0, "max_memory is {}, must be above 1: keys and values alone are that",
          max_memory);
  require(tail_vectors <= 65536, "tail_vectors is {}, at most 65536", tail_vectors);
  if (!given) return;
  const StopRule& stop = given->stop;
  require(stop.rule != Rule::dipr || (std::isfinite(stop.limit) && stop.limit >= 0),
          "given.stop.limit is {}, must be at least 0 for DIPR", stop.limit);
  require(stop.rule != Rule::mass || (stop.limit > 0 && stop.limit <= 1),
          "given.stop.limit is {}, must be in (0, 1] for a share of mass", stop.limit);
  require(given->target_recall > 0 && given->target_recall < 1,
          "given.target_recall is {}, must be in (0, 1)", given->target_recall);
  require(given->retriever != Retriever::custom || index,
          "given.retriever is custom, but there is no index to make one");
}

HeadCache HeadCache::prefill(AnyMatrixView keys, AnyMatrixView values, MatrixView<float> queries,
                             std::size_t group, const DecodeParams& params, const Execution& run) {
  params.validate();
  run.validate();
  const std::size_t n = keys.rows;
  require(n > 0, "keys is empty");
  require(keys.cols > 0 && values.cols > 0, "keys have dimension {}, values {}", keys.cols,
          values.cols);
  require(values.rows == n, "values has {} rows, keys has {}", values.rows, n);
  require(keys.dtype != Dtype::i8 && values.dtype != Dtype::i8,
          "keys are {} and values {}: int8 has no scale here", to_string(keys.dtype),
          to_string(values.dtype));
  require(group >= 1 && group <= kMaxGroup, "group is {}, must be in [1, {}]", group, kMaxGroup);
  require(queries.rows % group == 0, "queries has {} rows, no multiple of group = {}", queries.rows,
          group);
  require(queries.rows / group <= n, "queries are of {} positions, there are {} tokens",
          queries.rows / group, n);
  require(queries.empty() || queries.cols == keys.cols, "queries have dimension {}, keys have {}",
          queries.cols, keys.cols);
  require_finite(keys, "keys");
  require_finite(values, "values");
  if (!queries.empty()) require_finite(AnyMatrixView::of(queries), "queries");
  if (params.shift) params.rope.validate(keys.cols);

  HeadCache cache;
  cache.params_ = params;
  cache.group_ = group;
  cache.dim_ = keys.cols;
  cache.value_dim_ = values.cols;
  const std::size_t sink = std::min(params.sink, n);
  cache.pin(keys, values, queries);
  std::vector<std::size_t> first(sink), rest;
  std::iota(first.begin(), first.end(), std::size_t{0});
  first.insert(first.end(), cache.pinned_.begin(), cache.pinned_.end());
  for (std::size_t i = sink, next = 0; i < n; ++i) {
    if (next < cache.pinned_.size() && cache.pinned_[next] == i) {
      ++next;
    } else {
      rest.push_back(i);
    }
  }
  cache.sink_keys_ = gathered(keys, first);
  cache.sink_values_ = gathered(values, first);
  cache.recent_keys_ = StoredRows(gathered(keys, rest).view());
  cache.recent_values_ = StoredRows(gathered(values, rest).view());
  cache.indexed_keys_ = AnyMatrix::copy_of(keys.slice(0, 0));
  cache.indexed_values_ = params.int8_values ? in_8_bits(values.slice(0, 0), cache.value_scales_)
                                             : AnyMatrix::copy_of(values.slice(0, 0));
  const std::size_t positions = queries.rows / group;
  std::vector<std::size_t> at(positions);
  std::iota(at.begin(), at.end(), n - positions);
  cache.refresh_with(queries, at, run);
  return cache;
}

/// Chooses the tokens to pin: those between sink and window that the window's queries, at most
/// kPinningQueries of them, give the most attention.
void HeadCache::pin(AnyMatrixView keys, AnyMatrixView values, MatrixView<float> queries) {
  const std::size_t n = keys.rows, between = n - std::min(n, params_.sink);
  if (params_.pinned == 0 || queries.empty() || between <= params_.window) return;
  const std::size_t count = between - params_.window;
  const std::size_t asked =
      std::min({kPinningQueries, params_.window, queries.rows / group_}) * group_;
  const MatrixView<float> newest = queries.slice(queries.rows - asked, asked);
  Partial none;
  none.reset(asked, values.cols);
  const Observations seen =
      observe(newest, group_, none, keys.slice(params_.sink, count),
              {values.slice(params_.sink, count)}, params_.scale, {.top = 0}, {.threads = 1});
  std::vector<double> mass(count);
  for (std::size_t i = 0; i < count; ++i)
    mass[i] = std::accumulate(seen.mass.row(i), seen.mass.row(i) + group_, 0.0);
  std::vector<std::size_t> order(count);
  std::iota(order.begin(), order.end(), std::size_t{0});
  const auto end = order.begin() + static_cast<std::ptrdiff_t>(std::min(params_.pinned, count));
  std::partial_sort(order.begin(), end, order.end(), [&](std::size_t a, std::size_t b) {
    return mass[a] != mass[b] ? mass[a] > mass[b] : a < b;
  });
  pinned_.assign(order.begin(), end);
  std::sort(pinned_.begin(), pinned_.end());
  for (std::size_t& position : pinned_) position += params_.sink;
}

void HeadCache::refresh(const Execution& run) {
  require(group_ > 0, "the HeadCache is empty: prefill one first");
  if (!can_refresh()) return;
  const MatrixView<float> queries = {remembered_.data(), remembered_at_.size() * group_, dim_};
  refresh_with(queries, remembered_at_, run);
}

/// A plan that retrieves is not given up because there are too few queries for the next one.
bool HeadCache::can_refresh() const noexcept {
  return plan_.retriever == Retriever::everything || remembered_at_.size() >= kLeastPositions;
}

void HeadCache::refresh_with(MatrixView<float> queries, std::span<const std::size_t> positions,
                             const Execution& run) {
  const std::size_t recent = recent_keys_.rows();
  const std::size_t moved = recent > params_.window ? recent - params_.window : 0;
  const std::size_t left = recent - moved;
  const AnyMatrixView moved_keys = recent_keys_.view().slice(0, moved);
  const AnyMatrixView moved_values = recent_values_.view().slice(0, moved);
  // Everything new is made aside: a failure leaves the cache as it was.
  AnyMatrix indexed_keys = joined(indexed_keys_, moved_keys);
  std::vector<float> scales = value_scales_;
  AnyMatrix indexed_values = joined(
      indexed_values_, params_.int8_values ? in_8_bits(moved_values, scales).view() : moved_values);
  PlanInput input;
  input.group = group_;
  input.queries = queries;
  input.positions = positions;
  input.indexed_keys = indexed_keys;
  input.tokens.sink = {sink_keys_.view(), {sink_values_.view()}};
  input.tokens.indexed = {indexed_keys.view(),
                          {indexed_values.view(), scales.empty() ? nullptr : scales.data()}};
  input.tokens.recent = {recent_keys_.view().slice(moved, left),
                         {recent_values_.view().slice(moved, left)}};
  input.tokens.pinned = pinned_;
  HeadIndex before;
  if (index_.projection && moved > 0) {
    before.projection = *index_.projection;
    Matrix<float> training(queries.rows, dim_);
    for (std::size_t i = 0; i < queries.rows; ++i)
      std::copy_n(queries.row(i), dim_, training.row(i));
    if (!positions.empty() && params_.shift) {
      training = sample_training_queries(queries, positions, group_, params_.rope,
                                         {.now = tokens(),
                                          .horizon = params_.horizon,
                                          .share = 1.0,
                                          .seed = params_.seed,
                                          .tuning_runs = 0})
                     .train;
    }
    before.projection->append(moved_keys, training, run);
  }
  Planned planned = make_plan(input, params_, std::move(before), run);

  plan_ = planned.plan;
  index_ = std::move(planned.index);
  tail_ = std::move(planned.tail);
  // The index has a copy of the keys: kept once.
  if (index_.flat) indexed_keys = index_.flat->keys();
  if (index_.projection) indexed_keys = index_.projection->keys();
  indexed_keys_ = std::move(indexed_keys);
  indexed_values_ = std::move(indexed_values);
  value_scales_ = std::move(scales);
  recent_keys_.drop_front(moved);
  recent_values_.drop_front(moved);
  remembered_.clear();
  remembered_at_.clear();
  hits_ = {};
}

std::size_t HeadCache::tokens() const noexcept {
  return sink_keys_.rows() + indexed() + recent_keys_.rows();
}

ValuesView HeadCache::indexed_values() const {
  return {indexed_values_.view(), value_scales_.empty() ? nullptr : value_scales_.data()};
}

void HeadCache::step(MatrixView<float> queries, const float* key, const float* value,
                     DecodeScratch& scratch, float* out) {
  const auto begin = Clock::now();
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

  stats_ = {};
  Partial& all = scratch.all;
  all.reset(group_, value_dim_);
  Tokens tokens;
  tokens.sink = {sink_keys_.view(), {sink_values_.view()}};
  tokens.indexed = {indexed_keys_.view(), indexed_values()};
  tokens.recent = {recent_keys_.view(), {recent_values_.view()}};
  const bool everything = plan_.retriever == Retriever::everything;
  const std::size_t sink = sink_keys_.rows(), first_recent = sink + indexed();
  const auto attending = Clock::now();
  tokens.attend(queries, 0, everything ? first_recent : sink, params_.scale, scratch.attend,
                scratch.part, all);
  tokens.attend(queries, first_recent, tokens.size(), params_.scale, scratch.attend, scratch.part,
                all);
  stats_.exact = sink + recent_keys_.rows() + (everything ? indexed() : 0);
  if (everything) {
    stats_.bytes_read = indexed_keys_.bytes() + indexed_values_.bytes();
  } else {
    attend_indexed(queries, scratch, all);
  }
  stats_.attend_us = microseconds_since(attending) - stats_.search_us;
  std::copy_n(all.out.data(), group_ * value_dim_, out);
  stats_.total_us = microseconds_since(begin);
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
  const std::size_t row =
      value_dim_ * size_of(indexed_values_.dtype()) + (value_scales_.empty() ? 0 : sizeof(float));
  stats_.bytes_read += stats_.retrieved * row + tail_.bytes();
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
  stats_.scanned = hits_.stats.scanned;
  stats_.bytes_read = hits_.stats.bytes_read;
}

void HeadCache::retrieve(MatrixView<float> queries, std::size_t k, DecodeScratch& scratch,
                         Hits& hits) const {
  require(group_ > 0, "the HeadCache is empty: prefill one first");
  require(!index_.empty(), "this head has no index: its plan is '{}'", to_string(plan_.retriever));
  HeadPlan plan = plan_;
  plan.stop.k = std::min(k, indexed());
  search_index(index_, plan, queries, params_.scan_novel, nullptr, scratch.search, hits);
  const std::size_t sink = sink_keys_.rows() - pinned_.size();
  for (std::size_t g = 0; g < hits.group; ++g)
    for (std::size_t r = 0; r < hits.count[g]; ++r) {
      Id& id = hits.ids[g * hits.k + r];
      id = static_cast<Id>(position_of(id, sink, pinned_));
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

std::size_t HeadCache::bytes() const {
  std::size_t index = indexed_keys_.bytes();
  if (index_.flat) index = index_.flat->bytes();
  if (index_.projection) index = index_.projection->bytes();
  return index + indexed_values_.bytes() + value_scales_.size() * sizeof(float) +
         sink_keys_.bytes() + sink_values_.bytes() + pinned_.size() * sizeof(std::size_t) +
         recent_keys_.bytes() + recent_values_.bytes() + tail_.bytes() +
         remembered_.size() * sizeof(float) + remembered_at_.size() * sizeof(std::size_t);
}

}  // namespace keyseek
