// The parts that searches are made of.
#include "keyseek/search.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <limits>

#include "file/temporary_directory.hpp"
#include "keyseek/score.hpp"
#include "search/scratch.hpp"
#include "select/pool.hpp"
#include "select/ranked.hpp"
#include "select/rerank.hpp"
#include "support/random_data.hpp"
#include "support/reference.hpp"

namespace keyseek {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

TEST(Ranked, OrdersByScoreThenBySmallerId) {
  const std::vector<float> scores = {kInfinity, 3e38F, 1.5F,   1e-45F,    0.0F,
                                     -1e-45F,   -1.5F, -3e38F, -kInfinity};
  for (std::size_t i = 0; i < scores.size(); ++i) {
    for (const Id id : {0U, 1U, 77U, kNoId - 1}) {
      EXPECT_EQ(score_of(ranked(scores[i], id)), scores[i]);
      EXPECT_EQ(id_of(ranked(scores[i], id)), id);
      if (i == 0) continue;
      EXPECT_GT(ranked(scores[i - 1], kNoId - 1), ranked(scores[i], 0));
    }
    EXPECT_GT(ranked(scores[i], 4), ranked(scores[i], 5));
  }
  EXPECT_EQ(ranked(-0.0F, 3), ranked(0.0F, 3));
}

/// Distinct ids with scores of which many are equal.
std::vector<Ranked> some_items(std::size_t n, std::uint64_t seed) {
  Random random(seed);
  std::vector<Ranked> items(n);
  for (std::size_t i = 0; i < n; ++i) {
    items[i] = ranked(static_cast<float>(random.below(20)) - 10.0F, static_cast<Id>(i));
  }
  for (std::size_t i = n; i > 1; --i) std::swap(items[i - 1], items[random.below(i)]);
  return items;
}

TEST(KeepBest, SortsAndCuts) {
  for (const std::size_t n : {0U, 1U, 2U, 17U, 255U, 256U, 257U, 300U, 1000U}) {
    for (const std::size_t k : {1U, 10U, 256U, 257U, 2000U}) {
      auto items = some_items(n, n + k), expected = items;
      std::sort(expected.begin(), expected.end(), std::greater<>());
      expected.resize(std::min(n, k));
      keep_best(items, k);
      ASSERT_EQ(items, expected) << "n " << n << " k " << k;
    }
  }
}

TEST(Pool, HoldsTheBestOfWhatWasAdded) {
  for (const std::size_t capacity : {1U, 7U, 100U}) {
    Pool pool;
    pool.reset(capacity);
    std::vector<Ranked> all;
    Random random(capacity);
    for (Id id = 0; id < 3000; ++id) {
      const auto score = static_cast<float>(random.below(500));
      all.push_back(ranked(score, id));
      if (score > pool.threshold()) pool.add(score, id);
      pool.settle();
      ASSERT_LT(pool.items().size(), 2 * capacity + 1);
    }
    pool.shrink();
    EXPECT_GE(pool.items().size(), capacity);
    EXPECT_LE(pool.items().size(), capacity + capacity / 16);
    std::sort(all.begin(), all.end(), std::greater<>());
    keep_best(pool.items(), capacity);
    EXPECT_TRUE(std::equal(pool.items().begin(), pool.items().end(), all.begin()));
  }
}

TEST(Pool, StartsAgainAfterAReset) {
  Pool pool;
  pool.reset(2);
  for (Id id = 0; id < 10; ++id) pool.add(static_cast<float>(id), id);
  pool.settle();
  EXPECT_GT(pool.threshold(), 0.0F);
  pool.reset(5, -3.0F);
  EXPECT_EQ(pool.threshold(), -3.0F);
  EXPECT_TRUE(pool.items().empty());
  Ranked* room = pool.add_room(2);
  room[0] = ranked(1.0F, 4);
  room[1] = ranked(2.0F, 6);
  pool.shrink();
  EXPECT_EQ(pool.items(), (std::vector<Ranked>{ranked(1.0F, 4), ranked(2.0F, 6)}));
}

TEST(Rerank, ReplacesScoresByExactOnes) {
  const AnyMatrix keys = test::stored_as(test::normal_matrix(400, 19, 1), Dtype::f16);
  const Matrix<float> query = test::normal_matrix(1, 19, 2);
  const KnnLists truth = test::brute_force(keys.view(), query, 30);
  std::vector<Ranked> items;
  for (Id id = 0; id < 400; ++id) items.push_back(ranked(0.0F, id));  // they know nothing
  RerankScratch scratch;
  rerank(keys.view(), query.row(0), 30, items, scratch);
  ASSERT_EQ(items.size(), 30U);
  for (std::size_t r = 0; r < 30; ++r) {
    EXPECT_EQ(id_of(items[r]), truth.ids.row(0)[r]);
    EXPECT_EQ(score_of(items[r]), inner_product(keys.view(), id_of(items[r]), query.row(0)));
  }
  items.clear();
  rerank(keys.view(), query.row(0), 30, items, scratch);
  EXPECT_TRUE(items.empty());
}

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
