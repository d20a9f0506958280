/// Times the steps of a search, hot or with cold caches.
#include "keyseek/measure.hpp"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <limits>
#include <numeric>
#include <optional>
#include <vector>

#include "base/fail.hpp"
#include "measure/cache_eviction.hpp"
#include "measure/percentile.hpp"
#include "measure/rehearsal.hpp"

namespace keyseek {
namespace {

using Clock = std::chrono::steady_clock;

/// Whether step `i` of `steps` is one of `wanted`, evenly spread.
bool is_timed(std::size_t i, std::size_t steps, std::size_t wanted) {
  return wanted == 0 || wanted >= steps || (i + 1) * wanted / steps > i * wanted / steps;
}

class StepMeasurement {
 public:
  StepMeasurement(const Index& index, MatrixView<float> queries, const MeasureParams& params)
      : index_(index),
        queries_(queries),
        params_(params),
        steps_(queries.rows / params.group),
        fastest_(steps_, std::numeric_limits<double>::infinity()) {
    if (params.cold_cache) {
      eviction_.emplace();
      rehearsal_.emplace(index.kind(), queries.cols);
    }
    result_.ids = Matrix<Id>(queries.rows, params.search.k);
  }

  Measurement run() {
    for (std::size_t pass = 0; pass < params_.repeats; ++pass) {
      for (std::size_t step = 0; step < steps_; ++step) {
        search_step(step);
        if (pass == 0) record(step);
        report(pass * steps_ + step + 1);
      }
    }
    summarize();
    return std::move(result_);
  }

 private:
  void search_step(std::size_t step) {
    SearchParams search = params_.search;
    search.previous = params_.warm_start && step > 0 ? &hits_ : nullptr;
    const auto queries = queries_.slice(step * params_.group, params_.group);
    const bool timed = is_timed(step, steps_, params_.timed_steps);
    if (timed && eviction_) {
      eviction_->evict();
      rehearsal_->run(queries, params_.search, scratch_);
    }
    const auto begin = Clock::now();
    index_.search(queries, search, scratch_, hits_);
    const std::chrono::duration<double, std::micro> spent = Clock::now() - begin;
    if (timed) fastest_[step] = std::min(fastest_[step], spent.count());
  }

  void record(std::size_t step) {
    std::copy(hits_.ids.begin(), hits_.ids.end(), result_.ids.row(step * params_.group));
    result_.scanned_fraction += static_cast<double>(hits_.stats.looked_at());
    result_.bytes_read += static_cast<double>(hits_.stats.bytes_read);
    result_.expanded += static_cast<double>(hits_.stats.expanded);
  }

  void report(std::size_t done) const {
    const std::size_t total = params_.repeats * steps_;
    const std::size_t every = std::max<std::size_t>(1, total / 200);
    if (!params_.progress || (done % every != 0 && done != total)) return;
    if (!params_.progress("searching", done, total)) {
      fail(ErrorCode::cancelled, "cancelled during searching at step {} of {}", done, total);
    }
  }

  void summarize() {
    const auto steps = static_cast<double>(steps_);
    result_.scanned_fraction /= steps * static_cast<double>(index_.size());
    result_.bytes_read /= steps;
    result_.expanded /= steps;
    std::erase(fastest_, std::numeric_limits<double>::infinity());  // steps that were not timed
    std::sort(fastest_.begin(), fastest_.end());
    result_.us_p50 = percentile(fastest_, 0.50);
    result_.us_p95 = percentile(fastest_, 0.95);
    result_.us_mean = std::accumulate(fastest_.begin(), fastest_.end(), 0.0) /
                      static_cast<double>(fastest_.size());
  }

  const Index& index_;
  MatrixView<float> queries_;
  const MeasureParams& params_;
  std::size_t steps_;
  std::vector<double> fastest_;  ///< [steps] microseconds; infinity: not timed
  std::optional<CacheEviction> eviction_;
  std::optional<Rehearsal> rehearsal_;
  SearchScratch scratch_;
  Hits hits_;
  Measurement result_;
};

}  // namespace

void MeasureParams::validate(std::size_t queries) const {
  require(group >= 1 && group <= 64, "group is {}, must be in [1, 64]", group);
  require(queries > 0, "queries is empty");
  require(queries % group == 0, "queries has {} rows, no multiple of group = {}", queries, group);
  require(repeats >= 1, "repeats is 0");
  search.validate();
}

Measurement measure_steps(const Index& index, MatrixView<float> queries,
                          const MeasureParams& params) {
  params.validate(queries.rows);
  require(params.search.k <= index.size(), "k is {}, but there are only {} keys", params.search.k,
          index.size());
  return StepMeasurement(index, queries, params).run();
}

}  // namespace keyseek
