#include <gtest/gtest.h>

#include <cmath>
#include <limits>

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
  const test::OodData data = test::make_ood_data({.n = 3003, .d = 40, .test_steps = 66});
  for (const Dtype dtype : {Dtype::f32, Dtype::f16, Dtype::bf16, Dtype::i8}) {
    const AnyMatrix keys = test::stored_as(data.keys, dtype);
    const auto truth = exact_knn(keys.view(), data.test).ids;
    const Index index = test::flat_index(keys.view());
    EXPECT_EQ(index.size(), 3003U);
    EXPECT_EQ(index.dim(), 40U);
    for (const std::size_t group : {1U, 2U, 3U, 4U, 6U, 11U, 44U}) {
      const auto steps = test::walk(index, data.test, group, {}, false);
      EXPECT_GE(test::outcome(steps, truth, 3003).recall, 0.999)
          << to_string(dtype) << " G " << group;
      expect_valid(steps[1], keys.view(), data.test.view().slice(group, group), 100);
      EXPECT_EQ(steps[1].count, std::vector<std::size_t>(group, 100));
    }
  }
}

TEST(Index, BytesAreKeysAndCodes) {
  const Index index =
      test::flat_index(test::stored_as(test::normal_matrix(33, 20, 1), Dtype::f16).view());
  EXPECT_EQ(index.bytes(), 33 * 20 * 2 + 48 * (32 + sizeof(float)) + 2 * 20 * sizeof(float));
}

TEST(Index, AllKeysInOrder) {
  test::OodData data = test::make_ood_data({.n = 333, .d = 7});
  for (std::size_t i = 0; i < 333 * 7; ++i) data.keys.data()[i] = std::round(data.keys.data()[i]);
  for (std::size_t i = 0; i < 120 * 7; ++i) data.test.data()[i] = std::round(data.test.data()[i]);
  const Index index = test::flat_index(any(data.keys));
  const auto queries = data.test.view().slice(0, 6);
  const Hits hits = test::search(index, queries, {.k = 333});
  const KnnLists truth = test::brute_force(any(data.keys), queries, 333);
  EXPECT_EQ(hits.ids, test::elements(truth.ids));  // equal scores by smaller id
  EXPECT_EQ(hits.scores, test::elements(truth.scores));
}

/// Warm and cold searches of consecutive steps: the same hits.
void expect_warm_is_cold(const Index& index, MatrixView<float> queries, std::size_t k) {
  const auto cold = test::walk(index, queries, 2, {.k = k}, false);
  const auto warm = test::walk(index, queries, 2, {.k = k}, true);
  for (std::size_t s = 0; s < cold.size(); ++s) {
    ASSERT_EQ(warm[s].ids, cold[s].ids) << "step " << s;
    ASSERT_EQ(warm[s].scores, cold[s].scores);
    ASSERT_EQ(warm[s].count, cold[s].count);
  }
}

TEST(Index, AWarmStartChangesNothing) {
  const test::OodData data = test::make_ood_data({.n = 4000});
  const Index index = test::flat_index(any(data.keys));
  for (const std::size_t k : {1U, 10U, 100U}) expect_warm_is_cold(index, data.test, k);
}

TEST(Index, AWarmStartChangesNothingWhenKeysDifferInSize) {
  // Rounding errors of the long keys are ten times those of the short ones.
  test::OodData data = test::make_ood_data({.n = 4000});
  Random random(1);
  for (std::size_t i = 0; i < 4000; ++i) {
    const float size = std::pow(10.0F, static_cast<float>(random.uniform() - 1.0));
    for (std::size_t j = 0; j < 32; ++j) data.keys.row(i)[j] *= size;
  }
  for (std::size_t i = 0; i < data.test.rows() * 32; ++i)
    data.test.data()[i] -= 2.0F;  // scores of both signs
  const Index index = test::flat_index(any(data.keys));
  for (const std::size_t k : {1U, 10U, 100U}) expect_warm_is_cold(index, data.test, k);
}

TEST(Index, PreviousHitsMayBeAnything) {
  const test::OodData data = test::make_ood_data();
  const Index index = test::flat_index(any(data.keys));
  const Hits cold = test::search(index, data.step(0), {.k = 10});
  // The worst keys of all, few keys, the same key many times, keys that are not there.
  Hits previous = test::search(index, data.step(0), {.k = 2000});
  previous.ids.assign(previous.ids.rbegin(), previous.ids.rend());
  EXPECT_EQ(test::search(index, data.step(0), {.k = 10, .previous = &previous}).ids, cold.ids);
  previous.count = {3, 2};
  EXPECT_EQ(test::search(index, data.step(0), {.k = 10, .previous = &previous}).ids, cold.ids);
  previous.count = {2000, 2000};
  std::fill(previous.ids.begin(), previous.ids.end(), cold.ids[0]);
  EXPECT_EQ(test::search(index, data.step(0), {.k = 10, .previous = &previous}).ids, cold.ids);
  std::fill(previous.ids.begin(), previous.ids.end(), 2000U);
  EXPECT_EQ(test::search(index, data.step(0), {.k = 10, .previous = &previous}).ids, cold.ids);
  SearchScratch scratch;
  Hits same = test::search(index, data.step(5), {.k = 10});
  index.search(data.step(0), {.k = 10, .previous = &same}, scratch, same);
  EXPECT_EQ(same.ids, cold.ids);
}

TEST(Index, BetaKeepsWhatIsNearTheMaximum) {
  const test::OodData data = test::make_ood_data();
  const Index index = test::flat_index(any(data.keys));
  const Hits all = test::search(index, data.step(0), {.k = 200});
  const Hits hits = test::search(index, data.step(0), {.k = 200, .beta = 4.0F});
  expect_valid(hits, any(data.keys), data.step(0), 200);
  for (std::size_t g = 0; g < 2; ++g) {
    std::size_t expected = 0;
    while (expected < 200 && all.row_scores(g)[expected] >= all.row_scores(g)[0] - 4.0F) ++expected;
    EXPECT_EQ(hits.count[g], expected);
    EXPECT_GT(expected, 1U);
    EXPECT_LT(expected, 200U);
  }
}

TEST(Index, StatisticsCountEverything) {
  const test::OodData data = test::make_ood_data({.n = 1000});
  const Index index = test::flat_index(any(data.keys));
  const Hits hits = test::search(index, data.step(0), {.k = 10});
  EXPECT_EQ(hits.stats.scanned, 1000U);
  EXPECT_EQ(hits.stats.expanded, 0U);
  EXPECT_GE(hits.stats.reranked, 2 * 10U);
  EXPECT_LE(hits.stats.reranked, 2 * 40U);
  EXPECT_EQ(hits.stats.bytes_read, 1000 * 36 + hits.stats.reranked * 32 * sizeof(float));
}

TEST(Index, StrangeKeysWork) {
  const auto searched = [](const Matrix<float>& keys, std::size_t k) {
    const Matrix<float> queries = test::normal_matrix(3, keys.cols(), 9);
    const Index index = test::flat_index(any(keys));
    const Hits hits = test::search(index, queries, {.k = k});
    expect_valid(hits, any(keys), queries, k);
    EXPECT_EQ(hits.ids, test::elements(exact_knn(any(keys), queries, {.k = k}).ids));
  };
  searched(test::normal_matrix(200, 1, 1), 200);
  searched(test::normal_matrix(1, 5, 1), 1);
  searched(Matrix<float>(200, 5), 20);
  Matrix<float> keys = test::normal_matrix(200, 5, 2);
  for (std::size_t i = 0; i < 100; ++i) std::copy_n(keys.row(7), 5, keys.row(2 * i));
  searched(keys, 150);
  for (std::size_t i = 0; i < 1000; ++i) keys.data()[i] *= 1e-41F;
  searched(keys, 200);
}

TEST(Index, ScratchIsSharedWithOtherIndexes) {
  const test::OodData a = test::make_ood_data({.n = 500, .d = 60}),
                      b = test::make_ood_data({.n = 900, .d = 64});
  const Index flat_a = test::flat_index(any(a.keys)), flat_b = test::flat_index(any(b.keys));
  const auto projection = test::projection_index(any(b.keys), b.training);
  SearchScratch scratch;
  Hits hits;
  for (std::size_t s = 0; s < 10; ++s) {
    flat_a.search(a.step(s), {.k = 30}, scratch, hits);
    test::expect_same(hits, test::search(flat_a, a.step(s), {.k = 30}));
    projection.search(b.step(s), {.k = 30}, scratch, hits);
    test::expect_same(hits, test::search(projection, b.step(s), {.k = 30}));
    flat_b.search(b.step(s), {.k = 30}, scratch, hits);
    test::expect_same(hits, test::search(flat_b, b.step(s), {.k = 30}));
  }
}

TEST(Index, RefusesWrongInput) {
  const Matrix<float> keys = test::normal_matrix(50, 6, 1);
  Matrix<float> queries = test::normal_matrix(2, 6, 2);
  const Index index = test::flat_index(any(keys));
  const auto invalid = ErrorCode::invalid_argument;
  const auto refused = [&](const std::vector<std::string>& parts, MatrixView<float> q,
                           const SearchParams& params) {
    expect_error(invalid, parts, [&] { (void)test::search(index, q, params); });
  };
  refused({"k is 0"}, queries, {.k = 0});
  refused({"k is 51", "50 keys"}, queries, {.k = 51});
  refused({"dimension 5", "index has 6"}, {queries.data(), 2, 5, 6}, {.k = 1});
  refused({"queries has 65 rows"}, test::normal_matrix(65, 6, 3), {.k = 1});
  queries.row(0)[2] = std::numeric_limits<float>::quiet_NaN();
  expect_error(ErrorCode::not_finite, {"queries row 0"},
               [&] { (void)test::search(index, queries, {.k = 1}); });
  expect_error(invalid, {"keys is empty"}, [] { (void)test::flat_index({}); });
  Matrix<float> bad = keys;
  bad.row(49)[5] = std::numeric_limits<float>::infinity();
  expect_error(ErrorCode::not_finite, {"keys row 49"}, [&] { (void)test::flat_index(any(bad)); });
  const auto is_empty = [&](auto body) { expect_error(invalid, {"Index is empty"}, body); };
  is_empty([&] { (void)test::search(Index(), keys.view().slice(0, 1), {.k = 1}); });
  is_empty([] { (void)Index().size(); });
  is_empty([] { (void)Index().dim(); });
  is_empty([] { (void)Index().bytes(); });
  is_empty([] { Index().save("nowhere.ks"); });
  is_empty([&] { Index().append(any(keys)); });
}

}  // namespace
}  // namespace keyseek
