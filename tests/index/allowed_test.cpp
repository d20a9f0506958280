// A search that may find only some keys, by every kind of index.
#include <gtest/gtest.h>

#include <vector>

#include "file/temporary_directory.hpp"
#include "keyseek/index.hpp"
#include "support/ood_data.hpp"
#include "support/reference.hpp"
#include "support/search_run.hpp"

namespace keyseek {
namespace {

using test::expect_error;

class Allowed : public testing::TestWithParam<IndexKind> {
 protected:
  static const test::OodData& data() {
    static const test::OodData made = test::make_ood_data({.n = 1500, .test_steps = 20});
    return made;
  }
  static Index build() {
    TrainingQueries training = data().training;
    return Index::build(GetParam(), AnyMatrixView::of(data().keys.view()), training);
  }
  /// Every `stride`-th key.
  static AllowedKeys every(std::size_t stride) {
    AllowedKeys allowed(data().keys.rows());
    for (std::size_t i = stride - 1; i < data().keys.rows(); i += stride)
      allowed.allow(static_cast<Id>(i));
    return allowed;
  }
  /// The k best of those, or fewer.
  static Matrix<Id> truth(const AllowedKeys& allowed, std::size_t k) {
    std::vector<Id> ids;
    allowed.first(allowed.count(), ids);
    Matrix<float> keys(ids.size(), data().keys.cols());
    for (std::size_t i = 0; i < ids.size(); ++i)
      std::copy_n(data().keys.row(ids[i]), keys.cols(), keys.row(i));
    Matrix<Id> best =
        exact_knn(AnyMatrixView::of(keys.view()), data().test, {.k = std::min(k, ids.size())}).ids;
    for (std::size_t i = 0; i < best.rows() * best.cols(); ++i)
      best.data()[i] = ids[best.data()[i]];
    return best;
  }
};

TEST_P(Allowed, FindsTheBestOfThemAndNoOther) {
  const Index index = build();
  for (const std::size_t stride : {1U, 2U, 4U, 30U}) {
    SCOPED_TRACE(stride);
    const AllowedKeys allowed = every(stride);
    SearchParams params{.k = 10, .allowed = &allowed};
    if (GetParam() == IndexKind::projection) params.projection = {.target_recall = 0.99};
    SearchScratch scratch;
    Hits hits;
    Matrix<Id> found(data().test.rows(), 10);
    for (std::size_t step = 0; step < data().steps(); ++step) {
      index.search(data().step(step), params, scratch, hits);
      test::expect_valid(hits, AnyMatrixView::of(data().keys.view()), data().step(step), 10);
      for (const Id id : hits.ids) ASSERT_TRUE(allowed.has(id)) << id;
      std::copy(hits.ids.begin(), hits.ids.end(), found.row(step * data().training.group));
      params.previous = &hits;
    }
    EXPECT_GE(recall(truth(allowed, 10), found), stride == 30 ? 1.0 : 0.97);
  }
}

TEST_P(Allowed, AllOfThemIsNoFilter) {
  const Index index = build();
  const AllowedKeys all = every(1);
  SearchScratch scratch;
  Hits free, bound;
  index.search(data().step(0), {.k = 20}, scratch, free);
  index.search(data().step(0), {.k = 20, .allowed = &all}, scratch, bound);
  EXPECT_EQ(free.ids, bound.ids);
  EXPECT_EQ(free.scores, bound.scores);
  EXPECT_EQ(free.stats.scanned, bound.stats.scanned);
}

TEST_P(Allowed, FewerThanWanted) {
  const Index index = build();
  SearchScratch scratch;
  Hits hits;
  for (const std::size_t keys : {0U, 1U, 3U}) {
    AllowedKeys allowed(data().keys.rows());
    for (std::size_t i = 0; i < keys; ++i) allowed.allow(static_cast<Id>(100 * i + 7));
    index.search(data().step(0), {.k = 5, .allowed = &allowed}, scratch, hits);
    for (const std::size_t count : hits.count) EXPECT_EQ(count, keys);
    const Matrix<float> zero(1, data().keys.cols());
    index.search(zero, {.k = 5, .allowed = &allowed}, scratch, hits);
    EXPECT_EQ(hits.count[0], keys);
  }
  // More than a scan of few, fewer than k.
  const AllowedKeys some = every(3);
  index.search(data().step(0), {.k = 1000, .allowed = &some}, scratch, hits);
  for (const std::size_t count : hits.count) EXPECT_EQ(count, 500U);
  // What was allowed before is not remembered, and previous hits are looked through.
  index.search(data().step(0), {.k = 5, .previous = &hits}, scratch, hits);
  EXPECT_EQ(hits.count[0], 5U);
}

TEST_P(Allowed, OfAnotherIndexIsRefused) {
  const Index index = build();
  const AllowedKeys larger(data().keys.rows() + 1);
  SearchScratch scratch;
  Hits hits;
  expect_error(ErrorCode::invalid_argument, {"allowed is of 1501 keys", "1500"},
               [&] { index.search(data().step(0), {.k = 5, .allowed = &larger}, scratch, hits); });
}

INSTANTIATE_TEST_SUITE_P(Kinds, Allowed, testing::ValuesIn(index_kinds()),
                         [](const auto& one) { return std::string(to_string(one.param)); });

TEST(AllowedKeys, CountsAndLists) {
  AllowedKeys keys(130);
  for (const Id id : {129U, 3U, 64U, 3U}) keys.allow(id);
  EXPECT_EQ(keys.count(), 3U);
  EXPECT_EQ(keys.size(), 130U);
  EXPECT_TRUE(keys.has(64));
  EXPECT_FALSE(keys.has(65));
  EXPECT_FALSE(keys.has(kNoId));
  std::vector<Id> ids = {1};
  keys.first(2, ids);
  EXPECT_EQ(ids, (std::vector<Id>{3, 64}));
  keys.first(9, ids);
  EXPECT_EQ(ids, (std::vector<Id>{3, 64, 129}));
  expect_error(ErrorCode::invalid_argument, {"key 130", "130"}, [&] { keys.allow(130); });
}

}  // namespace
}  // namespace keyseek
