/// Times the decode steps of a head's cache and compares them with full attention.
#include <algorithm>
#include <optional>
#include <vector>

#include "base/fail.hpp"
#include "keyseek/decode_options.hpp"
#include "keyseek/measure.hpp"
#include "measure/cache_eviction.hpp"
#include "measure/percentile.hpp"
#include "measure/rehearsal.hpp"

namespace keyseek {
namespace {

double median(std::vector<double>& values) {
  std::sort(values.begin(), values.end());
  return percentile(values, 0.5);
}

std::vector<float> row_of(AnyMatrixView m, std::size_t i) {
  std::vector<float> row(m.cols);
  m.copy_row(i, row.data());
  return row;
}

/// A small head of the same kind, stepped after an eviction: code and scratch memory are other
/// layers' as well, and stay in the caches of a real model.
class RehearsalHead {
 public:
  explicit RehearsalHead(const HeadCache& like) : group_(like.group()) {
    const std::size_t n = kPrompt, d = like.dim(), dv = like.value_dim();
    const Matrix<float> keys = random_rows(n, d, 1), values = random_rows(n, dv, 2),
                        queries = random_rows(kQueries * group_, d, 3);
    DecodeParams params = like.params();
    params.sink = params.window = 16;
    params.least_indexed = 1;
    params.horizon = SIZE_MAX;
    params.shift = false;
    params.held_out = params.observed = 16;
    const HeadPlan& plan = like.plan();
    params.given = GivenPlan{.retriever = plan.retriever};
    if (plan.stop.k > 0) params.given->k = plan.stop.k;
    params.rule = plan.stop.rule;
    if (params.rule != Rule::top_k) params.given->limit = plan.stop.limit;
    cache_ = HeadCache::prefill(AnyMatrixView::of(keys.view()), AnyMatrixView::of(values.view()),
                                queries, group_, without_unread(params), {.threads = 1});
    key_.assign(d, 0.0F);
    value_.assign(dv, 0.0F);
    out_ = Matrix<float>(group_, dv);
  }

  void step(MatrixView<float> queries, DecodeScratch& scratch) {
    cache_.step(queries, key_.data(), value_.data(), scratch, out_.data());
  }

 private:
  static constexpr std::size_t kPrompt = 1024, kQueries = 512;

  std::size_t group_;
  HeadCache cache_;
  std::vector<float> key_, value_;
  Matrix<float> out_;
};

/// Takes part only where caches are cold.
class ColdCaches {
 public:
  explicit ColdCaches(const HeadCache& like) {
    if (like.plan().retriever != Retriever::custom) rehearsal_.emplace(like);
  }
  void make(MatrixView<float> queries, DecodeScratch& scratch) {
    eviction_.evict();
    if (rehearsal_) rehearsal_->step(queries, scratch);
  }

 private:
  CacheEviction eviction_;
  std::optional<RehearsalHead> rehearsal_;
};

}  // namespace

DecodeMeasurement measure_decode(HeadCache& cache, MatrixView<float> queries, AnyMatrixView keys,
                                 AnyMatrixView values, const DecodeMeasureParams& params) {
  const std::size_t first = cache.tokens(), group = cache.group(), dv = cache.value_dim();
  require(group > 0, "the HeadCache is empty: prefill one first");
  require(keys.rows > first, "keys has {} rows, the cache has {} tokens already", keys.rows, first);
  require(values.rows == keys.rows, "values has {} rows, keys has {}", values.rows, keys.rows);
  require(keys.cols == cache.dim() && values.cols == dv,
          "keys and values have dimension {} and {}, the cache {} and {}", keys.cols, values.cols,
          cache.dim(), dv);
  DecodeMeasurement seen;
  seen.steps = keys.rows - first;
  require(queries.rows == seen.steps * group && queries.cols == cache.dim(),
          "queries are {} x {}, must be {} x {}", queries.rows, queries.cols, seen.steps * group,
          cache.dim());

  std::optional<ColdCaches> cold;
  if (params.cold_cache) cold.emplace(cache);
  DecodeScratch scratch;
  Matrix<float> out(seen.steps * group, dv);
  std::vector<double> search, attend_times, other, total;
  for (std::size_t step = 0; step < seen.steps; ++step) {
    const MatrixView<float> asked = queries.slice(step * group, group);
    const auto key = row_of(keys, first + step), value = row_of(values, first + step);
    if (cold) cold->make(asked, scratch);
    cache.step(asked, key.data(), value.data(), scratch, out.row(step * group));
    const StepStats& stats = cache.stats();
    seen.scanned += static_cast<double>(stats.scanned);
    seen.retrieved += static_cast<double>(stats.retrieved) / static_cast<double>(group);
    seen.bytes_read += static_cast<double>(stats.bytes_read);
    search.push_back(stats.search_us);
    attend_times.push_back(stats.attend_us);
    other.push_back(stats.total_us - stats.search_us - stats.attend_us);
    total.push_back(stats.total_us);
    if (params.progress && !params.progress("decoding", step + 1, seen.steps))
      fail(ErrorCode::cancelled, "cancelled during decoding at {} of {}", step + 1, seen.steps);
  }
  seen.search_us = median(search);
  seen.attend_us = median(attend_times);
  seen.other_us = median(other);
  seen.total_us = median(total);

  // Afterwards: it reads all keys, which would empty the caches of what the steps use.
  AttendScratch attending;
  Partial full;
  for (std::size_t step = 0; step < seen.steps; ++step) {
    attend(queries.slice(step * group, group), keys.slice(0, first + step + 1),
           {values.slice(0, first + step + 1)}, cache.params().logits(), attending, full);
    for (std::size_t g = 0; g < group; ++g) {
      const double error = relative_error(out.row(step * group + g), full.out.row(g), dv);
      seen.error += error;
      seen.worst_error = std::max(seen.worst_error, error);
    }
  }
  const auto steps = static_cast<double>(seen.steps);
  seen.error /= steps * static_cast<double>(group);
  for (double* mean : {&seen.scanned, &seen.retrieved, &seen.bytes_read}) *mean /= steps;
  return seen;
}

}  // namespace keyseek
