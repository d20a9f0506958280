// Indexes on real attention vectors: a head of SmolLM2, as decoding meets it.
#include <gtest/gtest.h>

#include "keyseek/index.hpp"
#include "support/indexes.hpp"
#include "support/search_run.hpp"

namespace keyseek {
namespace {

using test::outcome;
using test::walk;

TEST(SampleHead, TheProjectionIndexReachesItsTargets) {
  const test::Sample sample;
  const auto index = test::projection_index(sample.keys(), sample.training);
  const BuildReport report = index.build_report().value();
  EXPECT_EQ(report.graph.unreachable, 0U);
  EXPECT_EQ(test::fact(index, "unreachable"), 0U);
  struct Window {
    double target, least, most;
  };
  // Keys scanned per warm step of three queries: .069, .091, .123 when this was written.
  const Window windows[] = {{0.9, 0.04, 0.1}, {0.95, 0.05, 0.13}, {0.98, 0.07, 0.18}};
  const std::size_t group = sample.data.group;
  for (const auto& [target, least, most] : windows) {
    const auto steps =
        walk(index, sample.data.queries, group, {.projection = {{.target_recall = target}}}, true);
    const auto seen = outcome(steps, sample.data.truth_ids, index.size());
    EXPECT_GE(seen.recall, target - 0.02);
    EXPECT_GE(seen.scanned_fraction, least) << "target " << target;
    EXPECT_LE(seen.scanned_fraction, most) << "target " << target;
    for (const std::size_t s : {0U, 1U, 500U, 1000U}) {
      const auto queries = sample.data.queries.view().slice(s * group, group);
      test::expect_valid(steps[s], sample.keys(), queries, 100);
    }
  }
}

TEST(SampleHead, ASingleQueryWithoutAWarmStartScansLess) {
  const test::Sample sample;
  const auto index =
      test::projection_index(sample.keys(), sample.training, {.target_recalls = {0.99}});
  const auto steps = walk(index, sample.data.queries, 1, {}, false);
  const auto seen = outcome(steps, sample.data.truth_ids, index.size());
  EXPECT_GE(seen.recall, 0.95);
  EXPECT_LE(seen.scanned_fraction, 0.13);
}

TEST(SampleHead, TheFlatIndexFindsNearlyAll) {
  const test::Sample sample;
  const Index index = test::flat_index(sample.keys());
  for (const bool warm : {false, true}) {
    const auto steps = walk(index, sample.data.queries, sample.data.group, {}, warm);
    EXPECT_GE(outcome(steps, sample.data.truth_ids, index.size()).recall, 0.9995)
        << "warm " << warm;
  }
}

TEST(SampleHead, TheSketchIndexFindsNearlyAll) {
  const test::Sample sample;
  const Index index = test::sketch_index(sample.keys(), sample.training.train);
  EXPECT_LE(index.extra_bytes(), index.size() * 40);
  for (const bool warm : {false, true}) {
    const auto steps = walk(index, sample.data.queries, sample.data.group, {}, warm);
    const auto seen = outcome(steps, sample.data.truth_ids, index.size());
    EXPECT_GE(seen.recall, 0.995) << "warm " << warm;
  }
}

TEST(SampleHead, Int8ListsAreNearlyExact) {
  const test::Sample sample;
  const auto lists = exact_knn(sample.keys(), sample.data.queries, {.method = KnnMethod::int8});
  EXPECT_GE(recall(sample.data.truth_ids, lists.ids), 0.9999);
}

TEST(SampleHead, PivotProjectionWorksToo) {
  const test::Sample sample;
  const ProjectionParams params = {.graph = {.link_method = LinkMethod::pivot},
                                   .target_recalls = {0.95}};
  const auto index = test::projection_index(sample.keys(), sample.training, params);
  EXPECT_EQ(test::fact(index, "unreachable"), 0U);
  const auto steps = walk(index, sample.data.queries, sample.data.group, {}, true);
  EXPECT_GE(outcome(steps, sample.data.truth_ids, index.size()).recall, 0.93);
}

}  // namespace
}  // namespace keyseek
