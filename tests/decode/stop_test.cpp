// How many of the keys that were found are attended.
#include "decode/stop.hpp"

#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <limits>

namespace keyseek {
namespace {

constexpr std::array<float, 6> kScores = {10, 8, 7, 4, 4, -2};  // logits are half of them
constexpr float kScale = 0.5F, kNothing = -std::numeric_limits<float>::infinity();

std::size_t kept(const StopRule& stop, float best = kNothing, float lse = kNothing) {
  return kept_by(stop, kScores, kScale, best, lse);
}

TEST(StopRule, TopKKeepsWhatWasFound) {
  EXPECT_EQ(kept({.k = 4}), 4U);
  EXPECT_EQ(kept({.k = 100}), 6U);
  EXPECT_EQ(kept({.k = 0}), 0U);
  EXPECT_EQ(kept_by({.k = 4}, {}, kScale, 0, 0), 0U);
}

TEST(StopRule, DiprKeepsLogitsNearTheLargest) {
  const auto dipr = [](double beta, std::size_t least = 0) {
    return StopRule{.rule = Rule::dipr, .k = 100, .limit = beta, .least = least};
  };
  EXPECT_EQ(kept(dipr(0)), 1U);
  EXPECT_EQ(kept(dipr(1)), 2U);  // 5 - 1 = 4: the second is just in
  EXPECT_EQ(kept(dipr(3)), 5U);
  EXPECT_EQ(kept(dipr(100)), 6U);
  // A larger logit among the exact tokens leaves fewer; a smaller one changes nothing.
  EXPECT_EQ(kept(dipr(3), 7.0F), 2U);
  EXPECT_EQ(kept(dipr(3), 9.0F), 0U);
  EXPECT_EQ(kept(dipr(3), 1.0F), 5U);
  EXPECT_EQ(kept(dipr(3, 4), 9.0F), 4U);
  EXPECT_EQ(kept(dipr(3, 50), 9.0F), 6U);
}

TEST(StopRule, MassKeepsTheFewestThatHoldTheShare) {
  double all = 0;
  std::array<double, 6> upto = {};
  for (std::size_t i = 0; i < 6; ++i) {
    all += std::exp(double{kScale} * double{kScores[i]});
    upto[i] = all;
  }
  const auto mass = [](double share) {
    return StopRule{.rule = Rule::mass, .k = 100, .limit = share};
  };
  for (const double share : {0.1, 0.5, 0.64, 0.8, 0.95, 0.999}) {
    std::size_t wanted = 0;
    while (upto[wanted] < share * all) ++wanted;
    EXPECT_EQ(kept(mass(share)), wanted + 1) << share;
  }
  // With as much mass among the exact tokens, half of all is there without any key.
  const auto lse = static_cast<float>(std::log(all));
  EXPECT_EQ(kept(mass(0.4999), 5.0F, lse), 0U);
  EXPECT_EQ(kept(mass(0.75), 5.0F, lse), kept(mass(0.5)));
  // Logits far too large for exp by themselves.
  EXPECT_EQ(kept_by(mass(0.5), std::array<float, 2>{2000, 1000}, 1.0F, kNothing, kNothing), 1U);
  EXPECT_EQ(kept_by(mass(0.5), std::array<float, 2>{2000, 1000}, 1.0F, 5000.0F, 5000.0F), 0U);
}

}  // namespace
}  // namespace keyseek
