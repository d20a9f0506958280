#include "keyseek/router.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <set>

#include "file/temporary_directory.hpp"
#include "keyseek/knn.hpp"
#include "router/clustering.hpp"
#include "support/ood_data.hpp"
#include "support/random_data.hpp"
#include "support/reference.hpp"

namespace keyseek {
namespace {

using test::any;
using test::elements;
using test::expect_error;

constexpr auto kInvalid = ErrorCode::invalid_argument;

std::vector<Id> list(const Router& router, std::size_t query) {
  std::vector<Id> ids;
  router.append_list(static_cast<std::uint32_t>(query), ids);
  return ids;
}

std::vector<std::vector<Id>> sorted_lists(const Router& router) {
  std::vector<std::vector<Id>> all;
  for (std::size_t q = 0; q < router.queries(); ++q) all.push_back(list(router, q));
  std::sort(all.begin(), all.end());
  return all;
}

/// Each query's list holds the number of the query only: the router says whom it found.
Matrix<Id> numbered(std::size_t m, std::size_t first = 0) {
  Matrix<Id> lists(m, 1);
  std::iota(lists.data(), lists.data() + m, static_cast<Id>(first));
  return lists;
}

/// Coordinates of queries as the router sees them, of unit length, in f64.
std::vector<std::vector<double>> coordinates(MatrixView<float> queries, const Router& router) {
  std::vector<std::vector<double>> rows;
  for (std::size_t i = 0; i < queries.rows; ++i) {
    std::vector<double> row;
    double power = 0;
    for (std::size_t r = 0; r < router.dim(); ++r) {
      row.push_back(test::product(router.parts().query_map.view(), r, queries.row(i)).value);
      power += row.back() * row.back();
    }
    for (double& x : row) x /= std::sqrt(power);
    rows.push_back(row);
  }
  return rows;
}

double similarity(const std::vector<double>& a, const std::vector<double>& b) {
  return std::inner_product(a.begin(), a.end(), b.begin(), 0.0);
}

TEST(Router, FindsTheNearestTrainingQueries) {
  const test::OodData data = test::make_ood_data();
  const Matrix<float>& train = data.training.train;
  const RouterParams params = {.dim = 24, .queries_per_key = 10};
  const Router router = Router::build(train, numbered(train.rows()), any(data.keys), params);
  ASSERT_EQ(router.queries(), train.rows());
  ASSERT_EQ(router.dim(), 24U);
  const auto trained = coordinates(train, router);
  const auto asked = coordinates(data.test, router);
  RouteScratch scratch;
  constexpr std::size_t kCount = 5, kStep = 7;  // a group of 7: no whole tiles
  for (std::size_t first = 0; first + kStep <= data.test.rows(); first += kStep) {
    const auto near =
        router.nearest(data.test.view().slice(first, kStep), router.clusters(), kCount, scratch);
    ASSERT_EQ(near.size(), kStep * kCount);
    for (std::size_t g = 0; g < kStep; ++g) {
      std::vector<double> truth;
      for (const auto& row : trained) truth.push_back(similarity(row, asked[first + g]));
      std::vector<double> found;
      for (std::size_t i = 0; i < kCount; ++i)
        found.push_back(truth[list(router, near[g * kCount + i]).at(0)]);
      std::sort(found.begin(), found.end(), std::greater<>());
      std::sort(truth.begin(), truth.end(), std::greater<>());
      // 8-bit codes of 24 coordinates: similarities are off by a per cent at most.
      for (std::size_t i = 0; i < kCount; ++i) ASSERT_NEAR(found[i], truth[i], 0.01);
    }
  }
}

TEST(Router, FewProbesFindNearlyAll) {
  const test::OodData data = test::make_ood_data();
  const Matrix<float>& train = data.training.train;
  const Router router =
      Router::build(train, numbered(train.rows()), any(data.keys), {.queries_per_key = 10});
  ASSERT_GT(router.clusters(), 64U);
  RouteScratch scratch;
  std::size_t same = 0;
  for (std::size_t q = 0; q < data.test.rows(); ++q) {
    const auto few = router.nearest(data.test.view().slice(q, 1), 16, 4, scratch);
    const std::set<std::uint32_t> found(few.begin(), few.end());
    for (const auto near :
         router.nearest(data.test.view().slice(q, 1), router.clusters(), 4, scratch)) {
      same += found.count(near);
    }
  }
  EXPECT_GE(static_cast<double>(same), 0.9 * 4 * static_cast<double>(data.test.rows()));
}

TEST(Router, RowsArePaddedWhenThereAreTooFew) {
  const test::OodData data = test::make_ood_data({.n = 200});
  const MatrixView<float> few = data.training.train.view().slice(0, 5);
  const Router router = Router::build(few, numbered(5), any(data.keys));
  ASSERT_EQ(router.clusters(), 1U);
  RouteScratch scratch;
  const auto near = router.nearest(data.test.view().slice(0, 3), 9, 8, scratch);
  ASSERT_EQ(near.size(), 24U);
  for (std::size_t g = 0; g < 3; ++g) {
    std::set<std::uint32_t> row(near.begin() + static_cast<std::ptrdiff_t>(8 * g),
                                near.begin() + static_cast<std::ptrdiff_t>(8 * g + 8));
    EXPECT_EQ(row, (std::set<std::uint32_t>{0, 1, 2, 3, 4, kNoId}));
  }
}

TEST(Router, AQueryFindsItself) {
  const test::OodData data = test::make_ood_data({.n = 500, .group = 1, .train_steps = 300});
  const Matrix<float>& train = data.training.train;
  const Router router = Router::build(train, numbered(300), any(data.keys), {.queries_per_key = 1});
  RouteScratch scratch;
  std::size_t itself = 0;
  for (std::size_t q = 0; q < 300; ++q) {
    // Twice as long: the length of a query does not matter.
    Matrix<float> longer(1, train.cols());
    for (std::size_t j = 0; j < train.cols(); ++j) longer.row(0)[j] = 2.0F * train.row(q)[j];
    itself += list(router, router.nearest(longer, 300, 1, scratch)[0]).at(0) == q ? 1 : 0;
    EXPECT_NEAR(scratch.similarity.at(0), 1.0, 0.02);
  }
  EXPECT_GE(itself, 295U);
}

TEST(Router, ListsComeBackInOrderOfId) {
  constexpr std::size_t kKeys = 200000;
  const Matrix<float> keys = test::normal_matrix(kKeys, 2, 1),
                      queries = test::normal_matrix(6, 2, 2);
  Matrix<Id> lists(6, 5);
  const std::vector<std::vector<Id>> rows = {
      {199999, 0, 65535, 65534, 65536},                                          // any order
      {131070, 131071, 196605, kNoId, 7},                                        // whole multiples
      {199999, kNoId, 1, 2, 3},           {0, 1, 2, 3, 4}, {kNoId, 1, 2, 3, 4},  // nothing
      {65535, 131070, 196605, 196606, 1}};
  for (std::size_t q = 0; q < 6; ++q) std::copy(rows[q].begin(), rows[q].end(), lists.row(q));
  const Router router = Router::build(queries, lists, any(keys));
  std::vector<std::vector<Id>> expected = {
      {0, 65534, 65535, 65536, 199999},  {131070, 131071, 196605}, {199999}, {0, 1, 2, 3, 4}, {},
      {1, 65535, 131070, 196605, 196606}};
  std::sort(expected.begin(), expected.end());
  EXPECT_EQ(sorted_lists(router), expected);
  std::vector<Id> twice = {77};  // lists are appended
  router.append_list(0, twice);
  EXPECT_EQ(twice.at(0), 77U);
  EXPECT_EQ(twice.size(), 1 + list(router, 0).size());
  EXPECT_EQ(sorted_lists(Router::from_parts(router.parts(), kKeys)), expected);
}

TEST(Router, QueriesPerKeyBoundsTheMemory) {
  const test::OodData data = test::make_ood_data({.n = 400});
  const Matrix<float>& train = data.training.train;
  const auto kept = [&](double queries_per_key) {
    const Matrix<Id> lists(train.rows(), 1);
    return Router::build(train, lists, any(data.keys), {.queries_per_key = queries_per_key})
        .queries();
  };
  EXPECT_EQ(kept(0.5), 200U);
  EXPECT_EQ(kept(1e-9), 1U);
  EXPECT_EQ(kept(1e300), train.rows());
  EXPECT_EQ(kept(INFINITY), train.rows());
}

TEST(Router, ExtendedKeepsTheOldAndAddsTheNew) {
  const test::OodData data = test::make_ood_data();
  const MatrixView<float> train = data.training.train;
  const std::size_t m = train.rows - 100;
  const RouterParams params = {.queries_per_key = 10};
  const Router old = Router::build(train.slice(0, m), numbered(m), any(data.keys), params);
  const Router more = old.extended(train.slice(m, 100), numbered(100, m), data.keys.rows());
  EXPECT_EQ(more.queries(), m + 100);
  EXPECT_EQ(more.clusters(), old.clusters());
  EXPECT_EQ(elements(more.parts().centroids), elements(old.parts().centroids));
  EXPECT_EQ(old.queries(), m);
  std::vector<std::vector<Id>> expected;
  for (Id i = 0; i < m + 100; ++i) expected.push_back({i});
  EXPECT_EQ(sorted_lists(more), expected);
  RouteScratch scratch;
  std::size_t itself = 0;
  for (std::size_t q = m; q < m + 100; ++q) {
    itself += list(more, more.nearest(train.slice(q, 1), 1, 1, scratch)[0]).at(0) == q ? 1 : 0;
  }
  EXPECT_GE(itself, 95U);  // in the cluster that is nearest to it
  EXPECT_GT(more.bytes(), old.bytes());
}

TEST(Router, TruncatedForgetsKeysAndQueriesThatWantNoOther) {
  const test::OodData data = test::make_ood_data();
  const MatrixView<float> train = data.training.train;
  const RouterParams params = {.queries_per_key = 10};
  const Router old = Router::build(train, numbered(train.rows), any(data.keys), params);
  const Router less = old.truncated(100);
  std::vector<std::vector<Id>> expected;
  for (Id i = 0; i < 100; ++i) expected.push_back({i});
  EXPECT_EQ(sorted_lists(less), expected);
  EXPECT_EQ(less.clusters(), old.clusters());
  EXPECT_EQ(Router::from_parts(less.parts(), 100).queries(), 100U);
  EXPECT_EQ(old.queries(), train.rows);
  // The query that wants key 99 is still where it was.
  RouteScratch scratch;
  EXPECT_EQ(list(less, less.nearest(train.slice(99, 1), less.clusters(), 1, scratch)[0]).at(0),
            99U);

  // Keys beyond the largest gap; a router never loses its last query.
  Matrix<Id> lists(train.rows, 2);
  for (std::size_t q = 0; q < train.rows; ++q) lists.row(q)[0] = 1900, lists.row(q)[1] = 5;
  const Router far = Router::build(train, lists, any(data.keys), params);
  EXPECT_EQ(sorted_lists(far.truncated(1900)).front(), std::vector<Id>{5});
  EXPECT_EQ(sorted_lists(far.truncated(1901)).front(), (std::vector<Id>{5, 1900}));
  EXPECT_EQ(far.truncated(3).queries(), far.queries());
  EXPECT_TRUE(sorted_lists(far.truncated(3)).front().empty());
  EXPECT_TRUE(Router().truncated(3).empty());
}

TEST(Router, TheSameAtAnyThreadCount) {
  const test::OodData data = test::make_ood_data();
  const Matrix<Id> lists = exact_knn(any(data.keys), data.training.train, {.k = 20}).ids;
  const auto parts = [&](int threads) {
    const Execution run{.threads = threads};
    const Router built = Router::build(data.training.train, lists, any(data.keys), {}, run);
    const Router::Parts p =
        built
            .extended(data.test, exact_knn(any(data.keys), data.test, {.k = 20}).ids,
                      data.keys.rows(), run)
            .parts();
    return std::tuple(elements(to_f32(p.query_map.view())), elements(p.centroids),
                      elements(p.centroid_scales), elements(p.cluster_offsets), elements(p.codes),
                      elements(p.scales), elements(p.list_offsets), elements(p.gaps));
  };
  const auto one = parts(1);
  EXPECT_EQ(parts(2), one);
  EXPECT_EQ(parts(5), one);
}

TEST(Router, StrangeInputWorks) {
  const Matrix<float> keys = test::normal_matrix(30, 1, 1), queries = test::normal_matrix(20, 1, 2);
  RouteScratch scratch;
  const Router flat =
      Router::build(queries, Matrix<Id>(20, 3), any(keys));  // one dimension, one wanted key
  EXPECT_EQ(flat.dim(), 1U);
  EXPECT_EQ(flat.nearest(queries, 4, 2, scratch).size(), 40U);
  const Matrix<float> wide = test::normal_matrix(30, 6, 3), nothing(20, 6);
  const Router zero = Router::build(nothing, Matrix<Id>(20, 3), any(wide));  // zero queries
  for (const auto near : zero.nearest(nothing, 4, 2, scratch)) EXPECT_LT(near, 20U);
  const Router same =
      Router::build(test::normal_matrix(20, 6, 4), Matrix<Id>(20, 3), any(Matrix<float>(30, 6)));
  for (const auto near : same.nearest(nothing, 4, 2, scratch)) EXPECT_LT(near, 20U);
}

TEST(Router, RefusesWrongInput) {
  const Matrix<float> keys = test::normal_matrix(30, 4, 1), queries = test::normal_matrix(20, 4, 2);
  const Matrix<float> other = test::normal_matrix(20, 5, 3);
  const Matrix<Id> lists = numbered(20);
  const auto refused = [&](const std::vector<std::string>& parts, MatrixView<float> q,
                           MatrixView<Id> l, const RouterParams& params = {}) {
    expect_error(kInvalid, parts, [&] { (void)Router::build(q, l, any(keys), params); });
  };
  refused({"queries is empty"}, queries.view().slice(0, 0), lists);
  refused({"queries have dimension 5", "keys have 4"}, other, lists);
  refused({"lists has 19 rows", "queries 20"}, queries, lists.view().slice(0, 19));
  refused({"lists row 19", "key 30", "30 keys"}, queries, numbered(20, 11));
  Matrix<Id> none(20, 1);
  std::fill_n(none.data(), 20, kNoId);
  refused({"lists name no key"}, queries, none);
  refused({"router.dim is 0"}, queries, lists, {.dim = 0});
  refused({"router.clusters is 0"}, queries, lists, {.clusters = 0});
  refused({"router.iterations is 1001"}, queries, lists, {.iterations = 1001});
  refused({"router.queries_per_key is 0"}, queries, lists, {.queries_per_key = 0});

  const Router router = Router::build(queries, lists, any(keys));
  RouteScratch scratch;
  expect_error(kInvalid, {"dimension 5", "router has 4"},
               [&] { (void)router.nearest(other, 1, 1, scratch); });
  expect_error(kInvalid, {"probes is 0"}, [&] { (void)router.nearest(queries, 0, 1, scratch); });
  expect_error(kInvalid, {"count is 0"}, [&] { (void)router.nearest(queries, 1, 0, scratch); });
  expect_error(kInvalid, {"empty"}, [&] { (void)Router().nearest(queries, 1, 1, scratch); });
  expect_error(kInvalid, {"dimension 5", "router has 4"},
               [&] { (void)router.extended(other, lists, 30); });
  expect_error(kInvalid, {"lists has 20 rows", "queries 1"},
               [&] { (void)router.extended(queries.view().slice(0, 1), lists, 30); });
  expect_error(kInvalid, {"key 19", "19 keys"}, [&] { (void)router.extended(queries, lists, 19); });
  expect_error(kInvalid, {"empty"}, [&] { (void)Router().extended(queries, lists, 30); });
}

template <class T>
SharedArray<T> changed(const SharedArray<T>& array, std::size_t i, T value) {
  AlignedVector<T> values(array.begin(), array.end());
  values.at(i) = value;
  return SharedArray<T>(std::move(values));
}
template <class T>
SharedArray<T> shorter(const SharedArray<T>& array) {
  return SharedArray<T>(AlignedVector<T>(array.begin(), array.end() - 1));
}

TEST(Router, PartsMustAgree) {
  const Matrix<float> keys = test::normal_matrix(300, 4, 1),
                      queries = test::normal_matrix(90, 4, 2);
  const Router::Parts right = Router::build(queries, numbered(90, 210), any(keys)).parts();
  EXPECT_EQ(sorted_lists(Router::from_parts(right, 300)).size(), 90U);
  const auto refused = [&](const std::string& fault, auto change, std::size_t n = 300) {
    Router::Parts parts = right;
    change(parts);
    expect_error(ErrorCode::corrupt, {"router", fault},
                 [&] { (void)Router::from_parts(parts, n); });
  };
  const auto last = [](const auto& array) { return array.size() - 1; };
  refused("query map", [](auto& p) { p.query_map = {}; });
  refused("query map",
          [&](auto& p) { p.query_map = test::stored_as(to_f32(p.query_map.view()), Dtype::f32); });
  refused("no queries", [](auto& p) { p.scales = {}; });
  refused("no queries", [](auto& p) { p.centroid_scales = {}; });
  refused("centroids", [](auto& p) { p.centroids = shorter(p.centroids); });
  refused("centroids", [](auto& p) { p.centroid_scales = shorter(p.centroid_scales); });
  refused("codes", [](auto& p) { p.codes = shorter(p.codes); });
  refused("codes", [](auto& p) { p.scales = shorter(p.scales); });
  refused("span", [](auto& p) { p.cluster_offsets = shorter(p.cluster_offsets); });
  refused("span", [](auto& p) { p.cluster_offsets = {}; });
  refused("span", [&](auto& p) {
    p.cluster_offsets = changed(p.cluster_offsets, last(p.cluster_offsets), 89U);
  });
  refused("fall", [](auto& p) { p.cluster_offsets = changed(p.cluster_offsets, 1, 91U); });
  refused("span", [](auto& p) { p.list_offsets = shorter(p.list_offsets); });
  refused("span", [](auto& p) { p.list_offsets = changed(p.list_offsets, 0, 1U); });
  refused("fall", [](auto& p) { p.list_offsets = changed(p.list_offsets, 4, 4000000000U); });
  refused("span", [](auto& p) { p.gaps = shorter(p.gaps); });
  refused("scale", [](auto& p) { p.scales = changed(p.scales, 5, 0.0F); });
  refused("scale", [](auto& p) { p.centroid_scales = changed(p.centroid_scales, 0, -1.0F); });
  refused("scale", [](auto& p) { p.scales = changed(p.scales, 5, INFINITY); });
  refused("out of range",
          [](auto& p) { p.gaps = changed(p.gaps, 3, static_cast<std::uint16_t>(300)); });
  refused(
      "out of range", [](auto&) {}, 299);
}

TEST(Clustering, EveryRowIsInTheClusterOfItsNearestCentroid) {
  const test::OodData data = test::make_ood_data({.n = 300});
  const Matrix<float>& rows = data.training.train;
  const Clustering clustering = spherical_kmeans(rows, 20, 5, 1, {});
  ASSERT_EQ(clustering.centroids.rows(), 20U);
  ASSERT_EQ(clustering.cluster.size(), rows.rows());
  const KnnLists truth = exact_knn(any(clustering.centroids), rows, {.k = 1});
  for (std::size_t i = 0; i < rows.rows(); ++i)
    ASSERT_EQ(clustering.cluster[i], truth.ids.row(i)[0]);
}

}  // namespace
}  // namespace keyseek
