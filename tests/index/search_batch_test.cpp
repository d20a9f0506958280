// Many queries at once are what each step finds alone.
#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <vector>

#include "file/temporary_directory.hpp"
#include "keyseek/index.hpp"
#include "support/ood_data.hpp"
#include "support/random_data.hpp"
#include "support/reference.hpp"
#include "support/search_run.hpp"

namespace keyseek {
namespace {

using test::any;
using test::expect_error;

class SearchBatch : public testing::TestWithParam<IndexKind> {
 protected:
  const test::OodData data = test::make_ood_data({.n = 1200, .train_steps = 120});
  const Index index = Index::build(GetParam(), any(data.keys), data.training);
};
INSTANTIATE_TEST_SUITE_P(Kinds, SearchBatch, testing::ValuesIn(index_kinds()),
                         [](const auto& kind) { return std::string(to_string(kind.param)); });

TEST_P(SearchBatch, IsStepByStepWithoutAWarmStartAtAnyThreadCount) {
  const SearchParams params{.k = 20, .beta = 30.0F};
  for (const std::size_t group : {std::size_t{1}, data.training.group, data.test.rows() / 2}) {
    if (group > 64 || data.test.rows() % group != 0) continue;
    SearchStats stats;
    Matrix<Id> ids(data.test.rows(), params.k);
    Matrix<float> scores(data.test.rows(), params.k);
    for (std::size_t first = 0; first < data.test.rows(); first += group) {
      const Hits hits = test::search(index, data.test.view().slice(first, group), params);
      std::copy(hits.ids.begin(), hits.ids.end(), ids.row(first));
      std::copy(hits.scores.begin(), hits.scores.end(), scores.row(first));
      stats.scanned += hits.stats.scanned;
      stats.bytes_read += hits.stats.bytes_read;
    }
    for (const int threads : {1, 3}) {
      const BatchHits found = index.search_batch(data.test, group, params, {.threads = threads});
      const std::size_t all = data.test.rows() * params.k;
      EXPECT_TRUE(std::equal(ids.data(), ids.data() + all, found.ids.data()));
      EXPECT_TRUE(std::equal(scores.data(), scores.data() + all, found.scores.data()));
      EXPECT_EQ(found.stats.scanned, stats.scanned);
      EXPECT_EQ(found.stats.bytes_read, stats.bytes_read);
    }
  }
}

TEST_P(SearchBatch, RefusesWhatItCannotDo) {
  constexpr auto kInvalid = ErrorCode::invalid_argument;
  const auto refused = [&](const std::vector<std::string>& parts, MatrixView<float> queries,
                           std::size_t group, const SearchParams& params,
                           const Execution& run = {}) {
    expect_error(kInvalid, parts, [&] { (void)index.search_batch(queries, group, params, run); });
  };
  const MatrixView<float> queries = data.test.view();
  refused({"group is 0"}, queries, 0, {});
  refused({"group is 65"}, queries, 65, {});
  refused({"queries is empty"}, queries.slice(0, 0), 1, {});
  refused({"queries has 3 rows", "group = 2"}, queries.slice(0, 3), 2, {});
  refused({"k is 1201", "1200"}, queries, 1, {.k = 1201});
  refused({"k is 0"}, queries, 1, {.k = 0});
  refused({"threads is -1"}, queries, 1, {}, {.threads = -1});
  const Hits hits;
  refused({"params.previous"}, queries, 1, {.previous = &hits});
  const Matrix<float> wide = test::normal_matrix(2, data.keys.cols() + 1, 1);
  refused({"dimension"}, wide, 1, {});
}

TEST_P(SearchBatch, StopsWhenItIsCancelled) {
  const Execution run{.threads = 2, .progress = [](auto...) { return false; }};
  expect_error(ErrorCode::cancelled, {"searching"},
               [&] { (void)index.search_batch(data.test, 1, {.k = 5}, run); });
}

}  // namespace
}  // namespace keyseek
