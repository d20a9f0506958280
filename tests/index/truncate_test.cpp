// Taking keys back from indexes of every kind, alone and beside searches.
#include <gtest/gtest.h>

#include <array>
#include <atomic>
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
constexpr std::size_t kAll2000 = 2000;

/// An index of each kind over the same 2,000 keys.
struct Shrinking {
  test::OodData data = test::make_ood_data();
  MatrixView<float> all = data.keys.view();
  MatrixView<float> asked = data.test.view().slice(60, 60);

  [[nodiscard]] Index make(IndexKind kind, std::size_t n = kAll2000) const {
    const AnyMatrixView keys = any(all.slice(0, n));
    if (kind == IndexKind::flat) return test::flat_index(keys);
    if (kind == IndexKind::sketch) return test::sketch_index(keys, data.training.train.view());
    return test::projection_index(keys, data.training);
  }

  /// Recall of the true top 50 of the first n keys.
  [[nodiscard]] double recall(const Index& index, std::size_t n) const {
    const auto truth = exact_knn(any(all.slice(0, n)), asked, {.k = 50}).ids;
    SearchParams params{.k = 50};
    if (index.kind() == IndexKind::projection) params.projection = {{.target_recall = 0.95}};
    return test::outcome(test::walk(index, asked, 2, params, true), truth, n).recall;
  }
};

const Shrinking& shrinking() {
  static const Shrinking s;
  return s;
}

test::Bytes saved(const Index& index) {
  const test::TemporaryDirectory directory;
  index.save(directory / "index.ks");
  return test::read_bytes(directory / "index.ks");
}

class Truncated : public testing::TestWithParam<IndexKind> {
 protected:
  const Shrinking& s = shrinking();
  const Index whole = s.make(GetParam());

  [[nodiscard]] Index cut(std::size_t n) const {
    Index index = whole;
    index.truncate(n, {.threads = 2});
    return index;
  }
};
INSTANTIATE_TEST_SUITE_P(Kinds, Truncated, testing::ValuesIn(index_kinds()),
                         [](const auto& kind) { return std::string(to_string(kind.param)); });

TEST_P(Truncated, TheKeysThatAreLeftAreFound) {
  for (const std::size_t n : {1999U, 1600U, 1000U}) {
    const Index index = cut(n);
    ASSERT_EQ(index.size(), n);
    EXPECT_GE(s.recall(index, n), GetParam() == IndexKind::projection ? 0.85 : 0.95) << n;
  }
  EXPECT_EQ(whole.size(), kAll2000);
}

TEST_P(Truncated, AnyNumberCanBeLeft) {
  for (const std::size_t n : {1984U, 1983U, 17U, 16U, 15U, 2U, 1U}) {
    const Index index = cut(n);
    ASSERT_EQ(index.size(), n);
    SearchParams params{.k = n};
    if (GetParam() == IndexKind::projection) {
      EXPECT_EQ(test::fact(index, "unreachable"), 0U);
      params.projection = {{.dials = kAll}};
    }
    const Hits hits = test::search(index, s.asked.slice(0, 2), params);
    expect_valid(hits, any(s.all.slice(0, n)), s.asked.slice(0, 2), n);
    const auto truth = exact_knn(any(s.all.slice(0, n)), s.asked.slice(0, 2), {.k = n});
    EXPECT_EQ(hits.ids, test::elements(truth.ids)) << n;
    expect_same(test::search(Index::from_bytes(index.to_bytes()), s.asked.slice(0, 2), params),
                hits);
  }
}

TEST_P(Truncated, WhatWasAppendedIsTakenBackWithoutATrace) {
  const std::size_t n = 1601;
  const Index begin = s.make(GetParam(), n);
  Index index = begin;
  index.append(any(s.all.slice(n, 399)));
  index.truncate(n);
  if (GetParam() == IndexKind::projection) {
    // Links that an append dropped to make room stay dropped; what there is leads everywhere.
    EXPECT_EQ(test::fact(index, "unreachable"), 0U);
    EXPECT_GE(s.recall(index, n), s.recall(begin, n) - 0.02);
  } else {
    EXPECT_EQ(saved(index), saved(begin));
  }
  index.append(any(s.all.slice(n, 399)));
  EXPECT_EQ(index.size(), kAll2000);
  EXPECT_GE(s.recall(index, kAll2000), 0.8);
}

TEST_P(Truncated, TheSameAtAnyThreadCountAndAfterALoad) {
  const test::TemporaryDirectory directory;
  whole.save(directory / "whole.ks");
  const auto shorter = [&](Index index, int threads) {
    index.truncate(1234, {.threads = threads});
    return saved(index);
  };
  const auto one = shorter(whole, 1);
  EXPECT_EQ(shorter(whole, 3), one);
  EXPECT_EQ(shorter(Index::open(directory / "whole.ks"), 2), one);
  EXPECT_EQ(shorter(Index::open(directory / "whole.ks", FileMemory::mapped), 2), one);
  EXPECT_EQ(saved(whole), test::read_bytes(directory / "whole.ks"));
}

TEST_P(Truncated, OldHitsCanBeStartedFrom) {
  const Index index = cut(500);
  const auto queries = s.asked.slice(0, 2);
  Hits before = test::search(whole, queries, {.k = 50});
  const Hits after = test::search(index, queries, {.k = 50, .previous = &before});
  expect_valid(after, any(s.all.slice(0, 500)), queries, 50);
}

TEST_P(Truncated, BadInputIsNamedAndChangesNothing) {
  Index index = whole, empty;
  const auto invalid = ErrorCode::invalid_argument;
  expect_error(invalid, {"keys is 0"}, [&] { index.truncate(0); });
  expect_error(invalid, {"keys is 2001", "holds 2000"}, [&] { index.truncate(2001); });
  expect_error(invalid, {"threads is -1"}, [&] { index.truncate(5, {.threads = -1}); });
  expect_error(invalid, {"empty"}, [&] { empty.truncate(1); });
  index.truncate(kAll2000);
  EXPECT_EQ(saved(index), saved(whole));
}

TEST_P(Truncated, SearchesGoOnMeanwhile) {
  Index index = whole;
  std::atomic<bool> done = false;
  std::atomic<std::size_t> searches = 0, faults = 0;
  const auto reader = [&] {
    SearchScratch scratch;
    Hits hits;
    SearchParams params{.k = 20};
    if (GetParam() == IndexKind::projection) params.projection = {{.dials = kAll}};
    std::size_t least = kAll2000;
    while (!done) {
      index.search(s.asked.slice(0, 2), params, scratch, hits);
      params.previous = &hits;
      const std::size_t seen = std::max(hits.stats.scanned, hits.stats.sketched);
      if (seen > least || seen % 100 != 0 || hits.count[0] != 20) ++faults;
      least = seen;
      for (const Id id : hits.ids) faults += id < seen ? 0U : 1U;
      ++searches;
    }
  };
  {
    std::array<std::jthread, 2> readers{std::jthread(reader), std::jthread(reader)};
    for (std::size_t n = 1900; n >= 1000; n -= 100) {
      index.truncate(n, {.threads = 1});
      for (const std::size_t now = searches; searches < now + 4;) std::this_thread::yield();
    }
    done = true;
  }
  EXPECT_EQ(faults, 0U);
}

}  // namespace
}  // namespace keyseek
