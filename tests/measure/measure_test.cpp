#include "keyseek/measure.hpp"

#include <gtest/gtest.h>

#include "file/temporary_directory.hpp"
#include "keyseek/knn.hpp"
#include "measure/cache_eviction.hpp"
#include "support/indexes.hpp"
#include "support/ood_data.hpp"

namespace keyseek::test {
namespace {

class Measure : public testing::Test {
 protected:
  OodData data_ = make_ood_data({.n = 600, .d = 16, .train_steps = 150, .test_steps = 30});
  Index flat_ = test::flat_index(AnyMatrixView::of(data_.keys.view()));
  Index projection_ = test::projection_index(AnyMatrixView::of(data_.keys.view()), data_.training);
  MeasureParams params_ = {.group = 2, .search = {.k = 10}};
};

TEST_F(Measure, FlatScansEverything) {
  const Measurement m = measure_steps(flat_, data_.test, params_);
  EXPECT_EQ(m.ids.rows(), data_.test.rows());
  EXPECT_EQ(m.ids.cols(), 10U);
  const auto truth = exact_knn(AnyMatrixView::of(data_.keys.view()), data_.test, {.k = 10});
  EXPECT_GT(recall(truth.ids, m.ids), 0.999);
  EXPECT_EQ(m.scanned_fraction, 1.0);
  EXPECT_EQ(m.expanded, 0.0);
  EXPECT_GT(m.bytes_read, 600.0 * 16);
}

TEST_F(Measure, TimesAreOrdered) {
  const Measurement m = measure_steps(flat_, data_.test, params_);
  EXPECT_GT(m.us_p50, 0);
  EXPECT_GE(m.us_p95, m.us_p50);
  EXPECT_GT(m.us_mean, 0);
}

TEST_F(Measure, IsWhatSearchingStepAfterStepFinds) {
  const Measurement m = measure_steps(projection_, data_.test, params_);
  SearchScratch scratch;
  Hits hits;
  double scanned = 0, bytes = 0, expanded = 0;
  for (std::size_t s = 0; s < data_.steps(); ++s) {
    SearchParams search{.k = 10};
    if (s > 0) search.previous = &hits;
    projection_.search(data_.step(s), search, scratch, hits);
    for (std::size_t g = 0; g < 2; ++g) {
      for (std::size_t r = 0; r < 10; ++r) EXPECT_EQ(m.ids.row(s * 2 + g)[r], hits.ids[g * 10 + r]);
    }
    scanned += static_cast<double>(hits.stats.scanned);
    bytes += static_cast<double>(hits.stats.bytes_read);
    expanded += static_cast<double>(hits.stats.expanded);
  }
  const auto steps = static_cast<double>(data_.steps());
  EXPECT_DOUBLE_EQ(m.scanned_fraction, scanned / steps / 600);
  EXPECT_DOUBLE_EQ(m.bytes_read, bytes / steps);
  EXPECT_DOUBLE_EQ(m.expanded, expanded / steps);
}

TEST_F(Measure, HowItIsTimedDoesNotChangeWhatIsFound) {
  const Measurement plain = measure_steps(projection_, data_.test, params_);
  params_.repeats = 3;
  params_.cold_cache = true;
  params_.timed_steps = 2;
  const Measurement cold = measure_steps(projection_, data_.test, params_);
  for (std::size_t i = 0; i < plain.ids.rows() * 10; ++i) {
    ASSERT_EQ(plain.ids.data()[i], cold.ids.data()[i]);
  }
  EXPECT_EQ(plain.scanned_fraction, cold.scanned_fraction);
  EXPECT_GT(cold.us_p50, 0);
}

TEST_F(Measure, WarmStartScansThePreviousHits) {
  params_.search.projection = {.dials = Dials{.probes = 1, .lists = 1, .expand = 0}};
  const Measurement warm = measure_steps(projection_, data_.test, params_);
  params_.warm_start = false;
  const Measurement fresh = measure_steps(projection_, data_.test, params_);
  EXPECT_GT(warm.scanned_fraction, fresh.scanned_fraction);
}

TEST_F(Measure, OneTimedStep) {
  params_.timed_steps = 1;
  const Measurement m = measure_steps(flat_, data_.test, params_);
  EXPECT_EQ(m.us_p50, m.us_p95);
  EXPECT_EQ(m.us_p50, m.us_mean);
  params_.timed_steps = 1000;  // more than there are: all
  EXPECT_GT(measure_steps(flat_, data_.test, params_).us_mean, 0);
}

TEST_F(Measure, ReportsAndStops) {
  std::size_t last = 0;
  params_.repeats = 2;
  params_.progress = [&](std::string_view, std::size_t done, std::size_t total) {
    EXPECT_GT(done, last);
    EXPECT_EQ(total, 60U);
    last = done;
    return true;
  };
  (void)measure_steps(flat_, data_.test, params_);
  EXPECT_EQ(last, 60U);
  params_.progress = [](std::string_view, std::size_t done, std::size_t) { return done < 7; };
  expect_error(ErrorCode::cancelled, {"step 7 of 60"},
               [&] { (void)measure_steps(flat_, data_.test, params_); });
}

TEST_F(Measure, Refuses) {
  const auto refuse = [&](const std::vector<std::string>& parts, MeasureParams params,
                          MatrixView<float> queries) {
    expect_error(ErrorCode::invalid_argument, parts,
                 [&] { (void)measure_steps(flat_, queries, params); });
  };
  const MatrixView<float> queries = data_.test;
  refuse({"group is 0"}, {.group = 0}, queries);
  refuse({"group is 65"}, {.group = 65}, queries);
  refuse({"queries has 60 rows", "group = 7"}, {.group = 7}, queries);
  refuse({"queries is empty"}, {}, queries.slice(0, 0));
  refuse({"repeats is 0"}, {.repeats = 0}, queries);
  refuse({"k is 0"}, {.search = {.k = 0}}, queries);
  refuse({"k is 601", "600"}, {.search = {.k = 601}}, queries);
  refuse({"dimension"}, {.search = {.k = 5}}, normal_matrix(2, 3, 1));
  expect_error(ErrorCode::invalid_argument, {"empty"},
               [&] { (void)measure_steps(Index(), queries, {}); });
}

TEST(CacheEviction, BufferIsLargeButBounded) {
  CacheEviction eviction;
  EXPECT_GE(eviction.bytes(), std::size_t{64} << 20U);
  EXPECT_LE(eviction.bytes(), std::size_t{256} << 20U);
  eviction.evict();
  eviction.evict();
}

}  // namespace
}  // namespace keyseek::test
