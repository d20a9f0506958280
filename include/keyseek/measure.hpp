/// Timing an index, or a head's cache, on a sequence of decode steps.
///
/// Works in the caller's thread, on memory of its own. Thread-safe, but measurements that run
/// at once disturb each other.
///
///     auto m = keyseek::measure_steps(index, queries, {.group = 4, .search = {.k = 100}});
///     double found = keyseek::recall(truth.ids, m.ids);
///     double microseconds = m.us_p50;  // per step, median
#pragma once

#include <cstddef>

#include "keyseek/decode.hpp"
#include "keyseek/execution.hpp"
#include "keyseek/index.hpp"
#include "keyseek/matrix.hpp"
#include "keyseek/search.hpp"

namespace keyseek {

struct MeasureParams {
  std::size_t group = 1;        ///< G: consecutive queries that form a step
  bool warm_start = true;       ///< give each step the hits of the one before
  bool cold_cache = false;      ///< evict the caches between steps, as other layers' work does
  std::size_t repeats = 1;      ///< passes over the queries; a step's time is its fastest pass
  std::size_t timed_steps = 0;  ///< so many, evenly spread, are timed (and evicted); 0: all
  SearchParams search = {};     ///< `previous` is set by the measurement
  Progress progress = {};       ///< called between steps, not timed; false: Error(cancelled)

  void validate(std::size_t queries) const;  ///< throws Error(invalid_argument)
};

struct Measurement {
  Matrix<Id> ids;               ///< [queries, k], padded with kNoId
  double scanned_fraction = 0;  ///< keys looked at per step / n, mean; a sketch looks at all
  double bytes_read = 0;        ///< per step, mean
  double expanded = 0;          ///< per step, mean
  double us_p50 = 0;            ///< microseconds per step
  double us_p95 = 0;
  double us_mean = 0;
};

/// `queries` is [steps * group, d]; the index is only read.
[[nodiscard]] Measurement measure_steps(const Index& index, MatrixView<float> queries,
                                        const MeasureParams& params);

struct DecodeMeasureParams {
  bool cold_cache = false;  ///< evict the caches between steps, as other layers' work does
  Progress progress = {};   ///< called between steps, not timed; false: Error(cancelled)
};

/// Of decoded steps. Times are medians in microseconds, the rest are means.
struct DecodeMeasurement {
  std::size_t steps = 0;
  double error = 0;        ///< |out - full| / |full|, over all queries
  double worst_error = 0;  ///< the largest of them
  double scanned = 0;      ///< keys that the search looked at, per step
  double retrieved = 0;    ///< keys attended beyond the exact tokens, per query
  double bytes_read = 0;   ///< of search, attention and tail, per step
  double search_us = 0, attend_us = 0, other_us = 0, total_us = 0;
};

/// Steps `cache` through the tokens that it does not have yet, then compares with attention over
/// all of them. `keys` [n, d] and `values` [n, dv] are of the whole sequence, whose first
/// cache.tokens() rows are in the cache; `queries` [(n - cache.tokens()) * group, d] f32 of the
/// others. Throws Error on shapes that do not match, or when no token is left.
[[nodiscard]] DecodeMeasurement measure_decode(HeadCache& cache, MatrixView<float> queries,
                                               AnyMatrixView keys, AnyMatrixView values,
                                               const DecodeMeasureParams& params = {});

}  // namespace keyseek
