#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>
#include <type_traits>

#include "base/fail.hpp"
#include "decode/occupied.hpp"
#include "decode/params.hpp"
#include "decode/plan.hpp"
#include "keyseek/decode.hpp"
#include "keyseek/tail.hpp"
#include "score/kernels.hpp"
#include "score/range.hpp"

namespace keyseek {
namespace {

// Positions that choose the pinned tokens: SnapKV's observation window.
constexpr std::size_t kPinningQueries = 64;

/// Rows of `first`, then `count` rows of `more`.
AnyMatrix joined(const AnyMatrix& first, AnyMatrixView more) {
  const std::size_t row = more.row_bytes();
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
    const float scale = std::isnormal(largest / 127.0F) ? largest / 127.0F : 1.0F;
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
  const std::size_t row = m.row_bytes();
  AlignedVector<std::byte> bytes(ids.size() * row);
  for (std::size_t i = 0; i < ids.size(); ++i)
    std::memcpy(bytes.data() + i * row, m.row(ids[i]), row);
  return {SharedArray<std::byte>(std::move(bytes)), m.dtype, ids.size(), m.cols};
}

}  // namespace

std::string_view to_string(Retriever retriever) noexcept {
  switch (retriever) {
    case Retriever::none:
      return "none";
    case Retriever::flat:
      return "flat";
    case Retriever::sketch:
      return "sketch";
    case Retriever::projection:
      return "projection";
    case Retriever::complete:
      return "complete";
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
  logits().validate();
  for (std::size_t g = 0; g < null_logits.size(); ++g)
    require(std::isfinite(null_logits[g]), "null_logits holds {} for query head {}", null_logits[g],
            g);
  require(window >= 1, "window is 0: a token attends at least to itself");
  require(horizon >= 1, "horizon is 0");
  require(least_k <= max_k, "least_k is {}, max_k only {}", least_k, max_k);
  require(share > 0.0 && share <= 1.0, "share is {}, must be in (0, 1]", share);
  require(observed >= 1 && held_out >= 1, "observed is {} and held_out {}, must be at least 1",
          observed, held_out);
  require(max_memory > 1.0, "max_memory is {}, must be above 1: keys and values alone are that",
          max_memory);
  require(tail_vectors <= 65536, "tail_vectors is {}, at most 65536", tail_vectors);
  require_saveable(*this);
  if (!given) return;
  require_stop_rule(given->stop, "given.stop");
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
  require(params.null_logits.empty() || params.null_logits.size() == group,
          "null_logits has {} numbers, must have one per query head: group is {}",
          params.null_logits.size(), group);
  require(queries.rows % group == 0, "queries has {} rows, no multiple of group = {}", queries.rows,
          group);
  require(queries.rows / group <= n, "queries are of {} positions, there are {} tokens",
          queries.rows / group, n);
  require(queries.empty() || queries.cols == keys.cols, "queries have dimension {}, keys have {}",
          queries.cols, keys.cols);
  require_dimension(keys.cols);
  require_range(keys, "keys");
  require_range(values, "values", kLargestValue);
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
  none.reset(asked, values.cols, params_.null_logits);
  const Observations seen =
      observe(newest, group_, none, keys.slice(params_.sink, count),
              {values.slice(params_.sink, count)}, params_.logits(), {.top = 0}, {.threads = 1});
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
  const Occupied self(occupancy_);
  require(group_ > 0, "the HeadCache is empty: prefill one first");
  run.validate();
  refresh_remembered(run);
}

void HeadCache::refresh_remembered(const Execution& run) {
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
  if (plan_.retriever == Retriever::projection && moved > 0) {
    before.index = index_.index;
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
    before.index.append(moved_keys, training, run);
  }
  Planned planned = make_plan(input, params_, std::move(before), run);
  StoredRows recent_keys = recent_keys_.without_front(moved);
  StoredRows recent_values = recent_values_.without_front(moved);
  // An index that grew has keys of its own: kept once.
  if (!planned.index.index.empty()) indexed_keys = planned.index.index.keys();

  static_assert(
      std::is_nothrow_move_assignable_v<HeadIndex> && std::is_nothrow_move_assignable_v<Tail> &&
      std::is_nothrow_move_assignable_v<AnyMatrix> &&
      std::is_nothrow_move_assignable_v<StoredRows> && std::is_nothrow_move_assignable_v<Attended>);
  plan_ = planned.plan;
  index_ = std::move(planned.index);
  tail_ = std::move(planned.tail);
  indexed_keys_ = std::move(indexed_keys);
  indexed_values_ = std::move(indexed_values);
  value_scales_ = std::move(scales);
  recent_keys_ = std::move(recent_keys);
  recent_values_ = std::move(recent_values);
  remembered_.clear();
  remembered_at_.clear();
  last_.hits = {};
  before_ = {};
}

std::size_t HeadCache::tokens() const noexcept {
  return sink_keys_.rows() + indexed() + recent_keys_.rows();
}

ValuesView HeadCache::indexed_values() const {
  return {indexed_values_.view(), value_scales_.empty() ? nullptr : value_scales_.data()};
}

std::size_t HeadCache::bytes() const {
  const std::size_t index = index_.index.empty() ? indexed_keys_.bytes() : index_.index.bytes();
  return index + indexed_values_.bytes() + value_scales_.size() * sizeof(float) +
         sink_keys_.bytes() + sink_values_.bytes() + pinned_.size() * sizeof(std::size_t) +
         recent_keys_.bytes() + recent_values_.bytes() + tail_.bytes() +
         remembered_.size() * sizeof(float) + remembered_at_.size() * sizeof(std::size_t);
}

}  // namespace keyseek
