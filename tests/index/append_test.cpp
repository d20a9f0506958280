// Appending to both indexes, alone and beside searches.
#include <gtest/gtest.h>

#include <atomic>
#include <limits>
#include <thread>

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

constexpr Dials kAll{.probes = 0, .lists = 0, .expand = 1000000};
constexpr std::size_t kOld = 1600, kAll2000 = 2000;

/// 2,000 keys of which an index holds the first 1,600; the first half of the test queries are
/// there to train an append with, the second to ask.
struct Growing {
  test::OodData data = test::make_ood_data();
  MatrixView<float> all = data.keys.view();
  MatrixView<float> fresh = all.slice(kOld, kAll2000 - kOld);
  MatrixView<float> training = data.test.view().slice(0, 60);
  MatrixView<float> asked = data.test.view().slice(60, 60);
  Index index = test::projection_index(any(all.slice(0, kOld)), data.training);

  /// Of the true top 50 those with an id of a new key: how many are found.
  [[nodiscard]] double new_key_recall(const Index& grown) const {
    const auto truth = exact_knn(any(all), asked, {.k = 50}).ids;
    const auto steps =
        test::walk(grown, asked, 2, {.k = 50, .projection = {{.target_recall = 0.95}}}, true);
    std::size_t wanted = 0, found = 0;
    for (std::size_t q = 0; q < asked.rows; ++q) {
      const auto row = steps[q / 2].row_ids(q % 2);
      for (const Id id : std::span(truth.row(q), 50)) {
        if (id < kOld) continue;
        ++wanted;
        found += std::count(row.begin(), row.end(), id) != 0 ? 1U : 0U;
      }
    }
    EXPECT_GT(wanted, 300U);
    return static_cast<double>(found) / static_cast<double>(wanted);
  }
};

test::Bytes saved(const Index& index) {
  const test::TemporaryDirectory directory;
  index.save(directory / "index.ks");
  return test::read_bytes(directory / "index.ks");
}

TEST(Append, NewKeysAreFoundWithTrainingQueries) {
  Growing g;
  g.index.append(any(g.fresh), g.training);
  EXPECT_EQ(g.index.size(), kAll2000);
  EXPECT_EQ(test::fact(g.index, "unreachable"), 0U);
  EXPECT_GE(g.new_key_recall(g.index), 0.9);
}

TEST(Append, NewKeysAreReachableWithoutTrainingQueries) {
  Growing g;
  g.index.append(any(g.fresh), {});
  EXPECT_EQ(g.index.size(), kAll2000);
  EXPECT_EQ(test::fact(g.index, "unreachable"), 0U);
  const Hits hits =
      test::search(g.index, g.asked.slice(0, 2), {.k = 50, .projection = {{.dials = kAll}}});
  EXPECT_EQ(hits.stats.scanned, kAll2000);
  expect_valid(hits, any(g.all), g.asked.slice(0, 2), 50);
}

TEST(Append, TrainingQueriesHelp) {
  Growing with, without;
  with.index.append(any(with.fresh), with.training);
  without.index.append(any(without.fresh), {});
  EXPECT_GT(with.new_key_recall(with.index), without.new_key_recall(without.index) + 0.05);
}

TEST(Append, ManySmallOnesWorkToo) {
  Growing g;
  for (std::size_t first = 0; first < 400; first += 50) {
    g.index.append(any(g.fresh.slice(first, 50)), g.training.slice(first / 50 * 6, 6));
    ASSERT_EQ(test::fact(g.index, "unreachable"), 0U);
    ASSERT_EQ(g.index.size(), kOld + first + 50);
  }
  EXPECT_GE(g.new_key_recall(g.index), 0.6);  // six training queries for each 50 keys
  g.index.append(any(g.fresh.slice(0, 0)), g.training);
  EXPECT_EQ(g.index.size(), kAll2000);
}

TEST(Append, OldHitsStayValid) {
  Growing g;
  const auto queries = g.asked.slice(0, 2);
  SearchScratch scratch;
  Hits before, after;
  g.index.search(queries, {.k = 50}, scratch, before);
  g.index.append(any(g.fresh), g.training);
  expect_valid(before, any(g.all), queries, 50);  // the same ids, the same scores
  g.index.search(queries, {.k = 50, .previous = &before}, scratch, after);
  expect_valid(after, any(g.all), queries, 50);
  for (std::size_t row = 0; row < 2; ++row) {
    for (std::size_t r = 0; r < 50; ++r)
      EXPECT_GE(after.row_scores(row)[r], before.row_scores(row)[r]);
  }
}

TEST(Append, TheSameAtAnyThreadCountAndAfterALoad) {
  const Growing g;
  const test::TemporaryDirectory directory;
  g.index.save(directory / "old.ks");
  const auto grown = [&](Index index, int threads) {
    index.append(any(g.fresh), g.training, {.threads = threads});
    return saved(index);
  };
  const auto one = grown(g.index, 1);
  EXPECT_EQ(grown(g.index, 2), one);
  EXPECT_EQ(grown(g.index, 4), one);
  EXPECT_EQ(grown(Index::open(directory / "old.ks"), 2), one);
  EXPECT_EQ(grown(Index::open(directory / "old.ks", FileMemory::mapped), 2), one);
  EXPECT_EQ(saved(g.index), test::read_bytes(directory / "old.ks"));
}

TEST(Append, CopiesGoSeparateWays) {
  Growing g;
  const auto queries = g.asked.slice(0, 2);
  Index copy = g.index;
  const Hits before = test::search(g.index, queries, {.k = 50});
  copy.append(any(g.fresh), g.training);
  EXPECT_EQ(g.index.size(), kOld);
  EXPECT_EQ(copy.size(), kAll2000);
  expect_same(test::search(g.index, queries, {.k = 50}), before);
  g.index = copy;
  EXPECT_EQ(g.index.size(), kAll2000);
  const Index moved = std::move(copy);
  expect_same(test::search(g.index, queries, {.k = 50}), test::search(moved, queries, {.k = 50}));

  Index flat = test::flat_index(any(g.all.slice(0, kOld)));
  const Index old = flat;
  flat.append(any(g.fresh));
  EXPECT_EQ(old.size(), kOld);
  EXPECT_EQ(flat.size(), kAll2000);

  Index sketch = test::sketch_index(any(g.all.slice(0, kOld)), g.asked);
  const Index old_sketch = sketch;
  sketch.append(any(g.fresh));
  EXPECT_EQ(old_sketch.size(), kOld);
  EXPECT_EQ(sketch.size(), kAll2000);
}

TEST(Append, AFailedOneChangesNothing) {
  Growing g;
  const auto before = saved(g.index);
  Matrix<float> bad = test::normal_matrix(5, 32, 1), queries = test::normal_matrix(4, 32, 2);
  bad.row(3)[0] = std::numeric_limits<float>::infinity();
  const Matrix<float> narrow = test::normal_matrix(5, 31, 3);
  const auto refused = [&](ErrorCode code, const std::vector<std::string>& parts,
                           AnyMatrixView keys, MatrixView<float> training,
                           const Execution& run = {}) {
    expect_error(code, parts, [&] { g.index.append(keys, training, run); });
    EXPECT_EQ(saved(g.index), before);
  };
  const auto invalid = ErrorCode::invalid_argument;
  refused(ErrorCode::not_finite, {"keys row 3"}, any(bad), {});
  refused(invalid, {"keys have dimension 31", "32"}, any(narrow), {});
  refused(invalid, {"keys are f16", "f32"}, test::stored_as(g.fresh, Dtype::f16).view(), {});
  refused(invalid, {"queries have dimension 31", "32"}, any(g.fresh), narrow);
  refused(invalid, {"threads is -1"}, any(g.fresh), {}, {.threads = -1});
  queries.row(2)[5] = std::numeric_limits<float>::quiet_NaN();
  refused(ErrorCode::not_finite, {"queries row 2"}, any(g.fresh), queries);
  const Execution cancel{.threads = 1, .progress = [](auto, auto, auto) { return false; }};
  refused(ErrorCode::cancelled, {"cancelled"}, any(g.fresh), g.training, cancel);
}

/// Two threads search without pause while the index grows by `append(first, count)`.
template <class Index, class Appender>
void search_while_growing(Index& index, const Growing& g, const SearchParams& params,
                          Appender append) {
  constexpr std::size_t kChunk = 50;
  std::atomic<bool> done = false;
  std::atomic<std::size_t> searches = 0, faults = 0;
  const auto reader = [&](std::size_t start) {
    SearchScratch scratch;
    Hits hits;
    SearchParams warm = params;
    std::size_t largest = kOld;
    for (std::size_t step = start; !done; ++step) {
      index.search(g.asked.slice(step % 30 * 2, 2), warm, scratch, hits);
      warm.previous = &hits;
      // All keys there were.
      const std::size_t seen = std::max(hits.stats.scanned, hits.stats.sketched);
      if (seen < largest || (seen - kOld) % kChunk != 0 || hits.count[0] != params.k) ++faults;
      largest = seen;
      for (const Id id : hits.ids) faults += id < seen ? 0U : 1U;
      ++searches;
    }
  };
  std::vector<std::jthread> readers;
  for (const std::size_t start : {0U, 7U}) readers.emplace_back(reader, start);
  for (std::size_t first = 0; first < g.fresh.rows; first += kChunk) {
    append(any(g.fresh.slice(first, kChunk)));
    for (const std::size_t now = searches; searches < now + 4;) std::this_thread::yield();
  }
  done = true;
  readers.clear();
  EXPECT_EQ(faults, 0U);
  EXPECT_EQ(index.size(), kAll2000);
}

TEST(Append, SearchesGoOnMeanwhile) {
  Growing g;
  search_while_growing(
      g.index, g, {.k = 20, .projection = {{.dials = kAll}}},
      [&](AnyMatrixView keys) { g.index.append(keys, g.training.slice(0, 10), {.threads = 2}); });
  EXPECT_EQ(test::fact(g.index, "unreachable"), 0U);
  Index flat = test::flat_index(any(g.all.slice(0, kOld)));
  search_while_growing(flat, g, {.k = 20}, [&](AnyMatrixView keys) { flat.append(keys); });
  Index sketch = test::sketch_index(any(g.all.slice(0, kOld)), g.asked);
  search_while_growing(sketch, g, {.k = 20}, [&](AnyMatrixView keys) { sketch.append(keys); });
}

TEST(Append, ASketchIndexGrownFindsOldAndNewKeys) {
  const Growing g;
  Index sketch = test::sketch_index(any(g.all.slice(0, kOld)), g.asked);
  sketch.append(any(g.fresh));
  const auto truth = exact_knn(any(g.all), g.asked, {.k = 20}).ids;
  const auto steps = test::walk(sketch, g.asked, 2, {.k = 20}, true);
  EXPECT_GE(test::outcome(steps, truth, kAll2000).recall, 0.97);
}

TEST(Append, AFlatIndexGrownIsAsGoodAsOneBuilt) {
  const Growing g;
  for (const std::size_t old : {1U, 15U, 16U, 1000U}) {
    Index flat = test::flat_index(any(g.all.slice(0, old)));
    flat.append(any(g.all.slice(old, 7)));
    flat.append(any(g.all.slice(old + 7, kAll2000 - old - 7)));
    ASSERT_EQ(flat.size(), kAll2000);
    const Hits hits = test::search(flat, g.asked.slice(0, 4), {.k = kAll2000});
    const auto truth = exact_knn(any(g.all), g.asked.slice(0, 4), {.k = kAll2000});
    EXPECT_EQ(hits.ids, test::elements(truth.ids)) << "grown from " << old;
  }
  Index flat = test::flat_index(any(g.all));
  expect_error(ErrorCode::invalid_argument, {"dimension 31", "32"},
               [&] { flat.append(any(test::normal_matrix(3, 31, 1))); });
  EXPECT_EQ(flat.size(), kAll2000);
}

}  // namespace
}  // namespace keyseek
