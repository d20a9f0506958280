/// Checks of what a search returns, and walks over the steps of a data set.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <limits>
#include <set>
#include <vector>

#include "keyseek/index.hpp"
#include "keyseek/io.hpp"
#include "keyseek/score.hpp"

namespace keyseek::test {

/// What every search promises: shape, order, exact scores, no repetition, padding.
inline void expect_valid(const Hits& hits, AnyMatrixView keys, MatrixView<float> queries,
                         std::size_t k) {
  ASSERT_EQ(hits.group, queries.rows);
  ASSERT_EQ(hits.k, k);
  ASSERT_EQ(hits.ids.size(), queries.rows * k);
  ASSERT_EQ(hits.scores.size(), queries.rows * k);
  ASSERT_EQ(hits.count.size(), queries.rows);
  for (std::size_t g = 0; g < queries.rows; ++g) {
    const auto ids = hits.row_ids(g);
    const auto scores = hits.row_scores(g);
    ASSERT_EQ(std::set<Id>(ids.begin(), ids.end()).size(), ids.size()) << "query " << g;
    for (std::size_t r = 0; r < ids.size(); ++r) {
      ASSERT_LT(ids[r], keys.rows);
      ASSERT_EQ(scores[r], inner_product(keys, ids[r], queries.row(g))) << "query " << g;
      if (r == 0) continue;
      ASSERT_TRUE(scores[r - 1] > scores[r] || (scores[r - 1] == scores[r] && ids[r - 1] < ids[r]))
          << "query " << g << " rank " << r;
    }
    for (std::size_t r = ids.size(); r < k; ++r) {
      ASSERT_EQ(hits.ids[g * k + r], kNoId);
      ASSERT_EQ(hits.scores[g * k + r], -std::numeric_limits<float>::infinity());
    }
  }
}

/// The same hits: ids, scores, counts and what was counted.
inline void expect_same(const Hits& a, const Hits& b) {
  ASSERT_EQ(a.ids, b.ids);
  ASSERT_EQ(a.scores, b.scores);
  ASSERT_EQ(a.count, b.count);
  ASSERT_EQ(a.stats.scanned, b.stats.scanned);
  ASSERT_EQ(a.stats.expanded, b.stats.expanded);
  ASSERT_EQ(a.stats.reranked, b.stats.reranked);
  ASSERT_EQ(a.stats.bytes_read, b.stats.bytes_read);
}

template <class Index>
Hits search(const Index& index, MatrixView<float> queries, const SearchParams& params) {
  SearchScratch scratch;
  Hits hits;
  index.search(queries, params, scratch, hits);
  return hits;
}

/// The hits of consecutive steps, each warmed by the one before it or not.
template <class Index>
std::vector<Hits> walk(const Index& index, MatrixView<float> queries, std::size_t group,
                       SearchParams params, bool warm) {
  std::vector<Hits> all;
  SearchScratch scratch;
  for (std::size_t first = 0; first + group <= queries.rows; first += group) {
    params.previous = warm && !all.empty() ? &all.back() : nullptr;
    Hits hits;
    index.search(queries.slice(first, group), params, scratch, hits);
    all.push_back(std::move(hits));
  }
  return all;
}

/// How good the hits of a walk are, and what they cost per step.
struct Outcome {
  double recall = 0;
  double scanned_fraction = 0;
};
inline Outcome outcome(const std::vector<Hits>& steps, MatrixView<Id> truth, std::size_t n) {
  Matrix<Id> found(truth.rows, truth.cols);
  Outcome result;
  std::size_t row = 0;
  for (const Hits& hits : steps) {
    result.scanned_fraction += static_cast<double>(hits.stats.scanned);
    for (std::size_t g = 0; g < hits.group; ++g) {
      std::copy_n(hits.ids.data() + g * hits.k, truth.cols, found.row(row++));
    }
  }
  result.scanned_fraction /= static_cast<double>(steps.size() * n);
  result.recall = recall(truth, {found.data(), row, truth.cols});
  return result;
}

/// A head of the capture in the repository, as decoding meets it.
struct Sample {
  io::Benchmark data = io::read_data(KEYSEEK_SAMPLE ":L15/K0", {});
  TrainingQueries training{data.learn, data.tuning, data.group, data.tuning_steps};

  [[nodiscard]] AnyMatrixView keys() const { return data.keys.view(); }
};

}  // namespace keyseek::test
