// The parts that searches are made of, and the end of a step.
#include "keyseek/search.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <limits>
#include <numeric>
#include <vector>

#include "file/temporary_directory.hpp"
#include "keyseek/score.hpp"
#include "search/scratch.hpp"
#include "search/step.hpp"
#include "support/random_data.hpp"
#include "support/reference.hpp"

namespace keyseek {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

TEST(KeySet, TellsNewKeysFromOldOnes) {
  KeySet set;
  set.resize(10);
  std::vector<Id> fresh(4);
  ASSERT_EQ(set.add(std::vector<Id>{3, 9, 3, 0}, fresh.data()), 3U);
  EXPECT_EQ(fresh[0], 3U);
  EXPECT_EQ(fresh[1], 9U);
  EXPECT_EQ(fresh[2], 0U);
  ASSERT_EQ(set.add(std::vector<Id>{9, 4}, fresh.data()), 1U);
  EXPECT_EQ(fresh[0], 4U);
  set.clear(std::vector<Id>{9, 4});
  set.resize(20);  // the others stay
  set.resize(5);
  ASSERT_EQ(set.add(std::vector<Id>{3, 9, 19}, fresh.data()), 2U);
  EXPECT_EQ(fresh[0], 9U);
  EXPECT_EQ(fresh[1], 19U);
}

/// A step of `queries` whose pools hold what `candidates` says, and of which `known` is known.
struct Step {
  AnyMatrix keys = test::stored_as(test::normal_matrix(500, 19, 1), Dtype::f16);
  Matrix<float> queries;
  KeyStore store = KeyStore::encode(keys.view(), {}, CodeLayout::rows);
  SearchParams params = {.k = 5};

  explicit Step(std::size_t group) : queries(test::normal_matrix(group, 19, 2)) {}

  [[nodiscard]] Hits finish(const std::vector<std::vector<Id>>& candidates,
                            const std::vector<Id>& known = {}) const {
    SearchScratch scratch;
    SearchScratch::State& s = scratch.state();
    Hits hits;
    begin_step(store, queries.view(), params, s, hits);
    for (std::size_t g = 0; g < queries.rows(); ++g) {
      s.pools[g].reset(500);
      for (const Id id : candidates[g]) s.pools[g].add(0.0F, id);
    }
    s.known.ids = known;
    for (const Id id : known) {
      for (std::size_t g = 0; g < queries.rows(); ++g)
        s.known.scores.push_back(inner_product(keys.view(), id, queries.row(g)));
    }
    finish_step(keys.view(), queries.view(), params, s, hits);
    return hits;
  }

  /// The best of `ids` by brute force.
  void expect_best(const Hits& hits, std::size_t g, const std::vector<Id>& ids) const {
    std::vector<Ranked> best;
    for (const Id id : ids)
      best.push_back(ranked(inner_product(keys.view(), id, queries.row(g)), id));
    std::sort(best.begin(), best.end(), std::greater<>());
    ASSERT_EQ(hits.count[g], std::min(best.size(), params.k));
    for (std::size_t i = 0; i < hits.count[g]; ++i) {
      EXPECT_EQ(hits.row_ids(g)[i], id_of(best[i])) << "query " << g;
      EXPECT_EQ(hits.row_scores(g)[i], score_of(best[i]));
    }
  }
};

std::vector<Id> from(Id first, Id last) {
  std::vector<Id> ids(last - first);
  std::iota(ids.begin(), ids.end(), first);
  return ids;
}

TEST(FinishStep, QueriesThatShareKeysHaveEachScoredOnceForAll) {
  for (const std::size_t group : {4U, 6U, 8U}) {
    const Step step(group);
    const Hits hits =
        step.finish(std::vector<std::vector<Id>>(group, {499, 30, 31, 32, 33, 34, 35, 36, 0}));
    EXPECT_EQ(hits.stats.reranked, 9U);
    for (std::size_t g = 0; g < group; ++g)
      step.expect_best(hits, g, {0, 30, 31, 32, 33, 34, 35, 36, 499});
  }
}

TEST(FinishStep, OneTakesWhatAnotherFound) {
  const Step step(4);
  std::vector<Id> more = from(100, 120);
  more.push_back(400);
  const Hits hits = step.finish({from(100, 120), from(100, 120), from(100, 120), more});
  for (const std::size_t g : {0U, 1U, 2U, 3U}) step.expect_best(hits, g, more);
}

TEST(FinishStep, QueriesThatShareNothingAreScoredAlone) {
  const Step step(3);
  const Hits hits = step.finish({from(0, 20), from(20, 40), from(40, 60)});
  EXPECT_EQ(hits.stats.reranked, 60U);
  for (const Id g : {0U, 1U, 2U}) step.expect_best(hits, g, from(20 * g, 20 * g + 20));
}

TEST(FinishStep, WhatIsKnownIsNotScoredAgain) {
  const Step step(4);
  const Hits hits = step.finish(std::vector<std::vector<Id>>(4, from(10, 40)), from(0, 30));
  EXPECT_EQ(hits.stats.reranked, 10U);
  for (const std::size_t g : {0U, 1U, 2U, 3U}) step.expect_best(hits, g, from(0, 40));
}

TEST(FinishStep, GroupsOfMoreThanEightAndFewCandidates) {
  const Step step(11);
  const Hits hits = step.finish(std::vector<std::vector<Id>>(11, {7, 3, 5}));
  for (std::size_t g = 0; g < 11; ++g) step.expect_best(hits, g, {3, 5, 7});
}

TEST(SearchParams, NonsenseIsRefused) {
  const auto refused = [](const SearchParams& params, const std::string& name) {
    test::expect_error(ErrorCode::invalid_argument, {name}, [&] { params.validate(); });
  };
  EXPECT_NO_THROW(SearchParams().validate());
  EXPECT_NO_THROW(
      (SearchParams{.beta = 0.0F, .projection = {{.target_recall = 1.0, .max_scanned = 1}}}
           .validate()));
  EXPECT_NO_THROW(
      (SearchParams{.projection = {{.dials = Dials{.probes = 0, .lists = 0, .expand = 1}}}}
           .validate()));
  refused({.k = 0}, "k is 0");
  refused({.projection = {{.target_recall = 0.0}}}, "target_recall is 0");
  refused({.projection = {{.target_recall = 1.01}}}, "target_recall is 1.01");
  refused({.projection = {{.target_recall = std::numeric_limits<double>::quiet_NaN()}}},
          "target_recall is nan");
  refused({.beta = -1.0F}, "beta is -1");
  refused({.beta = kInfinity}, "beta is inf");
  refused({.beta = std::numeric_limits<float>::quiet_NaN()}, "beta is nan");
  refused({.projection = {{.max_scanned = 0}}}, "max_scanned is 0");
  refused({.projection = {{.dials = Dials{.lists = 0, .expand = 0}}}},
          "neither lists nor expansions");
  refused({.projection = {{.dials = Dials{.probes = 0, .lists = 4}}}}, "dials.probes is 0");
}

}  // namespace
}  // namespace keyseek
