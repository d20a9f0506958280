// Each thing that a caller's answer could be wrong in.
#include "decode/caller_search.hpp"

#include <algorithm>
#include <cmath>
#include <utility>

#include "base/fail.hpp"
#include "keyseek/score.hpp"

namespace keyseek {
namespace {

// Of |q| |k|: a hundred times what rounding to f16 may be off, four times what bf16 may.
constexpr double kTolerance = 0.01;

void require_shape(const Hits& hits, std::size_t group, std::size_t k) {
  require(hits.group == group, "the caller's search gave hits of {} queries, asked were {}",
          hits.group, group);
  require(hits.ids.size() == group * hits.k && hits.scores.size() == group * hits.k &&
              hits.count.size() == group,
          "the caller's search gave {} ids, {} scores and {} counts for {} queries of k = {}",
          hits.ids.size(), hits.scores.size(), hits.count.size(), group, hits.k);
  for (const std::size_t count : hits.count)
    require(count <= hits.k && count <= k, "the caller's search gave {} keys, asked were {}", count,
            k);
}

/// Whether a score is as far from the inner product as rounding takes it. Lengths are looked at
/// only where the inner product itself does not say.
bool is_product(float score, float product, const float* query, AnyMatrixView key) {
  const double off = std::abs(double{score} - double{product});
  if (off <= kTolerance * std::abs(double{product})) return true;
  std::vector<float> row(key.cols);
  key.copy_row(0, row.data());
  double of_query = 0, of_key = 0;
  for (std::size_t j = 0; j < key.cols; ++j) {
    of_query += double{query[j]} * double{query[j]};
    of_key += double{row[j]} * double{row[j]};
  }
  return off <= kTolerance * std::sqrt(of_query * of_key);
}

void require_keys(std::span<const Id> ids, std::size_t g, std::size_t n) {
  std::vector<Id> sorted(ids.begin(), ids.end());
  for (const Id id : sorted)
    require(id < n, "the caller's search named key {} for query {}, there are only {}", id, g, n);
  std::sort(sorted.begin(), sorted.end());
  const auto twice = std::adjacent_find(sorted.begin(), sorted.end());
  require(twice == sorted.end(), "the caller's search named key {} twice for query {}",
          twice == sorted.end() ? kNoId : *twice, g);
}

void require_scores(std::span<const Id> ids, std::span<const float> scores, std::size_t g,
                    MatrixView<float> query, AnyMatrixView keys) {
  std::vector<float> products(ids.size());
  score_ids(keys, ids, query, products.data());
  for (std::size_t i = 0; i < ids.size(); ++i) {
    require(std::isfinite(scores[i]), "the caller's search gave key {} for query {} the score {}",
            ids[i], g, scores[i]);
    require(i == 0 || scores[i] <= scores[i - 1],
            "the caller's search gave query {} scores that rise from {} to {}: best first", g,
            i == 0 ? scores[i] : scores[i - 1], scores[i]);
    require(is_product(scores[i], products[i], query.data, keys.slice(ids[i], 1)),
            "the caller's search gave key {} for query {} the score {}, their inner product is {}: "
            "scores are inner products, without scale or distance",
            ids[i], g, scores[i], products[i]);
  }
}

}  // namespace

SearchKeys checked(SearchKeys search, AnyMatrix keys) {
  require(static_cast<bool>(search), "index made no search");
  return [search = std::move(search), keys = std::move(keys)](MatrixView<float> queries,
                                                              std::size_t k, Hits& hits) {
    search(queries, k, hits);
    require_shape(hits, queries.rows, k);
    for (std::size_t g = 0; g < queries.rows; ++g) {
      require_keys(hits.row_ids(g), g, keys.rows());
      require_scores(hits.row_ids(g), hits.row_scores(g), g, queries.slice(g, 1), keys.view());
    }
  };
}

}  // namespace keyseek
