/// Attends to all keys with many queries at once and notes what a plan asks about.
#include <algorithm>
#include <cmath>

#include "attention/capped.hpp"
#include "base/fail.hpp"
#include "keyseek/knn.hpp"
#include "keyseek/tail.hpp"
#include "score/rows.hpp"

namespace keyseek {
namespace {

// Queries at a time: their logits over all keys stay in the last-level cache.
constexpr std::size_t kTile = 16;

/// Attention of a tile of queries over all keys, logits in one piece.
class Observer {
 public:
  Observer(Observations& seen, AnyMatrixView keys, ValuesView values)
      : seen_(seen), keys_(keys), values_(values), weights_(keys.rows * kTile) {}

  void add(std::size_t first, std::size_t count) {
    const MatrixView<float> queries = seen_.queries.view().slice(first, count);
    float best[kTile], sum[kTile];
    score_rows(rows_of(keys_), queries, weights_.data());
    const float scale = capped(seen_.logits, weights_.data(), keys_.rows * count);
    kernels().softmax_rows(weights_.data(), keys_.rows, count, scale, best, sum);
    float share[kTile];
    for (std::size_t q = 0; q < count; ++q) {
      const float lse = scale * best[q] + std::log(sum[q]);
      seen_.rest.lse[first + q] = lse;
      seen_.rest.best[first + q] = scale * best[q];
      share[q] = 1.0F / (sum[q] * (1.0F + std::exp(seen_.exact.lse[first + q] - lse)));
    }
    add_mass(first, count, share);
    add_values(first, count, sum);
  }

 private:
  void add_mass(std::size_t first, std::size_t count, const float* share) {
    const std::size_t group = seen_.group;
    for (std::size_t i = 0; i < keys_.rows; ++i) {
      float* mass = seen_.mass.row(i);
      const float* weights = weights_.data() + i * count;
      for (std::size_t q = 0; q < count; ++q) mass[(first + q) % group] += weights[q] * share[q];
    }
  }

  void add_values(std::size_t first, std::size_t count, const float* sum) {
    if (values_.scales != nullptr) {
      for (std::size_t i = 0; i < keys_.rows; ++i)
        for (std::size_t q = 0; q < count; ++q) weights_[i * count + q] *= values_.scales[i];
    }
    const std::size_t dv = values_.rows.cols;
    float* out = seen_.rest.out.row(first);
    add_rows(rows_of(values_.rows), {weights_.data(), count}, out);
    for (std::size_t q = 0; q < count; ++q)
      for (std::size_t c = 0; c < dv; ++c) out[q * dv + c] /= sum[q];
  }

  Observations& seen_;
  AnyMatrixView keys_;
  ValuesView values_;
  AlignedVector<float> weights_;  ///< [n, tile]
};

}  // namespace

Observations observe(MatrixView<float> queries, std::size_t group, const Partial& exact,
                     AnyMatrixView keys, ValuesView values, Logits logits,
                     const ObserveParams& params, const Execution& run) {
  require(keys.rows > 0, "keys is empty");
  require(queries.rows > 0, "queries is empty");
  require(group >= 1 && group <= kMaxGroup, "group is {}, must be in [1, {}]", group, kMaxGroup);
  require(queries.rows % group == 0, "queries has {} rows, no multiple of group = {}", queries.rows,
          group);
  require(queries.cols == keys.cols, "queries have dimension {}, keys have {}", queries.cols,
          keys.cols);
  require(values.rows.rows == keys.rows, "values has {} rows, keys has {}", values.rows.rows,
          keys.rows);
  require(exact.lse.size() == queries.rows, "exact is of {} queries, there are {}",
          exact.lse.size(), queries.rows);
  require(exact.out.rows() == queries.rows && exact.out.cols() == values.rows.cols,
          "exact.out is {} x {}, must be {} x {}", exact.out.rows(), exact.out.cols(), queries.rows,
          values.rows.cols);
  logits.validate();
  run.validate();

  Observations seen;
  seen.group = group;
  seen.logits = logits;
  seen.queries = Matrix<float>(queries.rows, queries.cols);
  for (std::size_t i = 0; i < queries.rows; ++i)
    std::copy_n(queries.row(i), queries.cols, seen.queries.row(i));
  seen.exact = exact;
  const std::size_t top = std::min(params.top, keys.rows);
  if (top > 0) {
    KnnLists lists = exact_knn(keys, queries, {.k = top, .method = KnnMethod::int8}, run);
    seen.top_ids = std::move(lists.ids);
    seen.top_scores = std::move(lists.scores);
  } else {
    require_finite(keys, "keys");
    require_finite(AnyMatrixView::of(queries), "queries");
  }
  seen.rest.reset(queries.rows, values.rows.cols);
  seen.mass = Matrix<float>(keys.rows, group);
  Observer observer(seen, keys, values);
  for (std::size_t first = 0; first < queries.rows; first += kTile) {
    if (run.progress && !run.progress("observing attention", first, queries.rows))
      fail(ErrorCode::cancelled, "cancelled during observing attention");
    observer.add(first, std::min(kTile, queries.rows - first));
  }
  return seen;
}

}  // namespace keyseek
