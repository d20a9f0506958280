// What keeps and ranks candidates.
#include <gtest/gtest.h>

#include <algorithm>
#include <limits>
#include <set>

#include "keyseek/score.hpp"
#include "select/id_set.hpp"
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

TEST(IdSet, GivesItsMembersInOrder) {
  Random random(3);
  IdSet set;
  for (const std::size_t n : {1U, 64U, 65U, 5000U, 300000U}) {
    set.resize(n);
    for (int round = 0; round < 3; ++round) {
      std::set<Id> expected = {static_cast<Id>(n - 1)};
      set.add(static_cast<Id>(n - 1));
      for (int i = 0; i < 300; ++i) {
        const auto id = static_cast<Id>(random.below(n));
        expected.insert(id);
        set.add(id);
      }
      const std::vector<Id> some(expected.begin(), std::next(expected.begin()));
      set.remove(some);
      expected.erase(some.front());
      std::vector<Id> drained = {77};
      set.drain(drained);
      EXPECT_EQ(drained.front(), 77U);
      EXPECT_TRUE(std::equal(drained.begin() + 1, drained.end(), expected.begin(), expected.end()));
      drained.clear();
      set.drain(drained);
      EXPECT_TRUE(drained.empty());
    }
  }
}

}  // namespace
}  // namespace keyseek
