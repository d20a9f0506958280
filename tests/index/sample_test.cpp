// Both indexes on real attention vectors: a head of SmolLM2, as decoding meets it.
#include <gtest/gtest.h>

#include "keyseek/index.hpp"
#include "support/search_run.hpp"

namespace keyseek {
namespace {

using test::outcome;
using test::walk;

TEST(SampleHead, TheProjectionIndexReachesItsTargets) {
  const test::Sample sample;
  BuildReport report;
  const auto index = ProjectionIndex::build(sample.keys(), sample.training, {}, {}, &report);
  EXPECT_EQ(report.graph.unreachable, 0U);
  EXPECT_EQ(index.unreachable(), 0U);
  struct Window {
    double target, least, most;
  };
  // Shares of keys scanned per step of three queries, warm: as measured, and half as much more.
  for (const auto& [target, least, most] :
       {Window{0.9, 0.02, 0.15}, {0.95, 0.02, 0.2}, {0.98, 0.02, 0.3}}) {
    const auto steps =
        walk(index, sample.data.queries, sample.data.group, {.target_recall = target}, true);
    const auto seen = outcome(steps, sample.data.truth_ids, index.size());
    EXPECT_GE(seen.recall, target - 0.02);
    EXPECT_GE(seen.scanned_fraction, least);
    EXPECT_LE(seen.scanned_fraction, most);
    for (const std::size_t s : {0U, 500U}) {
      test::expect_valid(steps[s], sample.keys(),
                         sample.data.queries.view().slice(s * sample.data.group, sample.data.group),
                         100);
    }
    const auto single =
        outcome(walk(index, sample.data.queries, 1, {.target_recall = target}, false),
                sample.data.truth_ids, index.size());
    std::printf("target %.2f: warm %.4f scanned %.4f, single cold %.4f scanned %.4f\n", target,
                seen.recall, seen.scanned_fraction, single.recall, single.scanned_fraction);
  }
}

TEST(SampleHead, TheFlatIndexFindsNearlyAll) {
  const test::Sample sample;
  const FlatIndex index = FlatIndex::build(sample.keys());
  for (const bool warm : {false, true}) {
    const auto steps = walk(index, sample.data.queries, sample.data.group, {}, warm);
    EXPECT_GE(outcome(steps, sample.data.truth_ids, index.size()).recall, 0.9995)
        << "warm " << warm;
  }
}

TEST(SampleHead, Int8ListsAreNearlyExact) {
  const test::Sample sample;
  const auto lists = exact_knn(sample.keys(), sample.data.queries, {.method = KnnMethod::int8});
  EXPECT_GE(recall(sample.data.truth_ids, lists.ids), 0.9999);
}

TEST(SampleHead, PivotProjectionWorksToo) {
  const test::Sample sample;
  const ProjectionParams params = {.graph = {.projection = Projection::pivot},
                                   .target_recalls = {0.95}};
  const auto index = ProjectionIndex::build(sample.keys(), sample.training, params);
  EXPECT_EQ(index.unreachable(), 0U);
  const auto steps = walk(index, sample.data.queries, sample.data.group, {}, true);
  EXPECT_GE(outcome(steps, sample.data.truth_ids, index.size()).recall, 0.93);
}

}  // namespace
}  // namespace keyseek
