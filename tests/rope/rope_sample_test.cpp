#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <set>
#include <string>
#include <vector>

#include "keyseek/error.hpp"
#include "keyseek/rope.hpp"

namespace keyseek {
namespace {

constexpr std::size_t kFirst = 100;  // position of block 0
constexpr std::size_t kDim = 6;
// Pair 0 = (0, 3) turns so slowly that its angle tells a shift; the others do not turn.
constexpr double kRadians = 1e-5;
const RopeParams kRope{.frequencies = {kRadians, 0, 0}};

std::vector<std::size_t> positions_of(std::size_t count) {
  std::vector<std::size_t> positions(count);
  std::iota(positions.begin(), positions.end(), kFirst);
  return positions;
}

/// Queries that say where they come from: (1, block, head, 0, 0, 0).
Matrix<float> labelled(std::size_t positions, std::size_t group) {
  Matrix<float> m(positions * group, kDim);
  for (std::size_t i = 0; i < m.rows(); ++i) {
    m.row(i)[0] = 1;
    const std::size_t block = i / group;
    m.row(i)[1] = static_cast<float>(block);
    m.row(i)[2] = static_cast<float>(i % group);
  }
  return m;
}

TrainingQueries sample(std::size_t positions, std::size_t group,
                       const TrainingSampleParams& params) {
  const auto queries = labelled(positions, group);
  return sample_training_queries(queries, positions_of(positions), group, kRope, params);
}

/// Blocks of the rows, one per position; checks that all heads are there, side by side.
std::vector<std::size_t> blocks_of(const Matrix<float>& m, std::size_t group) {
  std::vector<std::size_t> blocks;
  EXPECT_EQ(m.rows() % group, 0U);
  for (std::size_t i = 0; i < m.rows(); ++i) {
    const auto block = static_cast<std::size_t>(m.row(i)[1]);
    EXPECT_EQ(m.row(i)[2], static_cast<float>(i % group));
    if (i % group == 0) {
      blocks.push_back(block);
    } else {
      EXPECT_EQ(block, blocks.back());
    }
  }
  return blocks;
}

/// Where the query of row i now stands, from the angle of pair 0.
long target_of(const Matrix<float>& m, std::size_t i) {
  const float* row = m.row(i);
  const double shift = std::atan2(row[3], row[0]) / kRadians;
  return std::lround(shift + static_cast<double>(row[1])) + static_cast<long>(kFirst);
}

bool same_bytes(const Matrix<float>& a, const Matrix<float>& b) {
  return a.rows() == b.rows() && std::equal(a.data(), a.data() + a.rows() * a.cols(), b.data());
}

constexpr std::size_t kMany = 4000;
const TrainingSampleParams kUsual{.now = kFirst + kMany, .horizon = 512, .share = 0.1};

TEST(SampleTrainingQueries, TakesTheNewestShareAndHoldsOutRuns) {
  const auto out = sample(kMany, 3, kUsual);
  EXPECT_EQ(out.group, 3U);
  EXPECT_EQ(out.tuning_steps, 24U);
  const auto train = blocks_of(out.train, 3);
  const auto tuning = blocks_of(out.tuning, 3);
  EXPECT_EQ(train.size(), 400U);  // not one less for what is held out
  EXPECT_EQ(tuning.size(), 4 * 24U);

  EXPECT_EQ(train.front(), kMany - 400);
  EXPECT_EQ(train.back(), kMany - 1);
  EXPECT_TRUE(std::is_sorted(train.begin(), train.end()));
  EXPECT_LT(tuning.back(), train.front());
}

TEST(SampleTrainingQueries, RunsAreConsecutiveAndAsFarAwayAsDecodingWillBe) {
  const auto tuning = blocks_of(sample(kMany, 1, kUsual).tuning, 1);
  for (std::size_t i = 0; i < tuning.size(); ++i) {
    const std::size_t begin = tuning[i / 24 * 24];
    EXPECT_EQ(tuning[i], begin + i % 24);
    // The 512 positions before the newest 400 in 4 parts of 128, each run in the middle of its
    // part.
    EXPECT_EQ(begin, kMany - 400 - 512 + i / 24 * 128 + 52);
  }
}

TEST(SampleTrainingQueries, TargetsFillTheHorizon) {
  const auto out = sample(kMany, 2, kUsual);
  std::vector<long> targets;
  for (std::size_t i = 0; i < out.train.rows(); ++i) {
    const long target = target_of(out.train, i);
    EXPECT_GE(target, static_cast<long>(kUsual.now));
    EXPECT_LT(target, static_cast<long>(kUsual.now + kUsual.horizon));
    if (i % 2 == 1) {
      EXPECT_EQ(target, targets.back());  // all heads of a position move together
    } else {
      targets.push_back(target);
    }
  }
  const double mean = std::accumulate(targets.begin(), targets.end(), 0.0) / 400;
  EXPECT_NEAR(mean, static_cast<double>(kUsual.now) + 255.5, 30);
  EXPECT_GT(std::set<long>(targets.begin(), targets.end()).size(), 250U);
}

TEST(SampleTrainingQueries, ARunMovesAsOnePiece) {
  const auto out = sample(kMany, 2, kUsual);
  std::set<long> begins;
  for (std::size_t i = 0; i < out.tuning.rows(); ++i) {
    const std::size_t run = i - i % 48;  // two heads
    const long begin = target_of(out.tuning, run);
    EXPECT_GE(begin, static_cast<long>(kUsual.now));
    EXPECT_LT(begin, static_cast<long>(kUsual.now + kUsual.horizon));
    EXPECT_EQ(target_of(out.tuning, i), begin + static_cast<long>((i - run) / 2));
    begins.insert(begin);
  }
  EXPECT_EQ(begins.size(), 4U);
}

TEST(SampleTrainingQueries, KeepsTheDistancesOfSparsePositions) {
  auto params = kUsual;
  params.now = kFirst + 3 * kMany;
  auto positions = positions_of(kMany);
  for (std::size_t i = 0; i < kMany; ++i) positions[i] = kFirst + 3 * i;
  const auto out = sample_training_queries(labelled(kMany, 1), positions, 1, kRope, params);
  for (std::size_t i = 0; i < out.tuning.rows(); ++i) {
    // target_of reckons with steps of one; the rest of the steps of three is in the blocks.
    const std::size_t run = i / 24 * 24;
    const auto at = [&](std::size_t row) {
      return target_of(out.tuning, row) + 2 * static_cast<long>(out.tuning.row(row)[1]);
    };
    EXPECT_EQ(at(i), at(run) + 3 * static_cast<long>(i - run));
  }
}

TEST(SampleTrainingQueries, IsDeterministicInTheSeed) {
  auto params = kUsual;
  const auto a = sample(kMany, 2, params);
  const auto b = sample(kMany, 2, params);
  EXPECT_TRUE(same_bytes(a.train, b.train));
  EXPECT_TRUE(same_bytes(a.tuning, b.tuning));
  params.seed = 2;
  const auto c = sample(kMany, 2, params);
  EXPECT_FALSE(same_bytes(a.train, c.train));
  EXPECT_EQ(blocks_of(a.train, 2), blocks_of(c.train, 2));  // the seed draws targets only
}

TEST(SampleTrainingQueries, WithoutShiftRowsAreCopies) {
  auto params = kUsual;
  params.shift = false;
  params.now = 0;
  const auto out = sample(kMany, 2, params);
  EXPECT_EQ(out.train.rows(), 800U);
  EXPECT_EQ(out.tuning.rows(), 2 * 4 * 24U);
  const auto queries = labelled(kMany, 2);
  for (const auto* m : {&out.train, &out.tuning}) {
    for (std::size_t i = 0; i < m->rows(); ++i) {
      const auto block = static_cast<std::size_t>(m->row(i)[1]);
      EXPECT_TRUE(std::equal(m->row(i), m->row(i) + kDim, queries.row(block * 2 + i % 2)));
    }
  }
}

TEST(SampleTrainingQueries, WithoutShiftNeedsNoRope) {
  const Matrix<float> odd(8, 3);
  const auto out = sample_training_queries(odd, positions_of(8), 1, {}, {.shift = false});
  EXPECT_EQ(out.train.cols(), 3U);
}

TEST(SampleTrainingQueries, ReadsStridedQueries) {
  const auto whole = labelled(kMany, 1);
  const MatrixView<float> every_second(whole.data(), kMany / 2, kDim, 2 * kDim);
  const auto out = sample_training_queries(every_second, positions_of(kMany / 2), 1, kRope, kUsual);
  for (const auto block : blocks_of(out.train, 1)) EXPECT_EQ(block % 2, 0U);
}

TEST(SampleTrainingQueries, ShareIsRoundedUp) {
  auto params = kUsual;
  params.tuning_runs = 0;
  const auto taken = [&](std::size_t positions, double share) {
    params.share = share;
    return sample(positions, 1, params).train.rows();
  };
  EXPECT_EQ(taken(100, 0.07), 7U);  // .07 * 100 is a little more than 7 in binary
  EXPECT_EQ(taken(101, 0.07), 8U);
  EXPECT_EQ(taken(10, 1e-9), 1U);
  EXPECT_EQ(taken(kMany, 1), kMany);
  EXPECT_EQ(taken(1, 1), 1U);
}

TEST(SampleTrainingQueries, ZeroRunsHoldNothingOut) {
  auto params = kUsual;
  params.tuning_runs = 0;
  params.tuning_steps = 0;
  const auto out = sample(kMany, 2, params);
  EXPECT_EQ(out.tuning.rows(), 0U);
  EXPECT_EQ(out.tuning_steps, 0U);
  const auto train = blocks_of(out.train, 2);
  EXPECT_EQ(train.front(), kMany - 400);
  EXPECT_EQ(train.size(), 400U);
}

TEST(SampleTrainingQueries, FullShareTrainsOnAllButTheTuningHorizon) {
  auto params = kUsual;
  params.share = 1;
  const auto out = sample(kMany, 1, params);
  EXPECT_EQ(out.tuning.rows(), 96U);
  EXPECT_EQ(out.train.rows(), kMany - 512);
}

TEST(SampleTrainingQueries, FewPositionsHoldOutFewerRuns) {
  for (std::size_t positions = 1; positions <= 400; ++positions) {
    for (const double share : {0.1, 0.9, 1.0}) {
      auto params = kUsual;
      params.share = share;
      const auto out = sample(positions, 1, params);
      const std::size_t runs = std::min<std::size_t>(4, positions / 96);
      ASSERT_EQ(out.tuning.rows(), runs * 24);
      ASSERT_EQ(out.tuning_steps, runs == 0 ? 0U : 24U);
      const auto wanted =
          static_cast<std::size_t>(std::ceil(share * static_cast<double>(positions) - 1e-6));
      const std::size_t block =
          runs == 0 ? 0 : std::clamp<std::size_t>(512, runs * 24, positions / 4);
      ASSERT_EQ(out.train.rows(), std::min(wanted, positions - block));
    }
  }
}

TEST(SampleTrainingQueries, RunsBeyondAllBoundsAreCutDown) {
  auto params = kUsual;
  params.tuning_runs = std::numeric_limits<std::size_t>::max();
  params.tuning_steps = 1;
  EXPECT_EQ(sample(100, 1, params).tuning.rows(), 25U);
  params.tuning_steps = std::numeric_limits<std::size_t>::max();
  EXPECT_EQ(sample(100, 1, params).tuning.rows(), 0U);
}

class Refusal : public ::testing::Test {
 protected:
  void expect(const std::string& sentence, ErrorCode code = ErrorCode::invalid_argument) {
    try {
      (void)sample_training_queries(queries, positions, group, rope, params);
      FAIL() << "not refused: " << sentence;
    } catch (const Error& e) {
      EXPECT_EQ(e.code(), code);
      EXPECT_EQ(e.what(), sentence);
    }
  }

  Matrix<float> queries = labelled(10, 2);
  std::vector<std::size_t> positions = positions_of(10);
  std::size_t group = 2;
  RopeParams rope = kRope;
  TrainingSampleParams params{.now = kFirst + 10};
};

TEST_F(Refusal, OfNothing) {
  queries = {};
  positions = {};
  expect("positions is empty, there is nothing to sample");
}

TEST_F(Refusal, OfShares) {
  params.share = 0;
  expect("share is 0, must be in (0, 1]");
  params.share = 1.5;
  expect("share is 1.5, must be in (0, 1]");
  params.share = std::nan("");
  expect("share is nan, must be in (0, 1]");
}

TEST_F(Refusal, OfZeros) {
  params.horizon = 0;
  expect("horizon is 0, must be at least 1");
  params.horizon = 1;
  params.tuning_steps = 0;
  expect("tuning_steps is 0 for 4 tuning_runs");
  params.tuning_runs = 0;
  group = 0;
  expect("group is 0, must be at least 1");
}

TEST_F(Refusal, OfRowsThatDoNotMakeGroups) {
  group = 3;
  expect("queries has 20 rows, but 10 positions of group 3 need 30");
  group = 2;
  positions.pop_back();
  expect("queries has 20 rows, but 9 positions of group 2 need 18");
}

TEST_F(Refusal, OfPositionsOutOfOrder) {
  positions[4] = positions[3];
  expect("positions[4] is 103 after 103, must increase");
}

TEST_F(Refusal, OfTargetsInThePast) {
  params.now = kFirst + 9;
  expect("now is 109, must be after the last of positions, 109");
}

TEST_F(Refusal, OfWrongRope) {
  rope.theta = -5;
  expect("theta is -5, must be positive and finite");
}

TEST_F(Refusal, OfNaN) {
  queries.row(3)[1] = std::nanf("");
  expect("queries row 3 holds NaN or infinity", ErrorCode::not_finite);
}

}  // namespace
}  // namespace keyseek
