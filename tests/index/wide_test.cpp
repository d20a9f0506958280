// Many dimensions: what would be cubic in them is neither done nor missed.
#include <gtest/gtest.h>

#include <cmath>
#include <numeric>

#include "file/temporary_directory.hpp"
#include "keyseek/index.hpp"
#include "router/query_map.hpp"
#include "sketch/maps.hpp"
#include "support/indexes.hpp"
#include "support/ood_data.hpp"
#include "support/reference.hpp"
#include "support/search_run.hpp"

namespace keyseek {
namespace {

using test::any;

constexpr std::size_t kDim = 704;  // above what is decomposed fully

/// With channels that fall off, so that few directions hold nearly everything.
test::OodData falling(std::size_t n) {
  test::OodData data = test::make_ood_data({.n = n, .d = kDim, .test_steps = 20});
  for (Matrix<float>* m : {&data.keys, &data.training.train, &data.training.tuning, &data.test})
    for (std::size_t i = 0; i < m->rows(); ++i)
      for (std::size_t j = 0; j < kDim; ++j) m->row(i)[j] /= 1.0F + 0.03F * static_cast<float>(j);
  return data;
}

constexpr double kResidual = 0.05;

SketchMaps wanted(const SketchAxes& axes) { return axes.leading(axes.wanted); }

/// Share of sum (q.k)^2 over centred keys that the maps leave out.
double left_out(const SketchMaps& maps, const Matrix<float>& keys, const Matrix<float>& queries) {
  std::vector<double> mean(kDim);
  for (std::size_t i = 0; i < keys.rows(); ++i)
    for (std::size_t j = 0; j < kDim; ++j)
      mean[j] += double{keys.row(i)[j]} / static_cast<double>(keys.rows());
  const auto centred = [&](std::size_t i, std::size_t j) {
    return double{keys.row(i)[j]} - mean[j];
  };
  std::vector<std::vector<double>> of_queries;
  for (std::size_t q = 0; q < queries.rows(); q += 5) {
    std::vector<double>& coordinates = of_queries.emplace_back(maps.keys.rows());
    for (std::size_t r = 0; r < coordinates.size(); ++r)
      for (std::size_t j = 0; j < kDim; ++j)
        coordinates[r] += double{maps.factor} * double{to_float(maps.queries.row(r)[j])} *
                          double{queries.row(q)[j]};
  }
  double off = 0, all = 0;
  for (std::size_t i = 0; i < keys.rows(); i += 17) {
    std::vector<double> of_key(maps.keys.rows());
    for (std::size_t r = 0; r < of_key.size(); ++r)
      for (std::size_t j = 0; j < kDim; ++j)
        of_key[r] += double{maps.keys.row(r)[j]} * centred(i, j);
    for (std::size_t q = 0; q < of_queries.size(); ++q) {
      double truth = 0;
      for (std::size_t j = 0; j < kDim; ++j) truth += double{queries.row(5 * q)[j]} * centred(i, j);
      const double seen =
          std::inner_product(of_key.begin(), of_key.end(), of_queries[q].begin(), 0.0);
      off += (seen - truth) * (seen - truth);
      all += truth * truth;
    }
  }
  return off / all;
}

TEST(WideCoordinates, LeaveOutNoMoreThanExactOnes) {
  for (const std::size_t n : {300U, 700U, 2000U}) {
    SCOPED_TRACE(n);
    const test::OodData data = falling(n);
    const SketchParams params = {.residual = kResidual};
    const auto exact = wanted(exact_axes(any(data.keys), data.training.train, params, {}));
    const auto wide = wanted(wide_axes(any(data.keys), data.training.train, params, {}));
    EXPECT_LE(left_out(wide, data.keys, data.test), kResidual);
    EXPECT_LE(left_out(wide, data.keys, data.test), 1.2 * left_out(exact, data.keys, data.test));
    EXPECT_LE(wide.keys.rows(), exact.keys.rows() + 32);
    EXPECT_LT(wide.keys.rows(), kDim / 2);
  }
}

TEST(WideCoordinates, AreAsManyAsAskedFor) {
  const test::OodData data = falling(800);
  const auto maps = wanted(wide_axes(any(data.keys), data.training.train, {.dim = 40}, {}));
  EXPECT_EQ(maps.keys.rows(), 40U);
  EXPECT_EQ(maps.queries.rows(), 40U);
}

/// Where every direction counts, no direction is left out.
TEST(WideCoordinates, AreChannelsWhereFewWouldNotDo) {
  const Matrix<float> keys = test::normal_matrix(2000, kDim, 1),
                      queries = test::normal_matrix(300, kDim, 2);
  const auto maps = wanted(wide_axes(any(keys), queries, {}, {}));
  EXPECT_EQ(maps.keys.rows(), kDim);
  EXPECT_LE(left_out(maps, keys, queries), 1e-5);
}

TEST(WideCoordinates, OfKeysThatAreAllTheSame) {
  Matrix<float> keys(900, kDim);
  std::fill_n(keys.data(), 900 * kDim, 0.3F);
  const auto index = test::sketch_index(any(keys), test::normal_matrix(50, kDim, 2));
  EXPECT_LE(test::fact(index, "sketch_dim"), 16U);
  const Hits hits = test::search(index, test::normal_matrix(1, kDim, 3), {.k = 5});
  EXPECT_EQ(hits.ids, (std::vector<Id>{0, 1, 2, 3, 4}));
}

TEST(WideIndex, FindsWhatItShould) {
  const test::OodData data = falling(2000);
  const auto truth = exact_knn(any(data.keys), data.test, {.k = 20}).ids;
  const auto sketch = test::sketch_index(any(data.keys), data.training.train);
  const auto projection = test::projection_index(any(data.keys), data.training);
  for (const bool warm : {false, true}) {
    EXPECT_GE(test::outcome(test::walk(sketch, data.test, 2, {.k = 20}, warm), truth, 2000).recall,
              0.99);
    const auto steps = test::walk(projection, data.test, 2,
                                  {.k = 20, .projection = {{.target_recall = 0.98}}}, warm);
    const auto found = test::outcome(steps, truth, 2000);
    EXPECT_GE(found.recall, 0.97);
    EXPECT_LE(found.scanned_fraction, 0.25);
  }
}

TEST(WideIndex, IsTheSameAtAnyNumberOfThreads) {
  const test::OodData data = falling(1500);
  const test::TemporaryDirectory folder;
  std::vector<test::Bytes> sketches, projections;
  for (const int threads : {1, 3}) {
    test::sketch_index(any(data.keys), data.training.train, {}, {.threads = threads})
        .save(folder / "s.ks");
    test::projection_index(any(data.keys), data.training, {}, {.threads = threads})
        .save(folder / "p.ks");
    sketches.push_back(test::read_bytes(folder / "s.ks"));
    projections.push_back(test::read_bytes(folder / "p.ks"));
  }
  EXPECT_EQ(sketches[0], sketches[1]);
  EXPECT_EQ(projections[0], projections[1]);
}

TEST(WideIndex, CanBeCancelledWhileItLooksForDirections) {
  const test::OodData data = falling(1500);
  for (const std::string_view stage : {"finding coordinates", "projecting queries"}) {
    std::size_t calls = 0;
    Execution run{.threads = 1, .progress = {}};
    run.progress = [&](std::string_view at, std::size_t, std::size_t) {
      calls += at == stage ? 1 : 0;
      return at != stage;
    };
    test::expect_error(ErrorCode::cancelled, {std::string(stage)}, [&] {
      if (stage == "finding coordinates") {
        (void)test::sketch_index(any(data.keys), data.training.train, {}, run);
      } else {
        (void)test::projection_index(any(data.keys), data.training, {}, run);
      }
    });
    EXPECT_EQ(calls, 1U);
  }
}

TEST(QueryProjection, OfManyDimensionsTellsQueriesApartAsTheExactOneDoes) {
  // The same vectors, padded with zeros beyond what is decomposed fully.
  const test::OodData data = test::make_ood_data({.n = 800, .d = 64});
  const auto padded = [](const Matrix<float>& m) {
    Matrix<float> out(m.rows(), kDim);
    for (std::size_t i = 0; i < m.rows(); ++i) std::copy_n(m.row(i), m.cols(), out.row(i));
    return out;
  };
  const auto cosine = [](const Matrix<Half>& map, const float* a, const float* b) {
    double ab = 0, aa = 0, bb = 0;
    for (std::size_t r = 0; r < map.rows(); ++r) {
      double x = 0, y = 0;
      for (std::size_t j = 0; j < map.cols(); ++j) {
        x += double{to_float(map.row(r)[j])} * double{a[j]};
        y += double{to_float(map.row(r)[j])} * double{b[j]};
      }
      ab += x * y;
      aa += x * x;
      bb += y * y;
    }
    return ab / std::sqrt(aa * bb);
  };
  const Matrix<float>& train = data.training.train;
  const Matrix<float> wide_train = padded(train);
  const auto exact = query_map_of(any(data.keys), train, 32, {});
  const auto wide = query_map_of(any(padded(data.keys)), wide_train, 32, {});
  for (std::size_t i = 1; i < 100; ++i) {
    EXPECT_NEAR(cosine(wide, wide_train.row(0), wide_train.row(i)),
                cosine(exact, train.row(0), train.row(i)), 0.02);
  }
}

}  // namespace
}  // namespace keyseek
