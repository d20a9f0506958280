#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>

#include "base/fail.hpp"
#include "base/parallel.hpp"
#include "decode/plan.hpp"
#include "keyseek/decode.hpp"
#include "score/kernels.hpp"

namespace keyseek {
namespace {

// Decoded queries kept for the next refresh, at most; the rest would add memory, not recall.
constexpr std::size_t kRemembered = 256;

/// A row of f32 as another element type, behind `rows`.
void append_row(const float* row, std::size_t cols, Dtype dtype, std::vector<std::byte>& rows) {
  const std::size_t at = rows.size();
  rows.resize(at + cols * size_of(dtype));
  std::byte* to = rows.data() + at;
  for (std::size_t j = 0; j < cols; ++j) {
    switch (dtype) {
      case Dtype::f32:
        std::memcpy(to + 4 * j, row + j, 4);
        break;
      case Dtype::f16: {
        const Half half = to_half(row[j]);
        std::memcpy(to + 2 * j, &half, 2);
        break;
      }
      case Dtype::bf16: {
        const BFloat16 brain = to_bfloat16(row[j]);
        std::memcpy(to + 2 * j, &brain, 2);
        break;
      }
      case Dtype::i8:
        break;  // refused at prefill
    }
  }
}

/// Finite, also as it will be stored.
void require_row(const float* row, std::size_t cols, Dtype dtype, const char* name) {
  for (std::size_t j = 0; j < cols; ++j) {
    if (!std::isfinite(row[j]))
      fail(ErrorCode::not_finite, "{} holds {} in element {}", name, row[j], j);
    const float stored = dtype == Dtype::f16    ? to_float(to_half(row[j]))
                         : dtype == Dtype::bf16 ? to_float(to_bfloat16(row[j]))
                                                : row[j];
    if (!std::isfinite(stored))
      fail(ErrorCode::not_finite, "{} holds {} in element {}, too large for {}", name, row[j], j,
           to_string(dtype));
  }
}

/// Rows of `first`, then `count` rows of `more`.
AnyMatrix joined(const AnyMatrix& first, AnyMatrixView more) {
  const std::size_t row = more.cols * size_of(more.dtype);
  AlignedVector<std::byte> bytes((first.rows() + more.rows) * row);
  if (first.rows() > 0) std::memcpy(bytes.data(), first.view().data, first.bytes());
  if (more.rows > 0) std::memcpy(bytes.data() + first.rows() * row, more.data, more.rows * row);
  return {SharedArray<std::byte>(std::move(bytes)), more.dtype, first.rows() + more.rows,
          more.cols};
}

AnyMatrixView view_of(const std::vector<std::byte>& rows, Dtype dtype, std::size_t count,
                      std::size_t cols) {
  return {rows.data(), dtype, count, cols, cols};
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
    case Retriever::everything:
      break;
  }
  return "everything";
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
  require(tail_vectors <= 65536, "tail_vectors is {}, at most 65536", tail_vectors);
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
  cache.key_dtype_ = keys.dtype;
  cache.value_dtype_ = values.dtype;
  const std::size_t sink = std::min(params.sink, n);
  cache.sink_keys_ = AnyMatrix::copy_of(keys.slice(0, sink));
  cache.sink_values_ = AnyMatrix::copy_of(values.slice(0, sink));
  const AnyMatrix rest_keys = AnyMatrix::copy_of(keys.slice(sink, n - sink)),
                  rest_values = AnyMatrix::copy_of(values.slice(sink, n - sink));
  const auto bytes = [](const AnyMatrix& m) { return m.shared_bytes().span(); };
  cache.recent_keys_.assign(bytes(rest_keys).begin(), bytes(rest_keys).end());
  cache.recent_values_.assign(bytes(rest_values).begin(), bytes(rest_values).end());
  cache.recent_ = n - sink;
  cache.indexed_keys_ = AnyMatrix::copy_of(keys.slice(0, 0));
  cache.indexed_values_ = AnyMatrix::copy_of(values.slice(0, 0));
  const std::size_t positions = queries.rows / group;
  std::vector<std::size_t> at(positions);
  std::iota(at.begin(), at.end(), n - positions);
  cache.refresh_with(queries, at, run);
  return cache;
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
  const std::size_t moved = recent_ > params_.window ? recent_ - params_.window : 0;
  const auto moved_keys = view_of(recent_keys_, key_dtype_, moved, dim_);
  const auto moved_values = view_of(recent_values_, value_dtype_, moved, value_dim_);
  // Everything new is made aside: a failure leaves the cache as it was.
  AnyMatrix indexed_keys = joined(indexed_keys_, moved_keys);
  AnyMatrix indexed_values = joined(indexed_values_, moved_values);
  PlanInput input;
  input.group = group_;
  input.queries = queries;
  input.positions = positions;
  input.tokens.sink = {sink_keys_.view(), sink_values_.view()};
  input.tokens.indexed = {indexed_keys.view(), indexed_values.view()};
  const std::size_t left = recent_ - moved;
  input.tokens.recent = {
      view_of(recent_keys_, key_dtype_, recent_, dim_).slice(moved, left),
      view_of(recent_values_, value_dtype_, recent_, value_dim_).slice(moved, left)};
  Planned planned;
  if (projection_ && moved > 0) {
    planned.projection = *projection_;
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
    planned.projection->append(moved_keys, training, run);
  }
  planned = make_plan(input, params_, std::move(planned), run);

  plan_ = planned.plan;
  flat_ = std::move(planned.flat);
  projection_ = std::move(planned.projection);
  tail_ = std::move(planned.tail);
  // The index has a copy of the keys: kept once.
  if (flat_) indexed_keys = flat_->keys();
  if (projection_) indexed_keys = projection_->keys();
  indexed_keys_ = std::move(indexed_keys);
  indexed_values_ = std::move(indexed_values);
  const auto drop = [](std::vector<std::byte>& rows, std::size_t bytes) {
    rows = std::vector<std::byte>(rows.begin() + static_cast<std::ptrdiff_t>(bytes), rows.end());
  };
  drop(recent_keys_, moved * dim_ * size_of(key_dtype_));
  drop(recent_values_, moved * value_dim_ * size_of(value_dtype_));
  recent_ = left;
  remembered_.clear();
  remembered_at_.clear();
  hits_ = {};
}

std::size_t HeadCache::tokens() const noexcept { return sink_keys_.rows() + indexed() + recent_; }

void HeadCache::step(MatrixView<float> queries, const float* key, const float* value,
                     DecodeScratch& scratch, float* out) {
  require(group_ > 0, "the HeadCache is empty: prefill one first");
  require(queries.rows == group_ && queries.cols == dim_, "queries are {} x {}, must be {} x {}",
          queries.rows, queries.cols, group_, dim_);
  require_finite(AnyMatrixView::of(queries), "queries");
  require_row(key, dim_, key_dtype_, "key");
  require_row(value, value_dim_, value_dtype_, "value");
  // Not a sum: a window of any size means that nothing is indexed.
  if (recent_ >= params_.window && recent_ - params_.window >= params_.horizon)
    refresh({.threads = 1});
  append_row(key, dim_, key_dtype_, recent_keys_);
  append_row(value, value_dim_, value_dtype_, recent_values_);
  ++recent_;
  remember(queries);

  stats_ = {};
  Partial& all = scratch.all;
  all.reset(group_, value_dim_);
  Tokens tokens;
  tokens.sink = {sink_keys_.view(), sink_values_.view()};
  tokens.indexed = {indexed_keys_.view(), indexed_values_.view()};
  tokens.recent = {view_of(recent_keys_, key_dtype_, recent_, dim_),
                   view_of(recent_values_, value_dtype_, recent_, value_dim_)};
  const bool everything = plan_.retriever == Retriever::everything;
  const std::size_t sink = sink_keys_.rows(), first_recent = sink + indexed();
  tokens.attend(queries, 0, everything ? first_recent : sink, params_.scale, scratch.attend,
                scratch.part, all);
  tokens.attend(queries, first_recent, tokens.size(), params_.scale, scratch.attend, scratch.part,
                all);
  stats_.exact = sink + recent_ + (everything ? indexed() : 0);
  if (everything) {
    stats_.bytes_read = indexed_keys_.bytes() + indexed_values_.bytes();
  } else {
    attend_indexed(queries, scratch, all);
  }
  std::copy_n(all.out.data(), group_ * value_dim_, out);
}

void HeadCache::attend_indexed(MatrixView<float> queries, DecodeScratch& scratch, Partial& into) {
  if (plan_.retriever == Retriever::none) {
    hits_.group = group_;
    hits_.k = 0;
    hits_.count.assign(group_, 0);
  } else {
    retrieve_planned(plan_, flat_, projection_, queries, hits_.group == 0 ? nullptr : &hits_,
                     scratch.search, hits_);
    stats_.scanned = hits_.stats.scanned;
    stats_.bytes_read = hits_.stats.bytes_read;
    stats_.retrieved = std::accumulate(hits_.count.begin(), hits_.count.end(), std::size_t{0});
  }
  attend_hits(hits_, {indexed_values_.view()}, params_.scale, scratch.attend, scratch.part);
  if (!tail_.empty()) {
    attend_tail(queries, hits_, scratch.part, tail_, scratch.attend, scratch.summary);
    merge(scratch.summary, into);
  }
  merge(scratch.part, into);
  stats_.bytes_read += stats_.retrieved * value_dim_ * size_of(value_dtype_) + tail_.bytes();
}

void HeadCache::retrieve(MatrixView<float> queries, std::size_t k, DecodeScratch& scratch,
                         Hits& hits) const {
  require(group_ > 0, "the HeadCache is empty: prefill one first");
  require(flat_ || projection_, "this head has no index: its plan is '{}'",
          to_string(plan_.retriever));
  HeadPlan plan = plan_;
  plan.k = std::min(k, indexed());
  retrieve_planned(plan, flat_, projection_, queries, nullptr, scratch.search, hits);
  for (std::size_t g = 0; g < hits.group; ++g)
    for (std::size_t r = 0; r < hits.count[g]; ++r)
      hits.ids[g * hits.k + r] += static_cast<Id>(sink_keys_.rows());
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
  if (flat_) index = flat_->bytes();
  if (projection_) index = projection_->bytes();
  return index + indexed_values_.bytes() + sink_keys_.bytes() + sink_values_.bytes() +
         recent_keys_.size() + recent_values_.size() + tail_.bytes() +
         remembered_.size() * sizeof(float) + remembered_at_.size() * sizeof(std::size_t);
}

void step_heads(std::span<HeadCache* const> heads, MatrixView<float> queries,
                MatrixView<float> keys, MatrixView<float> values, int threads,
                std::vector<DecodeScratch>& scratch, float* out) {
  const Execution run = {.threads = threads};
  run.validate();
  if (heads.empty()) return;
  for (const HeadCache* head : heads) {
    require(head != nullptr && head->group() > 0, "a HeadCache is empty: prefill it first");
    require(head->group() == heads[0]->group() && head->dim() == heads[0]->dim() &&
                head->value_dim() == heads[0]->value_dim(),
            "heads differ in shape");
  }
  const std::size_t group = heads[0]->group(), dv = heads[0]->value_dim();
  require(queries.rows == heads.size() * group, "queries has {} rows, must have {}", queries.rows,
          heads.size() * group);
  require(queries.cols == heads[0]->dim() && keys.cols == heads[0]->dim(),
          "queries and keys have dimension {} and {}, the heads {}", queries.cols, keys.cols,
          heads[0]->dim());
  require(keys.rows == heads.size() && values.rows == heads.size(),
          "keys has {} rows and values {}, there are {} heads", keys.rows, values.rows,
          heads.size());
  require(values.cols == dv, "values have dimension {}, the heads {}", values.cols, dv);
  const auto workers = static_cast<std::size_t>(run.thread_count());
  if (scratch.size() < workers) scratch.resize(workers);
  parallel_for(heads.size(), 1, run, "", [&](std::size_t begin, std::size_t end, int worker) {
    for (std::size_t i = begin; i < end; ++i) {
      heads[i]->step(queries.slice(i * group, group), keys.row(i), values.row(i),
                     scratch[static_cast<std::size_t>(worker)], out + i * group * dv);
    }
  });
}

}  // namespace keyseek
