// Input that says little: what no real head gives, and every kind of index answers all the same.
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <set>
#include <string>
#include <tuple>

#include "file/temporary_directory.hpp"
#include "keyseek/index.hpp"
#include "support/indexes.hpp"
#include "support/random_data.hpp"
#include "support/reference.hpp"
#include "support/search_run.hpp"

namespace keyseek {
namespace {

using test::any;
using test::expect_error;
using test::normal_matrix;

constexpr std::size_t kKeys = 300, kDim = 12, kGroup = 2, kSteps = 10;

struct Problem {
  Matrix<float> keys, train, queries;
};

Problem ordinary(std::size_t n = kKeys, std::size_t d = kDim) {
  return {normal_matrix(n, d, 1), normal_matrix(80, d, 2), normal_matrix(kSteps * kGroup, d, 3)};
}

void scale(Matrix<float>& m, float by) {
  for (std::size_t i = 0; i < m.rows() * m.cols(); ++i) m.data()[i] *= by;
}

void make_zero(Matrix<float>& m, std::size_t row) { std::fill_n(m.row(row), m.cols(), 0.0F); }

Index build(IndexKind kind, const Problem& p) {
  TrainingQueries training;
  training.train = p.train;
  training.tuning = p.queries;
  training.group = kGroup;
  training.tuning_steps = kSteps;
  return Index::build(kind, any(p.keys), training);
}

/// Share of the hits that are as good as the k-th best key, in f64.
double quality(const Hits& hits, const Problem& p, std::size_t step) {
  const auto queries = p.queries.view().slice(step * kGroup, kGroup);
  const KnnLists truth = test::brute_force(any(p.keys), queries, hits.k);
  std::size_t good = 0;
  for (std::size_t g = 0; g < kGroup; ++g) {
    const Id last = truth.ids.row(g)[hits.k - 1];
    const auto kth = test::product(any(p.keys), last, queries.row(g));
    for (const Id id : hits.row_ids(g)) {
      const auto one = test::product(any(p.keys), id, queries.row(g));
      good += one.value >= kth.value - 1e-5 * kth.magnitude - 1e-44 ? 1 : 0;
    }
  }
  return static_cast<double>(good) / static_cast<double>(kGroup * hits.k);
}

/// Mean quality of a walk; every query has its k hits, all distinct, in order, with their scores.
double walk_quality(const Index& index, const Problem& p, std::size_t k, bool warm) {
  double sum = 0;
  SearchParams params{.k = k};
  if (index.kind() == IndexKind::projection) params.projection = {.target_recall = 0.99};
  const auto steps = test::walk(index, p.queries, kGroup, params, warm);
  for (std::size_t s = 0; s < steps.size(); ++s) {
    const auto queries = p.queries.view().slice(s * kGroup, kGroup);
    test::expect_valid(steps[s], any(p.keys), queries, k);
    EXPECT_EQ(steps[s].count, std::vector<std::size_t>(kGroup, k)) << (warm ? "warm" : "cold");
    sum += quality(steps[s], p, s);
  }
  return sum / static_cast<double>(steps.size());
}

class Degenerate : public testing::TestWithParam<IndexKind> {
 protected:
  /// Searched cold and warm, saved, loaded, searched again.
  void expect_right(const Problem& p, std::size_t k, double least = 0.9) {
    const Index index = build(GetParam(), p);
    for (const bool warm : {false, true})
      EXPECT_GE(walk_quality(index, p, k, warm), least) << (warm ? "warm" : "cold");
    const test::TemporaryDirectory folder;
    index.save(folder / "x.ks");
    const Index loaded = Index::open(folder / "x.ks");
    const auto first = p.queries.view().slice(0, kGroup);
    test::expect_same(test::search(loaded, first, {.k = k}), test::search(index, first, {.k = k}));
  }
};

INSTANTIATE_TEST_SUITE_P(Kinds, Degenerate, testing::ValuesIn(index_kinds()),
                         [](const auto& kind) { return std::string(to_string(kind.param)); });

TEST_P(Degenerate, ZeroTrainingQueries) {
  Problem p = ordinary();
  make_zero(p.train, 3);
  expect_right(p, 20);
  scale(p.train, 0.0F);
  expect_right(p, 20, 0.5);
}

TEST_P(Degenerate, FewKeys) {
  for (const std::size_t n : {1U, 2U, 3U, 17U}) {
    SCOPED_TRACE(n);
    expect_right(ordinary(n), 1);
    expect_right(ordinary(n), n);
  }
}

TEST_P(Degenerate, OneDimension) {
  for (const std::size_t n : {1U, 40U, 300U}) {
    SCOPED_TRACE(n);
    expect_right(ordinary(n, 1), n > 10 ? 10 : 1);
  }
}

TEST_P(Degenerate, EqualKeysTieByTheSmallerId) {
  for (const float value : {0.0F, 1.0F, 0.1F, -1e30F}) {
    SCOPED_TRACE(value);
    Problem p = ordinary();
    std::fill_n(p.keys.data(), kKeys * kDim, value);
    expect_right(p, 20);
    const auto index = build(GetParam(), p);
    const Hits hits = test::search(index, p.queries.view().slice(0, kGroup), {.k = 20});
    for (std::size_t r = 0; r < 20; ++r) EXPECT_EQ(hits.ids[r], r);
  }
}

TEST_P(Degenerate, SomeZeroKeysAndRepeatedOnes) {
  Problem p = ordinary();
  for (std::size_t i = 0; i < kKeys; i += 3) make_zero(p.keys, i);
  for (std::size_t i = 1; i < kKeys; i += 3) std::copy_n(p.keys.row(1), kDim, p.keys.row(i));
  expect_right(p, 20);
}

TEST_P(Degenerate, AZeroQueryHasTheFirstKeys) {
  Problem p = ordinary();
  for (std::size_t i = 0; i < p.queries.rows(); i += 2) make_zero(p.queries, i);
  const auto index = build(GetParam(), p);
  for (const bool warm : {false, true}) {
    EXPECT_GE(walk_quality(index, p, 20, warm), 0.9);
    for (const Hits& hits : test::walk(index, p.queries, kGroup, {.k = 20}, warm))
      for (std::size_t r = 0; r < 20; ++r) EXPECT_EQ(hits.ids[r], r);
  }
}

TEST_P(Degenerate, ZeroesAfterAnOrdinaryStep) {
  Problem p = ordinary();
  for (std::size_t i = kGroup; i < p.queries.rows(); ++i) make_zero(p.queries, i);
  expect_right(p, 20);
}

/// Recall is that of the same vectors at their own size.
TEST_P(Degenerate, NumbersOfAnySize) {
  for (const float of_keys : {1e-30F, 1e-20F, 1e-8F, 1e-3F, 1e8F, 1e20F, 1e30F}) {
    for (const float of_queries : {1e-30F, 1e-8F, 1.0F, 1e8F, 1e30F}) {
      if (of_keys * of_queries > 1e36F || of_keys * of_queries < 1e-36F) continue;
      SCOPED_TRACE(std::to_string(std::log10(of_keys)) + " " +
                   std::to_string(std::log10(of_queries)));
      Problem p = ordinary();
      scale(p.keys, of_keys);
      scale(p.train, of_queries);
      scale(p.queries, of_queries);
      expect_right(p, 20);
      p.train = ordinary().train;  // of another size than what is asked
      expect_right(p, 20);
    }
  }
}

TEST_P(Degenerate, QueriesOfAGroupThatDifferInSize) {
  Problem p = ordinary();
  for (std::size_t i = 0; i < p.queries.rows(); i += 2)
    for (std::size_t j = 0; j < kDim; ++j) p.queries.row(i)[j] *= 1e-28F;
  for (std::size_t j = 0; j < kDim; ++j) p.train.row(5)[j] *= 1e25F;
  expect_right(p, 20);
}

TEST_P(Degenerate, Subnormals) {
  Problem p = ordinary();
  scale(p.keys, 1e-38F);
  expect_right(p, 20, 0.8);
  p = ordinary();
  scale(p.train, 1e-39F);
  scale(p.queries, 1e-39F);
  expect_right(p, 20, 0.8);
}

TEST_P(Degenerate, ProductsBeyondF32AreRefused) {
  Problem p = ordinary();
  scale(p.keys, 1e25F);
  const auto index = build(GetParam(), p);
  Matrix<float> queries = normal_matrix(kGroup, kDim, 4);
  scale(queries, 1e14F);
  expect_error(ErrorCode::invalid_argument, {"queries row 0", "f32"},
               [&] { (void)test::search(index, queries, {.k = 5}); });
  Problem huge = ordinary();
  huge.keys.row(7)[2] = std::numeric_limits<float>::max();
  expect_error(ErrorCode::invalid_argument, {"keys row 7", "scale"},
               [&] { (void)build(GetParam(), huge); });
  auto grown = build(GetParam(), ordinary());
  expect_error(ErrorCode::invalid_argument, {"keys row 7", "scale"},
               [&] { grown.append(any(huge.keys)); });
  EXPECT_EQ(grown.size(), kKeys);
}

TEST_P(Degenerate, TrainingQueriesBeyondF32AreRefused) {
  if (GetParam() == IndexKind::flat) return;  // has none
  Problem p = ordinary();
  scale(p.keys, 1e20F);
  for (std::size_t j = 0; j < kDim; ++j) p.train.row(9)[j] *= 1e25F;
  expect_error(ErrorCode::invalid_argument, {"row 9", "f32"}, [&] { (void)build(GetParam(), p); });
}

TEST_P(Degenerate, OneHugeChannelThatQueriesDoNotSee) {
  Problem p = ordinary();
  for (std::size_t i = 0; i < kKeys; ++i) p.keys.row(i)[4] *= 1e8F;
  for (Matrix<float>* m : {&p.train, &p.queries})
    for (std::size_t i = 0; i < m->rows(); ++i) m->row(i)[4] = 0;
  if (GetParam() == IndexKind::flat) return;  // knows no queries
  expect_right(p, 20);
}

TEST_P(Degenerate, NegativeZerosAreZeros) {
  Problem p = ordinary();
  for (std::size_t i = 0; i < kKeys * kDim; i += 2) p.keys.data()[i] = -0.0F;
  for (std::size_t j = 0; j < kDim; ++j) p.queries.row(0)[j] = -0.0F;
  expect_right(p, 20);
}

TEST_P(Degenerate, AppendedKeysOfAnotherSize) {
  for (const float size : {1e-20F, 1e20F}) {
    Problem p = ordinary();
    auto index = build(GetParam(), p);
    Matrix<float> more = normal_matrix(50, kDim, 9);
    scale(more, size);
    index.append(any(more), p.train);
    Problem all = p;
    all.keys = Matrix<float>(kKeys + 50, kDim);
    std::copy_n(p.keys.data(), kKeys * kDim, all.keys.data());
    std::copy_n(more.data(), 50 * kDim, all.keys.row(kKeys));
    EXPECT_GE(walk_quality(index, all, 20, false), 0.9) << size;
  }
}

TEST_P(Degenerate, MoreHitsThanListsName) {
  const Problem p = ordinary();
  const auto index = build(GetParam(), p);
  SearchParams params{.k = 290};
  if (index.kind() == IndexKind::projection)
    params.projection = {.dials = Dials{.probes = 1, .lists = 1, .expand = 0}};
  const Hits hits = test::search(index, p.queries.view().slice(0, kGroup), params);
  EXPECT_EQ(hits.count, std::vector<std::size_t>(kGroup, 290));
}

/// Sums of 8-bit products that would not fit 32 bits: refused, never wrapped.
TEST_P(Degenerate, ManyDimensions) {
  constexpr std::size_t kMost = 133'000;
  Problem p{Matrix<float>(4, kMost), Matrix<float>(2, kMost),
            Matrix<float>(kSteps * kGroup, kMost)};
  for (std::size_t j = 0; j < kMost; ++j) {
    for (std::size_t i = 0; i < 4; ++i) p.keys.row(i)[j] = i % 2 == 0 ? 1.0F : -1.0F;
    p.train.row(0)[j] = p.train.row(1)[j] = 1.0F;
    for (std::size_t q = 0; q < p.queries.rows(); ++q) p.queries.row(q)[j] = q % 2 == 0 ? 1 : -1;
  }
  const auto index = build(GetParam(), p);
  const Hits hits = test::search(index, p.queries.view().slice(0, kGroup), {.k = 2});
  EXPECT_EQ(hits.ids, (std::vector<Id>{0, 2, 1, 3}));
  const Problem more{Matrix<float>(4, kMost + 1), Matrix<float>(2, kMost + 1),
                     Matrix<float>(kSteps * kGroup, kMost + 1)};
  expect_error(ErrorCode::invalid_argument, {"133001", "133000"},
               [&] { (void)build(GetParam(), more); });
}

}  // namespace
}  // namespace keyseek
