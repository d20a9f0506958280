// Euclidean distance and cosine: every kind of index against distances in double precision.
#include "keyseek/metric.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "file/temporary_directory.hpp"
#include "keyseek/index.hpp"
#include "support/random_data.hpp"

namespace keyseek {
namespace {

using test::expect_error;
using test::normal_matrix;
using test::TemporaryDirectory;

constexpr std::size_t kDim = 24, kKeys = 900;

/// Keys whose lengths differ much, so that an inner product would order them otherwise.
Matrix<float> uneven(std::size_t rows, std::uint64_t seed) {
  Matrix<float> m = normal_matrix(rows, kDim, seed);
  Random random(seed + 1);
  for (std::size_t i = 0; i < rows; ++i) {
    const auto length = static_cast<float>(0.5 + 3 * random.uniform());
    for (std::size_t j = 0; j < kDim; ++j) m.row(i)[j] = length * m.row(i)[j] + 2.0F;
  }
  return m;
}

double value(Metric metric, const float* q, const float* x) {
  double product = 0, of_q = 0, of_x = 0, distance = 0;
  for (std::size_t j = 0; j < kDim; ++j) {
    product += double{q[j]} * x[j];
    of_q += double{q[j]} * q[j];
    of_x += double{x[j]} * x[j];
    distance += (double{q[j]} - x[j]) * (double{q[j]} - x[j]);
  }
  return metric == Metric::l2 ? distance : product / std::sqrt(of_q * of_x);
}

/// The k best by the definition.
Matrix<Id> truth(Metric metric, const Matrix<float>& keys, const Matrix<float>& queries,
                 std::size_t k) {
  Matrix<Id> ids(queries.rows(), k);
  std::vector<Id> order(keys.rows());
  for (std::size_t i = 0; i < queries.rows(); ++i) {
    std::vector<double> values(keys.rows());
    for (std::size_t j = 0; j < keys.rows(); ++j) {
      const double x = value(metric, queries.row(i), keys.row(j));
      values[j] = metric == Metric::l2 ? x : -x;
    }
    std::iota(order.begin(), order.end(), Id{0});
    std::stable_sort(order.begin(), order.end(), [&](Id a, Id b) { return values[a] < values[b]; });
    std::copy_n(order.begin(), k, ids.row(i));
  }
  return ids;
}

class Metrics : public testing::TestWithParam<Metric> {
 protected:
  [[nodiscard]] Index build(IndexKind kind) const {
    return Index::build(kind, AnyMatrixView::of(keys_.view()), training_, {}, {}, GetParam());
  }

  Matrix<float> keys_ = uneven(kKeys, 1), queries_ = uneven(40, 3);
  TrainingQueries training_ = {.train = uneven(800, 5), .tuning = uneven(60, 7), .tuning_steps = 1};
};

TEST_P(Metrics, EveryKindFindsTheNearest) {
  const Matrix<Id> best = truth(GetParam(), keys_, queries_, 10);
  for (const IndexKind kind : index_kinds()) {
    SCOPED_TRACE(to_string(kind));
    const Index index = build(kind);
    EXPECT_EQ(index.dim(), kDim);
    EXPECT_EQ(index.metric(), GetParam());
    SearchParams params{.k = 10};
    if (kind == IndexKind::projection) params.projection = {.target_recall = 0.995};
    const BatchHits found = index.search_batch(queries_, 1, params);
    EXPECT_GE(recall(best, found.ids), 0.97);
    for (std::size_t i = 0; i < found.ids.rows(); ++i) {
      for (std::size_t r = 0; r < 10; ++r) {
        const double exact = value(GetParam(), queries_.row(i), keys_.row(found.ids.row(i)[r]));
        EXPECT_NEAR(found.scores.row(i)[r], exact, 1e-5 * std::abs(exact) + 1e-6);
        if (r == 0) continue;
        const float before = found.scores.row(i)[r - 1], here = found.scores.row(i)[r];
        EXPECT_TRUE(GetParam() == Metric::l2 ? before <= here : before >= here);
      }
    }
  }
}

TEST_P(Metrics, SavedAppendedAndTruncated) {
  const TemporaryDirectory directory;
  Index index = Index::build(IndexKind::flat, AnyMatrixView::of(keys_.view()).slice(0, 500), {}, {},
                             {}, GetParam());
  index.append(AnyMatrixView::of(keys_.view()).slice(500, 400));
  index.save(directory / "x.ks");
  const Index opened = Index::open(directory / "x.ks", FileMemory::mapped);
  EXPECT_EQ(opened.metric(), GetParam());
  EXPECT_EQ(opened.dim(), kDim);
  EXPECT_GE(recall(truth(GetParam(), keys_, queries_, 10),
                   opened.search_batch(queries_, 1, {.k = 10}).ids),
            0.97);
  index.truncate(3);
  const BatchHits left = index.search_batch(queries_, 1, {.k = 3});
  EXPECT_EQ(recall(truth(GetParam(), keys_, queries_, kKeys), left.ids) * kKeys, 3.0);
  EXPECT_EQ(Index::from_bytes(index.to_bytes()).metric(), GetParam());
}

TEST_P(Metrics, WhatMakesNoSenseIsRefused) {
  const Index index = build(IndexKind::flat);
  SearchScratch scratch;
  Hits hits;
  const auto code = ErrorCode::invalid_argument;
  expect_error(code, {"beta is 1"},
               [&] { index.search(queries_.view().slice(0, 1), {.beta = 1.0F}, scratch, hits); });
  expect_error(code, {"dimension 3", "has 24"},
               [&] { index.search(normal_matrix(1, 3, 1), {}, scratch, hits); });
  Matrix<float> bad = uneven(2, 9);
  bad.row(1)[2] = std::numeric_limits<float>::quiet_NaN();
  expect_error(ErrorCode::not_finite, {"queries", "row 1"},
               [&] { index.search(bad, {.k = 1}, scratch, hits); });
  TrainingQueries lists = training_;
  lists.lists = Matrix<Id>(lists.train.rows(), 1);
  expect_error(code, {"training.lists"}, [&] {
    (void)Index::build(IndexKind::projection, AnyMatrixView::of(keys_.view()), lists, {}, {},
                       GetParam());
  });
  if (GetParam() != Metric::cosine) return;
  Matrix<float> zero = uneven(3, 9);
  std::fill_n(zero.row(1), kDim, 0.0F);
  expect_error(code, {"keys", "row 1 is zero"}, [&] {
    (void)Index::build(IndexKind::flat, AnyMatrixView::of(zero.view()), {}, {}, {}, GetParam());
  });
  expect_error(code, {"queries", "row 1 is zero"},
               [&] { index.search(zero, {.k = 1}, scratch, hits); });
}

INSTANTIATE_TEST_SUITE_P(All, Metrics, testing::Values(Metric::l2, Metric::cosine),
                         [](const auto& one) { return std::string(to_string(one.param)); });

TEST(MetricSpace, TheInnerProductChangesNothing) {
  const Matrix<float> keys = uneven(20, 1);
  const auto view = AnyMatrixView::of(keys.view());
  const Index plain = Index::build(IndexKind::flat, view);
  EXPECT_EQ(plain.metric(), Metric::ip);
  EXPECT_EQ(Index::build(IndexKind::flat, view, {}, {}, {}, Metric::ip).to_bytes(),
            plain.to_bytes());
}

TEST(MetricSpace, DistancesOfNearKeysKeepTheirDigits) {
  // Far from the origin the inner products lose what tells the keys apart; the distances do not.
  Matrix<float> keys = normal_matrix(50, kDim, 1);
  for (std::size_t i = 0; i < 50 * kDim; ++i) keys.data()[i] += 100.0F;
  const Index index =
      Index::build(IndexKind::flat, AnyMatrixView::of(keys.view()), {}, {}, {}, Metric::l2);
  SearchScratch scratch;
  Hits hits;
  index.search(keys.view().slice(7, 1), {.k = 5}, scratch, hits);
  EXPECT_EQ(hits.ids[0], 7U);
  EXPECT_EQ(hits.scores[0], 0.0F);
}

TEST(MetricSpace, NamesAndNumbersAreChecked) {
  EXPECT_EQ(metric_of("l2", "metric"), Metric::l2);
  expect_error(ErrorCode::invalid_argument, {"--metric is 'l1'", "ip, l2, cosine"},
               [] { (void)metric_of("l1", "--metric"); });
  expect_error(ErrorCode::invalid_argument, {"w is 0"},
               [] { (void)MetricSpace::of(Metric::l2, 0.0); });
  Matrix<float> large(1, 2);
  large.row(0)[0] = 1e20F;
  expect_error(ErrorCode::invalid_argument, {"keys: row 0 is too long"}, [&] {
    (void)MetricSpace::of(Metric::l2, 1.0).keys(AnyMatrixView::of(large.view()));
  });
}

}  // namespace
}  // namespace keyseek
