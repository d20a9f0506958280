// What all kinds of index have in common, asked of each: a new kind needs no test of its own for
// it.
#include <gtest/gtest.h>

#include <string>

#include "file/temporary_directory.hpp"
#include "keyseek/index.hpp"
#include "keyseek/measure.hpp"
#include "support/ood_data.hpp"
#include "support/random_data.hpp"
#include "support/reference.hpp"
#include "support/search_run.hpp"

namespace keyseek {
namespace {

using test::any;
using test::expect_error;

constexpr auto kInvalid = ErrorCode::invalid_argument;

class Kinds : public testing::TestWithParam<IndexKind> {
 protected:
  const test::OodData data = test::make_ood_data({.n = 900, .train_steps = 120});
  const AnyMatrix keys = AnyMatrix::copy_of(any(data.keys));
  const Index index = Index::build(GetParam(), keys, data.training);
};
INSTANTIATE_TEST_SUITE_P(All, Kinds, testing::ValuesIn(index_kinds()),
                         [](const auto& kind) { return std::string(to_string(kind.param)); });

TEST_P(Kinds, IsWhatItWasBuiltAs) {
  EXPECT_EQ(index.kind(), GetParam());
  EXPECT_EQ(index_kind_of(to_string(GetParam()), "kind"), GetParam());
  EXPECT_EQ(index.size(), 900U);
  EXPECT_EQ(index.dim(), data.keys.cols());
  EXPECT_EQ(index.bytes(), index.extra_bytes() + keys.bytes());
  EXPECT_FALSE(index.empty());
}

TEST_P(Kinds, SharesTheKeysThatItIsGiven) {
  EXPECT_EQ(index.keys().view().data, keys.view().data);
  const Index copied = Index::build(GetParam(), keys.view(), data.training);
  EXPECT_NE(copied.keys().view().data, keys.view().data);
  EXPECT_EQ(copied.to_bytes(), index.to_bytes());
}

TEST_P(Kinds, ComesBackFromFilesAndBytes) {
  const test::TemporaryDirectory folder;
  const auto path = folder / "index.ks";
  index.save(path);
  EXPECT_EQ(index_kind(path), GetParam());
  const Hits expected = test::search(index, data.step(0), {.k = 20});
  for (const Index& other : {Index::open(path), Index::open(path, FileMemory::mapped),
                             Index::from_bytes(index.to_bytes())}) {
    EXPECT_EQ(other.kind(), GetParam());
    EXPECT_EQ(other.to_bytes(), index.to_bytes());
    test::expect_same(test::search(other, data.step(0), {.k = 20}), expected);
  }
}

TEST_P(Kinds, GrowsWithTrainingQueriesAndWithout) {
  for (const MatrixView<float> training : {MatrixView<float>(), data.training.train.view()}) {
    Index grown = index;
    const Matrix<float> more = test::normal_matrix(40, data.keys.cols(), 3);
    grown.append(any(more), training);
    EXPECT_EQ(grown.size(), 940U);
    EXPECT_EQ(index.size(), 900U);
    EXPECT_EQ(grown.kind(), GetParam());
    test::expect_valid(test::search(grown, data.step(1), {.k = 30}), grown.keys().view(),
                       data.step(1), 30);
  }
}

TEST_P(Kinds, IsMeasured) {
  const Measurement m =
      measure_steps(index, data.test, {.group = data.training.group, .search = {.k = 10}});
  EXPECT_GT(recall(exact_knn(keys.view(), data.test, {.k = 10}).ids, m.ids), 0.5);
}

TEST_P(Kinds, RefusesOptionsThatItCannotHonour) {
  const bool projection = GetParam() == IndexKind::projection;
  const auto search = [&] {
    (void)test::search(index, data.step(0), {.k = 5, .projection = {{.target_recall = 0.9}}});
  };
  if (projection) {
    EXPECT_NO_THROW(search());
  } else {
    expect_error(kInvalid, {"params.projection", std::string(to_string(GetParam()))}, search);
  }
  for (const IndexParams& params : {IndexParams(SketchParams()), IndexParams(ProjectionParams())}) {
    const bool own = params.index() == static_cast<std::size_t>(GetParam());
    const auto build = [&] { (void)Index::build(GetParam(), keys, data.training, params); };
    if (own) {
      EXPECT_NO_THROW(build());
    } else {
      expect_error(kInvalid, {"params", std::string(to_string(GetParam()))}, build);
    }
  }
}

TEST(Kinds, NamesOfNoKindAreRefused) {
  expect_error(kInvalid, {"--index is 'tree'", "flat, sketch, projection"},
               [] { (void)index_kind_of("tree", "--index"); });
}

TEST(Kinds, AnEmptyIndexSaysSo) {
  const Index none;
  EXPECT_TRUE(none.empty());
  const auto refused = [](auto body) { expect_error(kInvalid, {"Index is empty"}, body); };
  refused([&] { (void)none.kind(); });
  refused([&] { (void)none.size(); });
  refused([&] { (void)none.to_bytes(); });
  refused([&] { (void)none.search_batch(test::normal_matrix(1, 4, 1), 1, {.k = 1}); });
}

}  // namespace
}  // namespace keyseek
