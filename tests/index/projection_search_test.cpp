// What a search of a projection index finds, returns and counts.
#include <gtest/gtest.h>

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
using test::expect_same;
using test::expect_valid;

/// Everything that an entry point leads to: all keys.
constexpr Dials kAll{.probes = 0, .lists = 0, .expand = 1000000};

struct Built {
  test::OodData data;
  Index index;

  explicit Built(const test::OodShape& shape = {}, Dtype dtype = Dtype::f32)
      : data(test::make_ood_data(shape)), keys(test::stored_as(data.keys, dtype)) {
    index = test::projection_index(keys.view(), data.training, {.list_length = 50, .tuning_k = 50});
  }
  AnyMatrix keys;
};

TEST(ProjectionSearch, ReachesTheRecallItWasTunedFor) {
  const Built built;
  const auto truth = exact_knn(any(built.data.keys), built.data.test, {.k = 50}).ids;
  for (const double target : {0.9, 0.95, 0.98}) {
    const auto steps = test::walk(built.index, built.data.test, built.data.training.group,
                                  {.k = 50, .projection = {{.target_recall = target}}}, true);
    const test::Outcome seen = test::outcome(steps, truth, 2000);
    EXPECT_GE(seen.recall, target - 0.02);
    EXPECT_GE(seen.scanned_fraction, 0.025);  // 50 of 2,000 keys are wanted
    EXPECT_LE(seen.scanned_fraction, 0.35);
  }
}

TEST(ProjectionSearch, RowsAreSortedAndScoresExactForEveryGroup) {
  for (const Dtype dtype : {Dtype::f32, Dtype::f16, Dtype::bf16, Dtype::i8}) {
    const Built built({.n = 900, .train_steps = 200}, dtype);
    for (const std::size_t group : {1U, 3U, 4U, 7U, 64U}) {
      const auto queries = built.data.test.view().slice(5, group);
      const Hits hits = test::search(built.index, queries, {.k = 20});
      expect_valid(hits, built.keys.view(), queries, 20);
      for (std::size_t g = 0; g < group; ++g) EXPECT_EQ(hits.count[g], 20U);
    }
  }
}

TEST(ProjectionSearch, ThoroughDialsAreExact) {
  const Built built;
  for (const std::size_t k : {1U, 50U, 51U, 500U, 2000U}) {  // beyond what it was tuned for, too
    const auto queries = built.data.step(3);
    const Hits hits = test::search(built.index, queries, {.k = k, .projection = {{.dials = kAll}}});
    EXPECT_EQ(hits.stats.scanned, 2000U);
    expect_valid(hits, any(built.data.keys), queries, k);
    const KnnLists truth = exact_knn(any(built.data.keys), queries, {.k = k});
    const double found = recall(truth.ids, {hits.ids.data(), queries.rows, k});
    EXPECT_GE(found, k == 2000 ? 1.0 : 0.99) << "k " << k;  // 8-bit codes choose what is reranked
    const Hits wide = test::search(built.index, queries,
                                   {.k = k, .projection = {{.dials = Dials{0, 0, 1000000, 2000}}}});
    EXPECT_EQ(wide.ids, test::elements(truth.ids));
    EXPECT_EQ(wide.scores, test::elements(truth.scores));
  }
}

/// Queries from elsewhere: single keys' directions, far from what the training queries want.
Matrix<float> novel_queries(const Built& built, std::size_t count) {
  Matrix<float> queries(count, built.keys.cols());
  for (std::size_t i = 0; i < count; ++i) {
    built.keys.view().copy_row(17 * i, queries.row(i));
    for (std::size_t j = 0; j < queries.cols(); ++j) queries.row(i)[j] *= -3.0F;
  }
  return queries;
}

TEST(ProjectionSearch, DialsBeyondWhatThereIsTakeNoMemory) {
  const auto data = test::make_ood_data({.n = 300, .d = 12, .train_steps = 40});
  const auto index = test::projection_index(test::any(data.keys), data.training,
                                            {.list_length = 20, .tuning_k = 20});
  SearchScratch scratch;
  Hits most, all;
  const auto queries = data.test.view().slice(0, 16);
  index.search(
      queries,
      {.k = 10, .projection = {{.dials = Dials{.probes = 256, .lists = 300, .expand = 300}}}},
      scratch, all);
  // One number more for each list of each query would be 256 GiB.
  for (std::uint32_t Dials::*dial : {&Dials::probes, &Dials::lists, &Dials::expand, &Dials::pool}) {
    Dials dials = {.probes = 256, .lists = 300, .expand = 300};
    dials.*dial = 0xffffffff;
    index.search(queries, {.k = 10, .projection = {{.dials = dials}}}, scratch, most);
    EXPECT_EQ(most.ids, all.ids);
    EXPECT_EQ(most.stats.scanned, all.stats.scanned);
  }
}

TEST(ProjectionSearch, ANovelQueryIsAnsweredByAScan) {
  const Built built;
  const Matrix<float> novel = novel_queries(built, 8);
  const KnnLists truth = exact_knn(built.keys.view(), novel, {.k = 50});
  double learned = 0;
  for (std::size_t i = 0; i < novel.rows(); ++i) {
    const auto query = novel.view().slice(i, 1);
    const MatrixView<Id> wanted = truth.ids.view().slice(i, 1);
    const Hits missed = test::search(built.index, query, {.k = 50});
    const Hits hits =
        test::search(built.index, query, {.k = 50, .projection = {{.scan_novel = true}}});
    learned += recall(wanted, {missed.ids.data(), 1, 50}) / 8;
    EXPECT_GE(recall(wanted, {hits.ids.data(), 1, 50}), 0.98);
    EXPECT_EQ(hits.stats.scanned, 2000U);
    expect_valid(hits, built.keys.view(), query, 50);
    // The bound on what is scanned goes before.
    const Hits bounded = test::search(
        built.index, query, {.k = 50, .projection = {{.scan_novel = true, .max_scanned = 1999}}});
    EXPECT_EQ(bounded.ids, missed.ids);
  }
  EXPECT_LE(learned, 0.8);
}

TEST(ProjectionSearch, BesideANovelQueryOthersAreSearchedAsBefore) {
  const Built built;
  const Matrix<float> novel = novel_queries(built, 1);
  Matrix<float> step(2, built.keys.cols());
  std::copy_n(built.data.step(3).row(0), step.cols(), step.row(0));
  std::copy_n(novel.row(0), step.cols(), step.row(1));
  SearchScratch scratch;
  Hits hits, again;
  built.index.search(step, {.k = 20, .projection = {{.scan_novel = true}}}, scratch, hits);
  expect_valid(hits, built.keys.view(), step, 20);
  const KnnLists truth = exact_knn(built.keys.view(), step, {.k = 20});
  EXPECT_GE(recall(truth.ids, {hits.ids.data(), 2, 20}), 0.9);
  // The scratch is as good as new.
  built.index.search(step, {.k = 20, .projection = {{.scan_novel = true}}}, scratch, again);
  EXPECT_EQ(again.ids, hits.ids);
  built.index.search(built.data.step(3), {.k = 20}, scratch, again);
  EXPECT_EQ(again.ids, test::search(built.index, built.data.step(3), {.k = 20}).ids);
}

TEST(ProjectionSearch, FewQueriesOfTheTrainingsKindAreNovel) {
  const Built built;
  std::size_t scanned_whole = 0;
  for (std::size_t i = 0; i < built.data.steps(); ++i) {
    const Hits hits = test::search(built.index, built.data.step(i),
                                   {.k = 50, .projection = {{.scan_novel = true}}});
    scanned_whole += hits.stats.scanned == 2000 ? 1 : 0;
  }
  EXPECT_LE(scanned_whole, built.data.steps() / 5);
  // Dials that are given call none novel.
  const Hits hits = test::search(built.index, novel_queries(built, 1),
                                 {.k = 50, .projection = {{.dials = Dials{}, .scan_novel = true}}});
  EXPECT_LT(hits.stats.scanned, 2000U);
}

TEST(ProjectionSearch, EqualScoresComeInOrderOfId) {
  test::OodData data = test::make_ood_data({.n = 400, .d = 8});
  for (Matrix<float>* m : {&data.keys, &data.test}) {
    for (std::size_t i = 0; i < m->rows() * m->cols(); ++i) m->data()[i] = std::round(m->data()[i]);
  }
  for (std::size_t i = 0; i < 100; ++i) std::copy_n(data.keys.row(i), 8, data.keys.row(300 + i));
  const auto index = test::projection_index(any(data.keys), data.training, {.list_length = 20});
  const Dials dials{.probes = 0, .lists = 0, .expand = 1000000, .pool = 400};
  for (std::size_t s = 0; s < 20; ++s) {
    const Hits hits =
        test::search(index, data.step(s), {.k = 60, .projection = {{.dials = dials}}});
    EXPECT_EQ(hits.ids, test::elements(test::brute_force(any(data.keys), data.step(s), 60).ids));
  }
}

TEST(ProjectionSearch, MoreKeysThanTunedForAreFoundAsWell) {
  const Built built;
  const auto truth = exact_knn(any(built.data.keys), built.data.test, {.k = 100}).ids;
  const auto steps = test::walk(built.index, built.data.test, 2,
                                {.k = 100, .projection = {{.target_recall = 0.95}}}, true);
  EXPECT_GE(test::outcome(steps, truth, 2000).recall, 0.87);  // twice as many
}

TEST(ProjectionSearch, WithoutTuningThereAreDefaultDials) {
  test::OodData data = test::make_ood_data();
  data.training.tuning = {};
  const auto index = test::projection_index(any(data.keys), data.training);
  EXPECT_TRUE(index.operating_points().empty());
  const auto truth = exact_knn(any(data.keys), data.test, {.k = 100}).ids;
  EXPECT_GE(test::outcome(test::walk(index, data.test, 2, {}, true), truth, 2000).recall, 0.9);
}

TEST(ProjectionSearch, AWarmStartHelps) {
  const Built built;
  const auto truth = exact_knn(any(built.data.keys), built.data.test, {.k = 50}).ids;
  const SearchParams weak = {
      .k = 50, .projection = {{.dials = Dials{.probes = 1, .lists = 1, .expand = 0}}}};
  const auto cold =
      test::outcome(test::walk(built.index, built.data.test, 2, weak, false), truth, 2000);
  const auto warm =
      test::outcome(test::walk(built.index, built.data.test, 2, weak, true), truth, 2000);
  EXPECT_GT(warm.recall, cold.recall + 0.02);
  EXPECT_LT(warm.scanned_fraction, 2 * cold.scanned_fraction);
}

TEST(ProjectionSearch, ThePreviousHitsMayBeTheHits) {
  const Built built;
  SearchScratch scratch;
  Hits same, first, second;
  for (std::size_t s = 0; s + 1 < 20; ++s) {
    built.index.search(built.data.step(s), {.k = 30}, scratch, first);
    built.index.search(built.data.step(s + 1), {.k = 30, .previous = &first}, scratch, second);
    built.index.search(built.data.step(s), {.k = 30}, scratch, same);
    built.index.search(built.data.step(s + 1), {.k = 30, .previous = &same}, scratch, same);
    expect_same(same, second);
  }
  // Hits of another group, another k, and of no search at all serve as well.
  built.index.search(built.data.test.view().slice(0, 7), {.k = 3, .previous = &second}, scratch,
                     first);
  expect_valid(first, any(built.data.keys), built.data.test.view().slice(0, 7), 3);
  const Hits nothing;
  built.index.search(built.data.step(0), {.k = 30, .previous = &nothing}, scratch, first);
  built.index.search(built.data.step(0), {.k = 30}, scratch, second);
  expect_same(first, second);
}

TEST(ProjectionSearch, PreviousHitsOfALargerIndexAreNoHarm) {
  const Built large({.n = 1500, .train_steps = 100}), small({.n = 300, .train_steps = 100});
  SearchScratch scratch;
  Hits hits;
  large.index.search(large.data.step(0), {.k = 200, .projection = {{.dials = kAll}}}, scratch,
                     hits);
  small.index.search(small.data.step(0), {.k = 50, .previous = &hits}, scratch, hits);
  expect_valid(hits, any(small.data.keys), small.data.step(0), 50);
}

TEST(ProjectionSearch, BetaKeepsWhatIsNearTheMaximum) {
  const Built built;
  for (const float beta : {0.0F, 1.0F, 5.0F, 1000.0F}) {
    for (std::size_t s = 0; s < 10; ++s) {
      const Hits all = test::search(built.index, built.data.step(s), {.k = 50});
      const Hits hits = test::search(built.index, built.data.step(s), {.k = 50, .beta = beta});
      expect_valid(hits, any(built.data.keys), built.data.step(s), 50);
      for (std::size_t g = 0; g < 2; ++g) {
        const float bar = all.row_scores(g)[0] - beta;
        std::vector<Id> expected;
        for (std::size_t r = 0; r < 50; ++r) {
          if (all.row_scores(g)[r] >= bar) expected.push_back(all.row_ids(g)[r]);
        }
        ASSERT_EQ(std::vector<Id>(hits.row_ids(g).begin(), hits.row_ids(g).end()), expected);
        ASSERT_GE(hits.count[g], 1U);
        ASSERT_TRUE(beta < 1000.0F || hits.count[g] == 50U);
      }
    }
  }
}

TEST(ProjectionSearch, NoMoreKeysAreScannedThanAllowed) {
  const Built built;
  const Hits free =
      test::search(built.index, built.data.step(0), {.k = 50, .projection = {{.dials = kAll}}});
  for (const std::size_t most : {1U, 7U, 63U, 64U, 65U, 256U, 300U, 1999U, 5000U}) {
    const Hits hits = test::search(built.index, built.data.step(0),
                                   {.k = 50, .projection = {{.dials = kAll, .max_scanned = most}}});
    EXPECT_EQ(hits.stats.scanned, std::min<std::size_t>(most, 2000));
    expect_valid(hits, any(built.data.keys), built.data.step(0), 50);
    EXPECT_EQ(hits.count[0], std::min<std::size_t>(most, 50));
    EXPECT_LE(hits.stats.expanded, free.stats.expanded);
    EXPECT_EQ(hits.stats.expanded == 0, most <= 64);  // spent on the entry points
  }
}

TEST(ProjectionSearch, StatisticsArePlausible) {
  const Built built;
  const SearchParams params = {
      .k = 50, .projection = {{.dials = Dials{.probes = 4, .lists = 4, .expand = 16}}}};
  SearchScratch scratch;
  Hits hits;
  built.index.search(built.data.step(0), params, scratch, hits);
  for (std::size_t s = 1; s < built.data.steps(); ++s) {
    SearchParams warm = params;
    warm.previous = &hits;
    built.index.search(built.data.step(s), warm, scratch, hits);
    EXPECT_GT(hits.stats.scanned, 50U);
    EXPECT_LE(hits.stats.scanned, 2000U);
    EXPECT_GE(hits.stats.expanded, 16U);
    EXPECT_LE(hits.stats.expanded, hits.stats.scanned);
    EXPECT_GE(hits.stats.reranked, 2 * 50U);
    EXPECT_LE(hits.stats.reranked, 2 * hits.stats.scanned);
    EXPECT_GE(hits.stats.bytes_read, hits.stats.scanned * 32 + hits.stats.reranked * 32 * 4);
  }
  const Hits lists_only = test::search(built.index, built.data.step(0),
                                       {.k = 50, .projection = {{.dials = Dials{4, 4, 0, 0}}}});
  EXPECT_EQ(lists_only.stats.expanded, 0U);
}

TEST(ProjectionSearch, EveryKeyIsScannedOnce) {
  // Asked for all keys, a search returns what it scanned.
  const Built built;
  Hits previous = test::search(built.index, built.data.test.view().slice(0, 8), {.k = 60});
  const std::vector<Id> first_row(previous.ids.begin(), previous.ids.begin() + 60);
  for (std::size_t g = 1; g < 4; ++g) {
    std::copy(first_row.begin(), first_row.end(),
              previous.ids.begin() + static_cast<std::ptrdiff_t>(60 * g));
  }
  for (const Dials& dials : {Dials{4, 8, 0, 0}, Dials{4, 8, 16, 0}, Dials{100, 2000, 0, 0}}) {
    for (const Hits* warm :
         {static_cast<const Hits*>(nullptr), static_cast<const Hits*>(&previous)}) {
      const auto queries = built.data.step(9);
      const Hits hits = test::search(
          built.index, queries, {.k = 2000, .projection = {{.dials = dials}}, .previous = warm});
      expect_valid(hits, any(built.data.keys), queries, 2000);
      EXPECT_EQ(hits.count[0], hits.stats.scanned);
      EXPECT_EQ(hits.count[1], hits.stats.scanned);
      const auto ids = hits.row_ids(0);
      for (const Id id : warm != nullptr ? first_row : std::vector<Id>()) {
        EXPECT_NE(std::find(ids.begin(), ids.end(), id), ids.end());
      }
    }
  }
}

TEST(ProjectionSearch, ScratchMayBeReusedForAnyIndex) {
  const Built one({.n = 1500, .d = 32, .train_steps = 150}),
      two({.n = 400, .d = 60, .train_steps = 150});
  const Built three({.n = 700, .d = 64, .group = 5, .train_steps = 80});
  SearchScratch scratch;
  Hits hits;
  for (std::size_t s = 0; s < 12; ++s) {
    for (const Built* built : {&one, &two, &three}) {
      SearchParams params = {.k = 20 + s};
      if (s % 3 == 1) params.projection = {.dials = kAll};
      if (s % 3 == 2) params.projection = {.max_scanned = 50 + s};
      built->index.search(built->data.step(s), params, scratch, hits);
      expect_same(hits, test::search(built->index, built->data.step(s), params));
    }
  }
}

TEST(ProjectionSearch, RefusesWrongInput) {
  const Built built({.n = 300, .train_steps = 60});
  const auto queries = built.data.step(0);
  const auto refused = [&](const std::vector<std::string>& parts, MatrixView<float> q,
                           const SearchParams& params,
                           ErrorCode code = ErrorCode::invalid_argument) {
    expect_error(code, parts, [&] { (void)test::search(built.index, q, params); });
  };
  refused({"k is 0"}, queries, {.k = 0});
  refused({"k is 301", "300 keys"}, queries, {.k = 301});
  refused({"target_recall is 2"}, queries, {.k = 5, .projection = {{.target_recall = 2}}});
  refused({"dimension 31", "index has 32"}, {queries.data, 2, 31, 32}, {.k = 5});
  refused({"queries has 0 rows"}, queries.slice(0, 0), {.k = 5});
  refused({"queries has 65 rows", "64"}, built.data.test.view().slice(0, 65), {.k = 5});
  Matrix<float> bad = test::normal_matrix(2, 32, 1);
  bad.row(1)[31] = std::numeric_limits<float>::quiet_NaN();
  refused({"queries row 1"}, bad, {.k = 5}, ErrorCode::not_finite);
  bad.row(1)[31] = -std::numeric_limits<float>::infinity();
  refused({"queries row 1"}, bad, {.k = 5}, ErrorCode::not_finite);

  const Index empty;
  const auto is_empty = [](auto body) {
    expect_error(ErrorCode::invalid_argument, {"Index is empty"}, body);
  };
  is_empty([&] { (void)test::search(empty, queries, {.k = 5}); });
  is_empty([&] { (void)empty.size(); });
  is_empty([&] { (void)empty.dim(); });
  is_empty([&] { (void)empty.bytes(); });
  is_empty([&] { (void)test::fact(empty, "unreachable"); });
  is_empty([&] { (void)empty.operating_points(); });
  is_empty([&] { empty.save("nowhere.ks"); });
  is_empty([&] { Index().append(any(queries), {}); });
}

}  // namespace
}  // namespace keyseek
