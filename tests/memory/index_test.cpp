// Indexes when memory runs out: nothing is half done, and a scratch that failed works again.
#include <gtest/gtest.h>

#include "file/temporary_directory.hpp"
#include "keyseek/index.hpp"
#include "memory/out_of_memory.hpp"
#include "support/indexes.hpp"
#include "support/random_data.hpp"
#include "support/search_run.hpp"

namespace keyseek {
namespace {

using test::any;
using test::expect_same;
using test::normal_matrix;
using test::run_out_everywhere;

constexpr std::size_t kKeys = 150, kDim = 12, kGroup = 3;
const SearchParams kSearch{.k = 10};

const Matrix<float>& keys() {
  static const Matrix<float> matrix = normal_matrix(kKeys, kDim, 1);
  return matrix;
}
const Matrix<float>& more_keys() {
  static const Matrix<float> matrix = normal_matrix(20, kDim, 2);
  return matrix;
}
const Matrix<float>& queries() {
  static const Matrix<float> matrix = normal_matrix(kGroup, kDim, 3);
  return matrix;
}

Index build(IndexKind kind) {
  TrainingQueries training;
  training.train = normal_matrix(80, kDim, 4);
  training.tuning = normal_matrix(8, kDim, 5);
  training.tuning_steps = 4;
  IndexParams params;
  if (kind == IndexKind::projection) params = ProjectionParams{.list_length = 20, .tuning_k = 10};
  return Index::build(kind, any(keys()), training, params, {.threads = 1});
}

void append(Index& index) {
  index.append(any(more_keys()), normal_matrix(30, kDim, 6), {.threads = 1});
}

/// A search of fewer queries, which leaves a scratch with some of the room that the next one needs.
void search_a_little(const Index& index, SearchScratch& scratch) {
  Hits hits;
  index.search(queries().view().slice(0, 1), {.k = 2}, scratch, hits);
}

struct Search {
  SearchScratch scratch;
  Hits hits;
};

class Indexes : public testing::TestWithParam<IndexKind> {
 protected:
  const Index index = build(GetParam());
  const Hits expected = test::search(index, queries(), kSearch);

  void expect_whole(const Index& other) const {
    ASSERT_EQ(other.size(), kKeys);
    expect_same(test::search(other, queries(), kSearch), expected);
  }
};
INSTANTIATE_TEST_SUITE_P(Kinds, Indexes, testing::ValuesIn(index_kinds()),
                         [](const auto& kind) { return std::string(to_string(kind.param)); });

TEST_P(Indexes, ABuildThatFailsCanBeTriedAgain) {
  run_out_everywhere([] { return 0; }, [](int&) { static_cast<void>(build(GetParam())); },
                     [](int&, bool) {});
  expect_whole(build(GetParam()));
}

TEST_P(Indexes, AScratchWorksAfterASearchThatFailed) {
  for (const bool used : {false, true}) {
    run_out_everywhere(
        [&] {
          Search s;
          if (used) search_a_little(index, s.scratch);
          return s;
        },
        [&](Search& s) { index.search(queries(), kSearch, s.scratch, s.hits); },
        [&](Search& s, bool) {
          index.search(queries(), kSearch, s.scratch, s.hits);
          expect_same(s.hits, expected);
        });
  }
}

TEST_P(Indexes, HitsOfASearchThatFailedCanBeStartedFrom) {
  const auto warm = [&](Search& s) {
    SearchParams params = kSearch;
    params.previous = &s.hits;
    index.search(queries(), params, s.scratch, s.hits);
  };
  run_out_everywhere(
      [&] {
        Search s;
        index.search(queries().view().slice(0, 2), {.k = 4}, s.scratch, s.hits);
        s.scratch = {};
        return s;
      },
      warm,
      [&](Search& s, bool) {
        warm(s);
        EXPECT_EQ(s.hits.ids, expected.ids);
      });
}

TEST_P(Indexes, AnAppendThatFailedTookNothing) {
  run_out_everywhere([&] { return index; }, [](Index& copy) { append(copy); },
                     [&](Index& copy, bool threw) {
                       if (threw) expect_whole(copy);
                     });
}

TEST_P(Indexes, ATruncationThatFailedTookNothingBack) {
  for (const std::size_t left : {140U, 3U}) {
    run_out_everywhere([&] { return index; },
                       [&](Index& copy) { copy.truncate(left, {.threads = 1}); },
                       [&](Index& copy, bool threw) {
                         if (threw) expect_whole(copy);
                         EXPECT_EQ(copy.size(), threw ? kKeys : left);
                       });
  }
}

TEST_P(Indexes, ASaveThatFailedLeavesTheOldFile) {
  const test::TemporaryDirectory folder;
  const auto path = folder / "index.ks";
  Index larger = index;
  append(larger);
  run_out_everywhere(
      [&] {
        index.save(path);
        return 0;
      },
      [&](int&) { larger.save(path); },
      [&](int&, bool threw) {
        if (threw) expect_whole(Index::open(path));
        EXPECT_EQ(folder.names(), std::vector<std::string>{"index.ks"});
      });
}

TEST_P(Indexes, ALoadThatFailedCanBeTriedAgain) {
  const test::TemporaryDirectory folder;
  const auto path = folder / "index.ks";
  index.save(path);
  run_out_everywhere([] { return 0; }, [&](int&) { static_cast<void>(Index::open(path)); },
                     [](int&, bool) {});
  run_out_everywhere([] { return 0; },
                     [&](int&) { static_cast<void>(Index::open(path, FileMemory::mapped)); },
                     [](int&, bool) {});
  expect_whole(Index::open(path));
}

}  // namespace
}  // namespace keyseek
