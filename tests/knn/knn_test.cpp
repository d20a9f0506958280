#include "keyseek/knn.hpp"

#include <gtest/gtest.h>

#include <atomic>
#include <limits>

#include "file/temporary_directory.hpp"
#include "keyseek/score.hpp"
#include "support/ood_data.hpp"
#include "support/random_data.hpp"
#include "support/reference.hpp"

namespace keyseek {
namespace {

using test::any;
using test::brute_force;
using test::elements;
using test::expect_error;

constexpr KnnMethod kMethods[] = {KnnMethod::f32, KnnMethod::int8};

/// Small whole numbers: f32 is exact, and many scores are equal.
struct Ties {
  Matrix<float> keys = test::whole_matrix(500, 9, 2, 1);
  Matrix<float> queries = test::whole_matrix(37, 9, 2, 2);

  Ties() {
    for (std::size_t i = 0; i < 40; ++i) std::copy_n(keys.row(i), 9, keys.row(400 + i));
  }
};

TEST(ExactKnn, F32EqualsF64WithTiesToTheSmallerId) {
  const Ties ties;
  for (const Dtype dtype : {Dtype::f32, Dtype::f16, Dtype::bf16, Dtype::i8}) {
    const AnyMatrix keys = test::stored_as(ties.keys, dtype);
    for (const std::size_t k : {1U, 2U, 100U, 499U, 500U}) {
      const KnnLists truth = brute_force(keys.view(), ties.queries, k);
      const KnnLists lists = exact_knn(keys.view(), ties.queries, {.k = k});
      ASSERT_EQ(elements(lists.ids), elements(truth.ids)) << to_string(dtype) << " k " << k;
      ASSERT_EQ(elements(lists.scores), elements(truth.scores));
    }
  }
}

TEST(ExactKnn, EqualKeysComeInOrderOfId) {
  const Matrix<float> zeros(300, 4);
  const Matrix<float> queries = test::normal_matrix(5, 4, 1);
  for (const KnnMethod method : kMethods) {
    const KnnLists lists = exact_knn(any(zeros), queries, {.k = 120, .method = method});
    for (std::size_t q = 0; q < 5; ++q) {
      for (std::size_t r = 0; r < 120; ++r) {
        ASSERT_EQ(lists.ids.row(q)[r], r);
        ASSERT_EQ(lists.scores.row(q)[r], 0.0F);
      }
    }
  }
}

TEST(ExactKnn, AllOfThemInt8IsExact) {
  const Ties ties;
  const KnnLists truth = brute_force(any(ties.keys), ties.queries, 500);
  const KnnLists lists =
      exact_knn(any(ties.keys), ties.queries, {.k = 500, .method = KnnMethod::int8});
  EXPECT_EQ(elements(lists.ids), elements(truth.ids));
  const KnnLists wide =
      exact_knn(any(ties.keys), ties.queries, {.k = 20, .method = KnnMethod::int8, .pool = 100000});
  EXPECT_EQ(elements(wide.ids), elements(brute_force(any(ties.keys), ties.queries, 20).ids));
}

TEST(ExactKnn, Int8FindsNearlyAll) {
  for (const std::size_t d : {32U, 128U}) {
    const test::OodData data = test::make_ood_data({.n = 3000, .d = d, .test_steps = 100});
    for (const Dtype dtype : {Dtype::f32, Dtype::f16}) {
      const AnyMatrix keys = test::stored_as(data.keys, dtype);
      const KnnLists truth = exact_knn(keys.view(), data.test);
      const KnnLists found = exact_knn(keys.view(), data.test, {.method = KnnMethod::int8});
      EXPECT_GE(recall(truth.ids, found.ids), 0.999) << "d " << d;
      for (std::size_t q = 0; q < data.test.rows(); ++q) {
        for (std::size_t r = 0; r < 100; ++r) {
          ASSERT_EQ(found.scores.row(q)[r],
                    inner_product(keys.view(), found.ids.row(q)[r], data.test.row(q)));
        }
      }
    }
  }
}

TEST(ExactKnn, TheSameAtAnyThreadCount) {
  const test::OodData data = test::make_ood_data({.n = 1500, .test_steps = 55});
  for (const KnnMethod method : kMethods) {
    const auto lists = [&](int threads) {
      const KnnLists l =
          exact_knn(any(data.keys), data.test, {.k = 30, .method = method}, {.threads = threads});
      return std::pair(elements(l.ids), elements(l.scores));
    };
    const auto one = lists(1);
    EXPECT_EQ(lists(2), one);
    EXPECT_EQ(lists(5), one);
  }
}

TEST(ExactKnn, AQueryDoesNotDependOnItsNeighbours) {
  const test::OodData data = test::make_ood_data({.n = 700, .test_steps = 20});
  const KnnLists all = exact_knn(any(data.keys), data.test, {.k = 10});
  for (std::size_t q = 0; q < data.test.rows(); ++q) {
    const KnnLists one = exact_knn(any(data.keys), data.test.view().slice(q, 1), {.k = 10});
    ASSERT_TRUE(std::equal(one.ids.data(), one.ids.data() + 10, all.ids.row(q)));
    ASSERT_TRUE(std::equal(one.scores.data(), one.scores.data() + 10, all.scores.row(q)));
  }
}

TEST(ExactKnn, ReportsProgressAndIsCancelled) {
  const Matrix<float> keys = test::normal_matrix(3000, 8, 1),
                      queries = test::normal_matrix(400, 8, 2);
  for (const KnnMethod method : kMethods) {
    std::size_t last = 0, reports = 0;
    Execution run{.threads = 2};
    run.progress = [&](std::string_view stage, std::size_t done, std::size_t total) {
      if (stage == "exact neighbours") {
        EXPECT_EQ(total, 400U);
        last = done;
      }
      ++reports;
      return true;
    };
    (void)exact_knn(any(keys), queries, {.k = 5, .method = method}, run);
    EXPECT_EQ(last, 400U);
    EXPECT_GE(reports, 10U);
    run.progress = [](std::string_view stage, std::size_t done, std::size_t) {
      return stage != "exact neighbours" || done < 100;
    };
    expect_error(ErrorCode::cancelled, {"exact neighbours"},
                 [&] { (void)exact_knn(any(keys), queries, {.k = 5, .method = method}, run); });
  }
}

TEST(ExactKnn, RefusesWrongInput) {
  Matrix<float> keys = test::normal_matrix(6, 3, 1), queries = test::normal_matrix(4, 3, 2);
  const Matrix<float> other = test::normal_matrix(4, 5, 3);
  const auto refused = [&](const std::vector<std::string>& parts, AnyMatrixView k,
                           MatrixView<float> q, const KnnParams& params,
                           const Execution& run = {}) {
    expect_error(ErrorCode::invalid_argument, parts, [&] { (void)exact_knn(k, q, params, run); });
  };
  for (const KnnMethod method : kMethods) {
    const auto k_is = [&](std::size_t k, std::size_t pool = 0) {
      return KnnParams{.k = k, .method = method, .pool = pool};
    };
    refused({"k is 0"}, any(keys), queries, k_is(0));
    refused({"k is 7", "6 keys"}, any(keys), queries, k_is(7));
    refused({"pool is 2", "k = 3"}, any(keys), queries, k_is(3, 2));
    refused({"keys is empty"}, any(keys.view().slice(0, 0)), queries, k_is(1));
    refused({"queries is empty"}, any(keys), queries.view().slice(0, 0), k_is(1));
    refused({"queries have dimension 5", "keys have 3"}, any(keys), other, k_is(1));
    refused({"dimension 0"}, {keys.data(), Dtype::f32, 6, 0, 0}, {queries.data(), 4, 0}, k_is(1));
    refused({"threads is -2"}, any(keys), queries, k_is(1), {.threads = -2});
  }
  queries.row(3)[1] = std::numeric_limits<float>::quiet_NaN();
  expect_error(ErrorCode::not_finite, {"queries row 3"},
               [&] { (void)exact_knn(any(keys), queries, {.k = 1}); });
  keys.row(5)[2] = std::numeric_limits<float>::infinity();
  expect_error(ErrorCode::not_finite, {"keys row 5"},
               [&] { (void)exact_knn(any(keys), queries, {.k = 1}); });
}

TEST(ExactKnn, ProductsBeyondF32AreRefused) {
  Matrix<float> keys = test::normal_matrix(6, 3, 1), queries = test::normal_matrix(4, 3, 2);
  keys.row(5)[2] = 1e30F;
  queries.row(3)[1] = 1e9F;
  for (const KnnMethod method : {KnnMethod::f32, KnnMethod::int8})
    expect_error(ErrorCode::invalid_argument, {"queries row 3", "f32"},
                 [&] { (void)exact_knn(any(keys), queries, {.k = 1, .method = method}); });
  // Long keys are no reason alone.
  queries.row(3)[1] = 1e-9F;
  EXPECT_EQ(elements(exact_knn(any(keys), queries, {.k = 2}).ids),
            elements(test::brute_force(any(keys), queries, 2).ids));
}

TEST(ExactKnn, OfMoreDimensionsThanCodesCanSum) {
  const Matrix<float> keys = test::whole_matrix(5, 140'000, 1, 1),
                      queries = test::whole_matrix(2, 140'000, 1, 2);
  EXPECT_EQ(elements(exact_knn(any(keys), queries, {.k = 5}).ids),
            elements(test::brute_force(any(keys), queries, 5).ids));
  expect_error(ErrorCode::invalid_argument, {"140000", "133000"},
               [&] { (void)exact_knn(any(keys), queries, {.k = 5, .method = KnnMethod::int8}); });
}

TEST(ExactKnn, NumbersOfAnySize) {
  for (const float of_keys : {1e-30F, 1e-8F, 1e8F, 1e30F}) {
    for (const float of_queries : {1e-30F, 1e-6F, 1.0F, 1e30F}) {
      if (of_keys * of_queries > 1e33F || of_keys * of_queries < 1e-33F) continue;
      Matrix<float> keys = test::normal_matrix(300, 12, 1),
                    queries = test::normal_matrix(20, 12, 2);
      for (std::size_t i = 0; i < 300 * 12; ++i) keys.data()[i] *= of_keys;
      for (std::size_t i = 0; i < 20 * 12; ++i) queries.data()[i] *= of_queries;
      const auto truth = test::brute_force(any(keys), queries, 10).ids;
      for (const KnnMethod method : {KnnMethod::f32, KnnMethod::int8})
        EXPECT_GE(recall(truth, exact_knn(any(keys), queries, {.k = 10, .method = method}).ids),
                  0.999)
            << of_keys << " " << of_queries;
    }
  }
}

Matrix<Id> ids_of(std::size_t rows, std::size_t cols, const std::vector<Id>& ids) {
  Matrix<Id> m(rows, cols);
  std::copy(ids.begin(), ids.end(), m.data());
  return m;
}

TEST(Recall, OfATruthOfOtherKeysIsRefused) {
  const Matrix<Id> truth = ids_of(2, 3, {1, 2, 3, 4, 5, 6}), found = ids_of(2, 2, {1, 2, 4, kNoId});
  EXPECT_EQ(recall(truth, found, 7), 0.5);
  expect_error(ErrorCode::invalid_argument, {"truth row 1", "key 6", "6 keys"},
               [&] { (void)recall(truth, found, 6); });
  expect_error(ErrorCode::invalid_argument, {"found row 0", "key 3", "3 keys"},
               [&] { (void)recall(ids_of(1, 1, {2}), ids_of(1, 1, {3}), 3); });
}

TEST(Recall, SharesOfTheTruth) {
  const Matrix<Id> truth = ids_of(2, 3, {1, 2, 3, 4, 5, 6});
  EXPECT_EQ(recall(truth, truth), 1.0);
  EXPECT_EQ(recall(truth, ids_of(2, 4, {3, 9, 1, 2, 6, 8, 7, kNoId})), 4.0 / 6.0);
  EXPECT_EQ(recall(truth, ids_of(2, 2, {1, 1, 4, 5})), 3.0 / 6.0);  // a repetition counts once
  EXPECT_EQ(recall(truth, ids_of(2, 1, {kNoId, kNoId})), 0.0);
  expect_error(ErrorCode::invalid_argument, {"found has 1 rows", "2"}, [&] {
    (void)recall(truth, ids_of(1, 3, {1, 2, 3}));
  });
  expect_error(ErrorCode::invalid_argument, {"truth is empty"}, [] { (void)recall({}, {}); });
}

}  // namespace
}  // namespace keyseek
