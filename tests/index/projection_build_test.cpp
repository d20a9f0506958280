// How a projection index is built.
#include <gtest/gtest.h>

#include <limits>
#include <set>
#include <string>

#include "file/temporary_directory.hpp"
#include "index/tuning.hpp"
#include "keyseek/index.hpp"
#include "support/indexes.hpp"
#include "support/ood_data.hpp"
#include "support/reference.hpp"
#include "support/search_run.hpp"

namespace keyseek {
namespace {

using test::any;
using test::expect_error;

constexpr auto kInvalid = ErrorCode::invalid_argument;

test::Bytes saved(const Index& index) {
  const test::TemporaryDirectory directory;
  index.save(directory / "index.ks");
  return test::read_bytes(directory / "index.ks");
}

TEST(ProjectionBuild, TheSameBytesAtAnyThreadCount) {
  const test::OodData data = test::make_ood_data();
  for (const LinkMethod method : {LinkMethod::cooccurrence, LinkMethod::pivot}) {
    const ProjectionParams params = {.list_length = 40, .graph = {.link_method = method}};
    const auto bytes = [&](int threads) {
      return saved(
          test::projection_index(any(data.keys), data.training, params, {.threads = threads}));
    };
    const auto one = bytes(1);
    EXPECT_GT(one.size(), 2000U * 32 * 5);
    EXPECT_EQ(bytes(2), one);
    EXPECT_EQ(bytes(4), one);
  }
}

TEST(ProjectionBuild, ListsMayBeGiven) {
  const test::OodData data = test::make_ood_data({.n = 800, .train_steps = 200});
  const auto lists = exact_knn(any(data.keys), data.training.train, {.k = 30}).ids;
  const ProjectionParams params = {.list_length = 30, .list_method = KnnMethod::f32};
  TrainingQueries with_lists = data.training;
  with_lists.lists = lists;
  EXPECT_EQ(saved(test::projection_index(any(data.keys), with_lists, params)),
            saved(test::projection_index(any(data.keys), data.training, params)));
}

TEST(ProjectionBuild, ReportsWhatItDid) {
  const test::OodData data = test::make_ood_data();
  const auto index = test::projection_index(any(data.keys), data.training);
  const BuildReport report = index.build_report().value();
  EXPECT_EQ(report.training_queries, data.training.train.rows());
  EXPECT_EQ(report.tuning_queries, data.training.tuning.rows());
  EXPECT_GT(report.graph.unwanted, 0U);
  EXPECT_GE(report.graph.unreachable_before, report.graph.unwanted);
  EXPECT_EQ(report.graph.unreachable, 0U);
  EXPECT_GT(report.graph.links, 2000U);
  EXPECT_NEAR(report.total_s, report.lists_s + report.graph_s + report.router_s + report.tune_s,
              1e-9);
  for (const double s : {report.lists_s, report.graph_s, report.router_s, report.tune_s})
    EXPECT_GT(s, 0);
  EXPECT_EQ(test::fact(index, "unreachable"), 0U);
  EXPECT_EQ(index.size(), 2000U);
  EXPECT_EQ(index.dim(), 32U);
  EXPECT_EQ(index.bytes(), index.extra_bytes() + 2000 * 32 * sizeof(float));
  EXPECT_GE(index.extra_bytes(), 2000U * 36 + report.graph.links * sizeof(Id));
}

TEST(ProjectionBuild, TuningFindsDialsForEachTarget) {
  const test::OodData data = test::make_ood_data();
  const ProjectionParams params = {
      .list_length = 20, .target_recalls = {0.99, 0.5, 0.9}, .tuning_k = 50};
  const auto points =
      test::projection_index(any(data.keys), data.training, params).operating_points();
  ASSERT_EQ(points.size(), 3U);
  const std::vector<double> targets = {0.5, 0.9, 0.99};
  for (std::size_t i = 0; i < 3; ++i) {
    EXPECT_EQ(points[i].target_recall, targets[i]);
    EXPECT_GT(points[i].recall, 0.0);
    EXPECT_LE(points[i].recall, 1.0);
    EXPECT_TRUE(points[i].recall >= targets[i] || points[i].flat_is_better);
    EXPECT_GT(points[i].scanned_fraction, 0.0);
    EXPECT_LE(points[i].scanned_fraction, 1.0);
  }
  EXPECT_GE(points[0].recall, 0.5);
  EXPECT_GE(points[1].recall, 0.9);
  EXPECT_LT(points[0].scanned_fraction, points[2].scanned_fraction / 2);
  EXPECT_TRUE(test::projection_index(any(data.keys), data.training, {.target_recalls = {}})
                  .operating_points()
                  .empty());
}

TEST(ProjectionBuild, FewKeysAreBetterScanned) {
  const test::OodData data = test::make_ood_data({.n = 300});
  for (const auto& point :
       test::projection_index(any(data.keys), data.training).operating_points()) {
    EXPECT_TRUE(point.flat_is_better) << point.target_recall;
  }
}

TEST(ProjectionBuild, DialsAreChosenByTargetAndK) {
  const std::vector<OperatingPoint> points = {{.target_recall = 0.9, .dials = {1, 2, 3, 4}},
                                              {.target_recall = 0.99, .dials = {10, 20, 30, 0}}};
  EXPECT_EQ(choose_dials({}, 100, 100, 0.9), Dials());
  EXPECT_EQ(choose_dials(points, 100, 100, 0.5), (Dials{1, 2, 3, 4}));
  EXPECT_EQ(choose_dials(points, 100, 10, 0.9), (Dials{1, 2, 3, 4}));
  EXPECT_EQ(choose_dials(points, 100, 100, 0.91), (Dials{10, 20, 30, 0}));
  EXPECT_EQ(choose_dials(points, 100, 100, 1.0), (Dials{10, 20, 30, 0}));
  EXPECT_EQ(choose_dials(points, 100, 250, 0.9), (Dials{2, 5, 7, 4}));
  EXPECT_EQ(choose_dials(points, 100, 1000000, 1.0), (Dials{65535, 65535, 65535, 0}));
}

TEST(ProjectionBuild, StrangeDataWorks) {
  const auto builds = [](const Matrix<float>& keys, const Matrix<float>& queries) {
    const TrainingQueries training{queries, queries, 1, 4};
    const auto index = test::projection_index(any(keys), training);
    EXPECT_EQ(test::fact(index, "unreachable"), 0U);
    const std::size_t k = std::min<std::size_t>(5, keys.rows());
    const Hits hits = test::search(
        index, queries.view().slice(0, 3),
        {.k = k, .projection = {{.dials = Dials{.lists = 0, .expand = 100000, .pool = 1000}}}});
    test::expect_valid(hits, any(keys), queries.view().slice(0, 3), k);
    EXPECT_EQ(hits.ids,
              test::elements(exact_knn(any(keys), queries.view().slice(0, 3), {.k = k}).ids));
  };
  builds(test::normal_matrix(300, 1, 1), test::normal_matrix(40, 1, 2));
  builds(test::normal_matrix(1, 8, 1), test::normal_matrix(40, 8, 2));   // one key
  builds(test::normal_matrix(300, 8, 1), test::normal_matrix(3, 8, 2));  // hardly a query
  builds(Matrix<float>(300, 8), test::normal_matrix(40, 8, 2));          // zero keys
  builds(test::normal_matrix(300, 8, 1), Matrix<float>(40, 8));          // zero queries
  Matrix<float> keys = test::normal_matrix(300, 8, 3);
  for (std::size_t i = 0; i < 150; ++i) std::copy_n(keys.row(0), 8, keys.row(2 * i));  // duplicates
  builds(keys, test::normal_matrix(40, 8, 4));
  for (std::size_t i = 0; i < 300 * 8; ++i) keys.data()[i] *= 1e-40F;  // denormal
  builds(keys, test::normal_matrix(40, 8, 4));
}

TEST(ProjectionBuild, EveryStageReportsAndCanBeCancelled) {
  const test::OodData data = test::make_ood_data({.n = 1000, .train_steps = 150});
  std::set<std::string> stages;
  const auto build = [&](const std::string& last) {
    const Execution run{.threads = 2,
                        .progress = [&](std::string_view stage, std::size_t, std::size_t) {
                          stages.insert(std::string(stage));
                          return stage != last;
                        }};
    (void)test::projection_index(any(data.keys), data.training, {.list_length = 20}, run);
  };
  build("");
  EXPECT_GE(stages.size(), 6U);
  for (const std::string& stage : std::set<std::string>(stages)) {
    expect_error(ErrorCode::cancelled, {stage}, [&] { build(stage); });
  }
}

TEST(ProjectionBuild, RefusesWrongInput) {
  const test::OodData data = test::make_ood_data({.n = 200, .train_steps = 30});
  const auto refused = [&](const std::vector<std::string>& parts, auto change,
                           ErrorCode code = kInvalid, const ProjectionParams& params = {}) {
    TrainingQueries training = data.training;
    Matrix<float> keys = data.keys;
    change(keys, training);
    expect_error(code, parts, [&] { (void)test::projection_index(any(keys), training, params); });
  };
  constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();
  refused({"keys is empty"}, [](auto& keys, auto&) { keys = {}; });
  refused({"training.train is empty"}, [](auto&, auto& t) { t.train = {}; });
  refused({"training.train has dimension 31", "32"},
          [](auto&, auto& t) { t.train = Matrix<float>(4, 31); });
  refused({"training.tuning has dimension 33", "32"},
          [](auto&, auto& t) { t.tuning = Matrix<float>(4, 33); });
  refused({"training.tuning has 3 rows", "group = 2"},
          [](auto&, auto& t) { t.tuning = Matrix<float>(3, 32); });
  refused({"training.group is 0"}, [](auto&, auto& t) { t.group = 0; });
  refused({"training.group is 65"}, [](auto&, auto& t) { t.group = 65; });
  refused(
      {"keys row 7"}, [](auto& keys, auto&) { keys.row(7)[3] = kNaN; }, ErrorCode::not_finite);
  refused(
      {"training.train row 5"}, [](auto&, auto& t) { t.train.row(5)[3] = kNaN; },
      ErrorCode::not_finite);
  refused(
      {"training.tuning row 2"}, [](auto&, auto& t) { t.tuning.row(2)[3] = kNaN; },
      ErrorCode::not_finite);
  const auto nothing = [](auto&, auto&) {};
  refused({"list_length is 0"}, nothing, kInvalid, {.list_length = 0});
  refused({"tuning_k is 0"}, nothing, kInvalid, {.tuning_k = 0});
  refused({"target_recalls hold 1"}, nothing, kInvalid, {.target_recalls = {0.5, 1.0}});
  refused({"degree is 0"}, nothing, kInvalid, {.graph = {.degree = 0}});
  refused({"router.clusters is 0"}, nothing, kInvalid, {.router = {.clusters = 0}});

  const auto lists_refused = [&](const std::vector<std::string>& parts, const Matrix<Id>& lists) {
    TrainingQueries with_lists = data.training;
    with_lists.lists = lists;
    expect_error(kInvalid, parts,
                 [&] { (void)test::projection_index(any(data.keys), with_lists); });
  };
  lists_refused({"lists has 59 rows", "60"}, Matrix<Id>(59, 5));
  Matrix<Id> wrong(60, 5);
  wrong.row(33)[4] = 200;
  lists_refused({"lists row 33", "key 200", "200 keys"}, wrong);
}

}  // namespace
}  // namespace keyseek
