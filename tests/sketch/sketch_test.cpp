#include "keyseek/sketch.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <vector>

#include "file/temporary_directory.hpp"
#include "score/code_tile.hpp"
#include "search/block_scan.hpp"
#include "support/ood_data.hpp"
#include "support/reference.hpp"

namespace keyseek {
namespace {

using test::any;
using test::elements;
using test::expect_error;

/// Scores of all keys for each query, by the sketch: [queries, n].
Matrix<float> sketch_scores(const Sketch& sketch, MatrixView<float> queries) {
  EncodedQueries encoded;
  std::vector<float> scratch;
  BlockScanScratch blocks;
  Matrix<float> scores(queries.rows, sketch.size());
  for (std::size_t g = 0; g < queries.rows; ++g) {
    sketch.encode_queries(queries.slice(g, 1), encoded, scratch);
    Pool all;
    all.reset(sketch.size());
    scan_blocks(blocks_of(sketch), tile_of(encoded, 0, 1), &all, blocks);
    EXPECT_EQ(all.items().size(), sketch.size());
    for (const Ranked item : all.items()) scores.row(g)[id_of(item)] = score_of(item);
  }
  return scores;
}

/// <q, k - mean> of every pair.
Matrix<float> true_scores(const Matrix<float>& keys, MatrixView<float> queries) {
  std::vector<double> mean(keys.cols());
  for (std::size_t i = 0; i < keys.rows(); ++i)
    for (std::size_t j = 0; j < keys.cols(); ++j)
      mean[j] += double{keys.row(i)[j]} / static_cast<double>(keys.rows());
  Matrix<float> scores(queries.rows, keys.rows());
  for (std::size_t g = 0; g < queries.rows; ++g)
    for (std::size_t i = 0; i < keys.rows(); ++i) {
      double score = 0;
      for (std::size_t j = 0; j < keys.cols(); ++j)
        score += double{queries.row(g)[j]} * (double{keys.row(i)[j]} - mean[j]);
      scores.row(g)[i] = static_cast<float>(score);
    }
  return scores;
}

/// Share of the scores' power that the sketch gets wrong.
double loss(const Sketch& sketch, const Matrix<float>& keys, MatrixView<float> queries) {
  const Matrix<float> rough = sketch_scores(sketch, queries), fine = true_scores(keys, queries);
  double wrong = 0, all = 0;
  for (std::size_t i = 0; i < fine.rows() * fine.cols(); ++i) {
    wrong += std::pow(double{rough.data()[i]} - double{fine.data()[i]}, 2);
    all += std::pow(double{fine.data()[i]}, 2);
  }
  return wrong / all;
}

TEST(Sketch, OfAllCoordinatesHasTheScores) {
  const test::OodData data = test::make_ood_data();
  const Sketch sketch = Sketch::build(any(data.keys), data.training.train, {.dim = 4096});
  EXPECT_EQ(sketch.dim(), 32U);
  EXPECT_EQ(sketch.size(), 2000U);
  EXPECT_LT(loss(sketch, data.keys, data.test), 0.02);
}

TEST(Sketch, LeavesOutNoMoreThanTheResidual) {
  const test::OodData data = test::make_ood_data({.d = 80});
  std::size_t last = 80;
  for (const double residual : {0.02, 0.1, 0.3}) {
    const SketchParams params{.residual = residual, .ridge = 0.01};
    const Sketch sketch = Sketch::build(any(data.keys), data.training.train, params);
    EXPECT_EQ(sketch.dim() % 16, 0U);
    EXPECT_LE(sketch.dim(), last);
    last = sketch.dim();
    EXPECT_LT(loss(sketch, data.keys, data.test), 1.3 * residual + 0.02);
  }
  EXPECT_LT(last, 80U);
}

/// Share of the queries' best `k` keys that are among the pool by the sketch.
double found_in_pool(const Sketch& sketch, const Matrix<float>& keys, MatrixView<float> queries,
                     std::size_t k) {
  const Matrix<float> rough = sketch_scores(sketch, queries), fine = true_scores(keys, queries);
  std::size_t found = 0;
  for (std::size_t g = 0; g < queries.rows; ++g) {
    const auto order_by = [&](const Matrix<float>& scores, std::size_t most) {
      std::vector<Id> order(keys.rows());
      std::iota(order.begin(), order.end(), Id{0});
      std::sort(order.begin(), order.end(),
                [&](Id a, Id b) { return scores.row(g)[a] > scores.row(g)[b]; });
      order.resize(most);
      return order;
    };
    const std::vector<Id> pool = order_by(rough, sketch.pool(k));
    for (const Id best : order_by(fine, k))
      found += std::find(pool.begin(), pool.end(), best) != pool.end() ? 1U : 0U;
  }
  return static_cast<double>(found) / static_cast<double>(queries.rows * k);
}

TEST(Sketch, ItsPoolHoldsTheBestKeys) {
  const test::OodData data = test::make_ood_data({.d = 80});
  for (const double residual : {0.05, 0.3}) {
    const Sketch sketch =
        Sketch::build(any(data.keys), data.training.train, {.residual = residual});
    for (const std::size_t k : {1U, 10U, 40U, 100U}) {
      EXPECT_GE(sketch.pool(k), k);
      EXPECT_LT(sketch.pool(k), 1200U);
      EXPECT_GE(found_in_pool(sketch, data.keys, data.test, k), 0.97) << residual << " k " << k;
    }
    EXPECT_NEAR(static_cast<double>(sketch.pool(200)), 2.0 * static_cast<double>(sketch.pool(100)),
                2.0);
    EXPECT_EQ(sketch.pool(5000), 2000U);
  }
}

TEST(Sketch, SeesWhatTheQueriesSee) {
  // Keys vary most where no query looks: their own principal components would be those.
  test::OodData data = test::make_ood_data({.d = 48});
  for (std::size_t i = 0; i < data.keys.rows(); ++i)
    for (std::size_t j = 0; j < 16; ++j) data.keys.row(i)[j] *= 30.0F;
  for (Matrix<float>* queries : {&data.training.train, &data.test})
    for (std::size_t i = 0; i < queries->rows(); ++i)
      for (std::size_t j = 0; j < 16; ++j) queries->row(i)[j] *= 1e-4F;
  const SketchParams params{.dim = 32, .ridge = 0};
  EXPECT_LT(loss(Sketch::build(any(data.keys), data.training.train, params), data.keys, data.test),
            0.02);
  const Matrix<float> everywhere = test::normal_matrix(600, 48, 1);
  EXPECT_GT(loss(Sketch::build(any(data.keys), everywhere, params), data.keys, data.test), 0.1);
}

TEST(Sketch, ARidgeKeepsDirectionsThatNoQueryLookedAlong) {
  test::OodData data = test::make_ood_data({.d = 48});
  for (std::size_t i = 0; i < data.training.train.rows(); ++i)
    for (std::size_t j = 0; j < 8; ++j) data.training.train.row(i)[j] = 0;
  Matrix<float> novel(4, 48);  // looks nowhere else
  for (std::size_t g = 0; g < 4; ++g) novel.row(g)[2 * g] = 1;
  const auto loss_with = [&](double ridge) {
    const SketchParams params{.dim = 32, .ridge = ridge};
    return loss(Sketch::build(any(data.keys), data.training.train, params), data.keys, novel);
  };
  EXPECT_LT(loss_with(0.5), 0.5 * loss_with(0));
}

TEST(Sketch, GrownInTheSameCoordinates) {
  const test::OodData data = test::make_ood_data({.n = 777});
  for (const std::size_t first : {1U, 16U, 500U}) {
    const Sketch some =
        Sketch::build(any(data.keys.view().slice(0, first)), data.training.train, {.dim = 16});
    const Sketch grown = some.appended(any(data.keys.view().slice(first, 777 - first)));
    ASSERT_EQ(grown.size(), 777U);
    const auto queries = data.test.view().slice(0, 2);
    const Matrix<float> before = sketch_scores(some, queries),
                        after = sketch_scores(grown, queries);
    for (std::size_t g = 0; g < 2; ++g)
      for (std::size_t i = 0; i < first; ++i) ASSERT_EQ(after.row(g)[i], before.row(g)[i]);
    // A sketch of few keys knows little of the others, one of 500 nearly all.
    if (first == 500) {
      EXPECT_LT(loss(grown, data.keys, data.test), 0.1);
    }
  }
}

TEST(Sketch, IsTheSameAtAnyNumberOfThreads) {
  const test::OodData data = test::make_ood_data();
  const auto one = Sketch::build(any(data.keys), data.training.train, {}, {.threads = 1}).parts();
  const auto four = Sketch::build(any(data.keys), data.training.train, {}, {.threads = 4}).parts();
  EXPECT_EQ(elements(one.codes), elements(four.codes));
  EXPECT_EQ(elements(one.scales), elements(four.scales));
}

TEST(Sketch, OddInputWorks) {
  const auto works = [](const Matrix<float>& keys, const Matrix<float>& queries) {
    const Sketch sketch = Sketch::build(any(keys), queries);
    const Matrix<float> scores = sketch_scores(sketch, queries);
    for (std::size_t i = 0; i < scores.rows() * scores.cols(); ++i)
      ASSERT_TRUE(std::isfinite(scores.data()[i]));
  };
  works(test::normal_matrix(100, 1, 1), test::normal_matrix(10, 1, 2));
  works(test::normal_matrix(1, 20, 1), test::normal_matrix(1, 20, 2));
  works(test::normal_matrix(40, 20, 1), Matrix<float>(5, 20));  // queries that are zero
  works(Matrix<float>(40, 20), test::normal_matrix(5, 20, 2));  // keys that are
  Matrix<float> large = test::normal_matrix(40, 20, 3), small = large;
  for (std::size_t i = 0; i < 800; ++i) large.data()[i] *= 1e15F;
  for (std::size_t i = 0; i < 800; ++i) small.data()[i] *= 1e-15F;
  works(large, small);
  works(small, large);
}

TEST(Sketch, BadInputIsRefused) {
  const Matrix<float> keys = test::normal_matrix(50, 20, 1),
                      queries = test::normal_matrix(9, 20, 2);
  const auto refused = [&](ErrorCode code, const std::vector<std::string>& parts,
                           const Matrix<float>& k, const Matrix<float>& q,
                           const SketchParams& params = {}) {
    expect_error(code, parts, [&] { (void)Sketch::build(any(k), q, params); });
  };
  const auto invalid = ErrorCode::invalid_argument;
  refused(invalid, {"keys is empty"}, Matrix<float>(0, 20), queries);
  refused(invalid, {"queries is empty"}, keys, Matrix<float>(0, 20));
  refused(invalid, {"dimension 19", "20"}, keys, test::normal_matrix(9, 19, 2));
  refused(invalid, {"sketch.dim is 5000"}, keys, queries, {.dim = 5000});
  refused(invalid, {"sketch.residual is 1"}, keys, queries, {.residual = 1});
  refused(invalid, {"sketch.ridge is -1"}, keys, queries, {.ridge = -1});
  Matrix<float> bad = queries;
  bad.row(3)[1] = std::numeric_limits<float>::quiet_NaN();
  refused(ErrorCode::not_finite, {"queries row 3"}, keys, bad);
  const Sketch sketch = Sketch::build(any(keys), queries);
  expect_error(invalid, {"dimension 19", "20"},
               [&] { (void)sketch.appended(any(test::normal_matrix(2, 19, 1))); });
  EncodedQueries encoded;
  std::vector<float> scratch;
  expect_error(invalid, {"empty"}, [&] { Sketch().encode_queries(queries, encoded, scratch); });
}

TEST(Sketch, PartsThatDoNotMatchAreCorrupt) {
  const Matrix<float> keys = test::normal_matrix(50, 20, 1),
                      queries = test::normal_matrix(9, 20, 2);
  const Sketch sketch = Sketch::build(any(keys), queries);
  EXPECT_EQ(Sketch::from_parts(sketch.parts(), 50).bytes(), sketch.bytes());
  const auto corrupt = [&](const std::string& fault, std::size_t n, auto change) {
    Sketch::Parts parts = sketch.parts();
    change(parts);
    expect_error(ErrorCode::corrupt, {"sketch", fault},
                 [&] { (void)Sketch::from_parts(std::move(parts), n); });
  };
  corrupt("codes do not match", 65, [](Sketch::Parts&) {});
  corrupt("a scale is wrong", 51, [](Sketch::Parts&) {});
  corrupt("no coordinates", 0, [](Sketch::Parts&) {});
  corrupt("keys' map", 50, [](Sketch::Parts& p) { p.mean = SharedArray<float>(); });
  corrupt("factor", 50, [](Sketch::Parts& p) { p.factor = 0; });
  corrupt("queries' map", 50, [](Sketch::Parts& p) { std::swap(p.query_map, p.key_map); });
}

}  // namespace
}  // namespace keyseek
