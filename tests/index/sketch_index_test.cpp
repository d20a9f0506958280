#include <gtest/gtest.h>

#include <cmath>

#include "file/temporary_directory.hpp"
#include "keyseek/index.hpp"
#include "support/indexes.hpp"
#include "support/ood_data.hpp"
#include "support/reference.hpp"
#include "support/search_run.hpp"

namespace keyseek {
namespace {

using test::any;
using test::expect_error;
using test::expect_valid;

TEST(Index, FindsNearlyAllForEveryTypeAndGroup) {
  const test::OodData data = test::make_ood_data({.n = 3003, .d = 64, .test_steps = 66});
  for (const Dtype dtype : {Dtype::f32, Dtype::f16, Dtype::bf16, Dtype::i8}) {
    const AnyMatrix keys = test::stored_as(data.keys, dtype);
    const auto truth = exact_knn(keys.view(), data.test, {.k = 20}).ids;
    const Index index = test::sketch_index(keys.view(), data.training.train);
    EXPECT_EQ(index.size(), 3003U);
    EXPECT_EQ(index.dim(), 64U);
    for (const std::size_t group : {1U, 2U, 3U, 4U, 6U, 11U, 44U}) {
      for (const bool warm : {false, true}) {
        const auto steps = test::walk(index, data.test, group, {.k = 20}, warm);
        EXPECT_GE(test::outcome(steps, truth, 3003).recall, 0.98)
            << to_string(dtype) << " G " << group << " warm " << warm;
        expect_valid(steps[1], keys.view(), data.test.view().slice(group, group), 20);
        EXPECT_EQ(steps[1].count, std::vector<std::size_t>(group, 20));
      }
    }
  }
}

TEST(Index, CountsWhatItReads) {
  const test::OodData data = test::make_ood_data({.n = 3000, .d = 64});
  const Index index = test::sketch_index(any(data.keys), data.training.train, {.dim = 20});
  EXPECT_EQ(test::fact(index, "sketch_dim"), 20U);
  const Hits cold = test::search(index, data.step(0), {.k = 10});
  EXPECT_EQ(cold.stats.sketched, 3000U);
  EXPECT_EQ(cold.stats.scanned, 0U);
  // Each query's pool, which is as large as the sketch needs here.
  EXPECT_GE(cold.stats.reranked, 10U);
  EXPECT_LE(cold.stats.reranked, 300U);
  EXPECT_EQ(cold.stats.bytes_read, 3000 * (16 + 4) + cold.stats.reranked * 64 * sizeof(float));
  EXPECT_EQ(index.bytes() - data.keys.rows() * 64 * sizeof(float), index.extra_bytes());
  EXPECT_LT(index.extra_bytes(), 3000 * (16 + 4) + 20000);  // there are no other codes
  // Coordinates that tell less apart let more keys go on.
  const Index rough = test::sketch_index(any(data.keys), data.training.train, {.dim = 4});
  const Hits first = test::search(rough, data.step(0), {.k = 10});
  EXPECT_GT(first.stats.reranked, 3 * cold.stats.reranked);
}

TEST(Index, WhatTheLastStepFoundSaysHowManyKeysGoOn) {
  const test::OodData data = test::make_ood_data({.n = 3000, .d = 64});
  const Index rough = test::sketch_index(any(data.keys), data.training.train, {.dim = 16});
  const Hits cold = test::search(rough, data.step(0), {.k = 10});
  const Hits warm = test::search(rough, data.step(0), {.k = 10, .previous = &cold});
  EXPECT_EQ(warm.ids, cold.ids);
  EXPECT_LT(warm.stats.reranked, cold.stats.reranked);
}

TEST(Index, FindsTheKeyThatNoQueryWantedBefore) {
  test::OodData data = test::make_ood_data({.n = 3000, .d = 64});
  // One key in a direction of its own, below all others for the training's kind of query.
  const Matrix<float> direction = test::normal_matrix(1, 64, 7);
  constexpr std::size_t kHidden = 1234;
  Matrix<float> asking(1, 64);
  for (std::size_t j = 0; j < 64; ++j) {
    data.keys.row(kHidden)[j] = 0.4F * direction.row(0)[j];
    asking.row(0)[j] = data.test.row(5)[j] + 2.0F * direction.row(0)[j];
  }
  const KnnLists truth = exact_knn(any(data.keys), asking, {.k = 1});
  ASSERT_EQ(truth.ids.row(0)[0], kHidden);
  const Index index = test::sketch_index(any(data.keys), data.training.train);
  EXPECT_EQ(test::search(index, asking, {.k = 10}).ids[0], kHidden);
  const Hits before = test::search(index, data.test.view().slice(4, 1), {.k = 10});
  EXPECT_EQ(test::search(index, asking, {.k = 10, .previous = &before}).ids[0], kHidden);
  const auto projection = test::projection_index(any(data.keys), data.training);
  EXPECT_NE(
      test::search(projection, asking, {.k = 10, .projection = {{.target_recall = 0.9}}}).ids[0],
      kHidden);
}

TEST(Index, AllKeysInOrder) {
  test::OodData data = test::make_ood_data({.n = 333, .d = 7});
  for (std::size_t i = 0; i < 333 * 7; ++i) data.keys.data()[i] = std::round(data.keys.data()[i]);
  for (std::size_t i = 0; i < 120 * 7; ++i) data.test.data()[i] = std::round(data.test.data()[i]);
  const Index index = test::sketch_index(any(data.keys), data.training.train);
  const auto queries = data.test.view().slice(0, 6);
  const Hits hits = test::search(index, queries, {.k = 333});
  const KnnLists truth = test::brute_force(any(data.keys), queries, 333);
  EXPECT_EQ(hits.ids, test::elements(truth.ids));  // equal scores by smaller id
  EXPECT_EQ(hits.scores, test::elements(truth.scores));
}

TEST(Index, PreviousHitsMayBeAnything) {
  const test::OodData data = test::make_ood_data();
  const Index index = test::sketch_index(any(data.keys), data.training.train);
  const auto truth = exact_knn(any(data.keys), data.step(0), {.k = 10}).ids;
  const Hits cold = test::search(index, data.step(0), {.k = 10});
  const auto found = [&](const Hits& previous) {
    const Hits hits = test::search(index, data.step(0), {.k = 10, .previous = &previous});
    expect_valid(hits, any(data.keys), data.step(0), 10);
    return recall(truth, {hits.ids.data(), 2, 10});
  };
  // The worst keys of all, few keys, the same key many times, keys that are not there.
  Hits previous = test::search(index, data.step(0), {.k = 2000});
  previous.ids.assign(previous.ids.rbegin(), previous.ids.rend());
  EXPECT_GE(found(previous), 0.95);
  previous.count = {3, 2};
  EXPECT_GE(found(previous), 0.95);
  previous.count = {2000, 2000};
  std::fill(previous.ids.begin(), previous.ids.end(), cold.ids[0]);
  EXPECT_GE(found(previous), 0.95);
  std::fill(previous.ids.begin(), previous.ids.end(), 2000U);
  EXPECT_GE(found(previous), 0.95);
}

TEST(Index, BetaDropsKeysFarBelowTheBest) {
  const test::OodData data = test::make_ood_data();
  const Index index = test::sketch_index(any(data.keys), data.training.train);
  const Hits all = test::search(index, data.step(0), {.k = 50});
  const float beta = all.scores[0] - all.scores[20];
  const Hits some = test::search(index, data.step(0), {.k = 50, .beta = beta});
  EXPECT_GE(some.count[0], 20U);
  EXPECT_LT(some.count[0], 50U);
  expect_valid(some, any(data.keys), data.step(0), 50);
}

TEST(Index, IsEmptyUntilBuiltAndRefusesWhatDoesNotFit) {
  const test::OodData data = test::make_ood_data();
  Index index;
  const auto invalid = ErrorCode::invalid_argument;
  expect_error(invalid, {"Index is empty"}, [&] { (void)index.size(); });
  index = test::sketch_index(any(data.keys), data.training.train);
  expect_error(invalid, {"dimension 31", "32"},
               [&] { (void)test::search(index, test::normal_matrix(2, 31, 1), {}); });
  expect_error(invalid, {"k is 2001"},
               [&] { (void)test::search(index, data.step(0), {.k = 2001}); });
  expect_error(invalid, {"dimension 31", "32"},
               [&] { index.append(any(test::normal_matrix(3, 31, 1))); });
  expect_error(invalid, {"training.train is empty"},
               [&] { (void)test::sketch_index(any(data.keys), Matrix<float>(0, 32)); });
  EXPECT_EQ(index.size(), 2000U);
}

}  // namespace
}  // namespace keyseek
