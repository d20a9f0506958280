// Rounds: what is measured again, what ends a contender, and what becomes a row.
#include "sweep/sweep.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>

#include "cli/small_problem.hpp"
#include "file/temporary_directory.hpp"

namespace keyseek::sweep {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using Fields = std::vector<std::string>;

class SweepTest : public testing::Test {
 protected:
  Sweep sweep(SweepParams params) {
    params.style = bench_rows();
    return Sweep({.name = "made", .data = data_, .truth = data_.truth_ids, .k = 10, .group = 2},
                 std::move(params), (folder_ / "r.jsonl").string(),
                 [this](const std::string& line) { lines_.push_back(line); });
  }

  /// Points named by their times; a run takes as many microseconds per step and seconds as it says
  /// and finds everything, or nothing where the time is negative.
  Contender contender(std::vector<int> times, std::string index = "made") {
    Contender made{.index = std::move(index), .identity = {{"version", "1"}}, .points = {}};
    for (const int us : times) {
      made.points.push_back({});
      made.points.back().params["us"] = us;
    }
    made.build = [this](const Execution&, std::vector<Point>&) {
      ++builds_;
      return Built{.seconds = 1, .bytes = 2};
    };
    made.measure = [this](const Point& point, bool) {
      const int us = point.params["us"].get<int>();
      ++runs_[us];
      if (us == failing_) throw ContenderFailed("made broke");
      Sample sample{.ids = Matrix<Id>(data_.truth_ids), .seconds = us > 900 ? 3.0 : 0.1};
      if (us < 0) std::fill_n(sample.ids.data(), sample.ids.rows() * sample.ids.cols(), kNoId);
      sample.us_per_step_p50 = std::abs(us) + runs_[us];
      return sample;
    };
    return made;
  }

  test::TemporaryDirectory folder_;
  io::Benchmark data_ = test::small_benchmark();
  std::vector<std::string> lines_;
  std::map<int, int> runs_;
  int failing_ = 0, builds_ = 0;
};

TEST_F(SweepTest, RowsSayWhatWasMeasured) {
  Sweep made = sweep({.rounds = 2});
  made.add(contender({10}), {.threads = 1});
  const auto rows = made.measure();
  ASSERT_EQ(rows.size(), 1U);
  Fields fields;
  for (const auto& [name, value] : rows[0].items()) fields.push_back(name);
  EXPECT_THAT(fields,
              ElementsAre("dataset", "index", "params", "k", "group", "recall_at_k",
                          "scanned_fraction", "bytes_read", "us_per_step_p50", "us_per_step_p95",
                          "us_per_query", "build_s", "index_bytes", "unreachable", "keys", "dim",
                          "queries", "cache", "version", "expanded", "build_threads", "rounds"));
  EXPECT_EQ(rows[0]["us_per_step_p50"], 11.5);  // the median of 11 and 12
  EXPECT_EQ(rows[0]["recall_at_k"], 1.0);
  EXPECT_EQ(rows[0]["unreachable"], nullptr);
  EXPECT_EQ(rows[0]["rounds"], 2);
}

TEST_F(SweepTest, RowsThatAreThereAreSkipped) {
  {
    Sweep first = sweep({.rounds = 1});
    first.add(contender({10}), {});
    EXPECT_EQ(first.measure().size(), 1U);
  }
  Sweep second = sweep({.rounds = 1});
  second.add(contender({10}), {});
  EXPECT_EQ(builds_, 1);
  EXPECT_THAT(lines_.back(), HasSubstr("all rows are there"));
  second.add(contender({10, 20}), {});
  EXPECT_EQ(second.skipped(), 2U);
  EXPECT_EQ(second.measure().size(), 1U);
  EXPECT_EQ(builds_, 2);
}

TEST_F(SweepTest, PointsThatDecideNothingAreNotRepeated) {
  Sweep made = sweep({.rounds = 3, .thrifty = true});
  // Finds all; nothing, and slowly; a little slower than the first; so long that once is enough.
  made.add(contender({10, -20, 11, 950}), {});
  made.add(contender({90}, "other"), {});
  EXPECT_EQ(made.measure().size(), 5U);
  EXPECT_THAT(runs_, ElementsAre(std::pair(-20, 1), std::pair(10, 3), std::pair(11, 3),
                                 std::pair(90, 3), std::pair(950, 1)));
}

TEST_F(SweepTest, EveryPointIsRepeatedUnlessAskedOtherwise) {
  Sweep made = sweep({.rounds = 2});
  made.add(contender({10, -20, 950}), {});
  EXPECT_EQ(made.measure().size(), 3U);
  EXPECT_EQ(runs_[-20] + runs_[950], 4);
}

TEST_F(SweepTest, AContenderThatFailsOrIsSlowGetsNoFurther) {
  failing_ = 20;
  Sweep made = sweep({.rounds = 1, .patience_s = 1});
  made.add(contender({10, 20, 30, 40}), {});
  made.add(contender({950, 960}, "slow"), {});
  made.add(contender({50}, "other"), {});
  EXPECT_EQ(made.measure().size(), 3U);  // 10, 950 and 50
  EXPECT_EQ(runs_[30] + runs_[40] + runs_[960], 0);
  EXPECT_THAT(lines_, testing::Contains("warning: made broke: its more thorough points are left "
                                        "out"));
  EXPECT_THAT(lines_, testing::Contains("warning: slow took longer than 1 s: its more thorough "
                                        "points are left out"));
}

TEST_F(SweepTest, AContenderThatCannotBeBuiltIsLeftOut) {
  Sweep made = sweep({});
  Contender broken = contender({10});
  broken.build = [](const Execution&, std::vector<Point>&) -> Built {
    throw ContenderFailed("made is broken");
  };
  made.add(std::move(broken), {});
  EXPECT_EQ(lines_.back(), "warning: made is broken; it is left out");
  EXPECT_TRUE(made.measure().empty());
}

TEST_F(SweepTest, ACpuThatMayNotBeUsedIsRefused) {
  EXPECT_THROW((void)sweep({.pin = 5000}), Error);
  EXPECT_FALSE(std::filesystem::exists(folder_ / "r.jsonl"));
}

TEST(SweepMedian, OfAnEvenNumberIsBetweenTheMiddleTwo) {
  EXPECT_EQ(median({3, 1, 2}), 2);
  EXPECT_EQ(median({4, 1, 3, 2}), 2.5);
}

}  // namespace
}  // namespace keyseek::sweep
