// Indexes when memory runs out: nothing is half done, and a scratch that failed works again.
#include <gtest/gtest.h>

#include "file/temporary_directory.hpp"
#include "keyseek/index.hpp"
#include "memory/out_of_memory.hpp"
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

template <class Index>
Index build() {
  if constexpr (std::is_same_v<Index, FlatIndex>) {
    return FlatIndex::build(any(keys()), {.threads = 1});
  } else if constexpr (std::is_same_v<Index, SketchIndex>) {
    return SketchIndex::build(any(keys()), normal_matrix(80, kDim, 4), {}, {.threads = 1});
  } else {
    TrainingQueries training;
    training.train = normal_matrix(80, kDim, 4);
    training.tuning = normal_matrix(8, kDim, 5);
    training.tuning_steps = 4;
    return ProjectionIndex::build(any(keys()), training, {.list_length = 20, .tuning_k = 10},
                                  {.threads = 1});
  }
}

template <class Index>
void append(Index& index) {
  if constexpr (std::is_same_v<Index, ProjectionIndex>) {
    index.append(any(more_keys()), normal_matrix(30, kDim, 6), {.threads = 1});
  } else {
    index.append(any(more_keys()));
  }
}

/// A search of fewer queries, which leaves a scratch with some of the room that the next one needs.
template <class Index>
void search_a_little(const Index& index, SearchScratch& scratch) {
  Hits hits;
  index.search(queries().view().slice(0, 1), {.k = 2}, scratch, hits);
}

struct Search {
  SearchScratch scratch;
  Hits hits;
};

template <class Index>
class Indexes : public testing::Test {
 protected:
  const Index index = build<Index>();
  const Hits expected = test::search(index, queries(), kSearch);

  void expect_whole(const Index& other) const {
    ASSERT_EQ(other.size(), kKeys);
    expect_same(test::search(other, queries(), kSearch), expected);
  }
};
using Kinds = testing::Types<FlatIndex, SketchIndex, ProjectionIndex>;
TYPED_TEST_SUITE(Indexes, Kinds);

TYPED_TEST(Indexes, ABuildThatFailsCanBeTriedAgain) {
  run_out_everywhere([] { return 0; }, [](int&) { static_cast<void>(build<TypeParam>()); },
                     [](int&, bool) {});
  this->expect_whole(build<TypeParam>());
}

TYPED_TEST(Indexes, AScratchWorksAfterASearchThatFailed) {
  for (const bool used : {false, true}) {
    run_out_everywhere(
        [&] {
          Search s;
          if (used) search_a_little(this->index, s.scratch);
          return s;
        },
        [&](Search& s) { this->index.search(queries(), kSearch, s.scratch, s.hits); },
        [&](Search& s, bool) {
          this->index.search(queries(), kSearch, s.scratch, s.hits);
          expect_same(s.hits, this->expected);
        });
  }
}

TYPED_TEST(Indexes, HitsOfASearchThatFailedCanBeStartedFrom) {
  const auto warm = [&](Search& s) {
    SearchParams params = kSearch;
    params.previous = &s.hits;
    this->index.search(queries(), params, s.scratch, s.hits);
  };
  run_out_everywhere(
      [&] {
        Search s;
        this->index.search(queries().view().slice(0, 2), {.k = 4}, s.scratch, s.hits);
        s.scratch = {};
        return s;
      },
      warm,
      [&](Search& s, bool) {
        warm(s);
        EXPECT_EQ(s.hits.ids, this->expected.ids);
      });
}

TYPED_TEST(Indexes, AnAppendThatFailedTookNothing) {
  run_out_everywhere([&] { return this->index; }, [](TypeParam& copy) { append(copy); },
                     [&](TypeParam& copy, bool threw) {
                       if (threw) this->expect_whole(copy);
                     });
}

TYPED_TEST(Indexes, ASaveThatFailedLeavesTheOldFile) {
  const test::TemporaryDirectory folder;
  const auto path = folder / "index.ks";
  TypeParam larger = this->index;
  append(larger);
  run_out_everywhere(
      [&] {
        this->index.save(path);
        return 0;
      },
      [&](int&) { larger.save(path); },
      [&](int&, bool threw) {
        if (threw) this->expect_whole(TypeParam::load(path));
        EXPECT_EQ(folder.names(), std::vector<std::string>{"index.ks"});
      });
}

TYPED_TEST(Indexes, ALoadThatFailedCanBeTriedAgain) {
  const test::TemporaryDirectory folder;
  const auto path = folder / "index.ks";
  this->index.save(path);
  run_out_everywhere([] { return 0; }, [&](int&) { static_cast<void>(TypeParam::load(path)); },
                     [](int&, bool) {});
  run_out_everywhere([] { return 0; }, [&](int&) { static_cast<void>(TypeParam::map(path)); },
                     [](int&, bool) {});
  this->expect_whole(TypeParam::load(path));
}

}  // namespace
}  // namespace keyseek
