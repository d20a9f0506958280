#include "base/random.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <limits>

namespace keyseek {
namespace {

TEST(Random, IsSplitMix64) {
  // The first values of the reference implementation (Vigna, splitmix64.c) for state 1234567.
  Random random(1234567);
  EXPECT_EQ(random.next(), 6457827717110365317U);
  EXPECT_EQ(random.next(), 3203168211198807973U);
  EXPECT_EQ(random.next(), 9817491932198370423U);
}

TEST(Random, SeedsDiffer) { EXPECT_NE(Random(1).next(), Random(2).next()); }

TEST(Random, UniformFillsTheUnitInterval) {
  Random random(1);
  double sum = 0;
  double smallest = 1;
  double largest = 0;
  constexpr int kDraws = 100000;
  for (int i = 0; i < kDraws; ++i) {
    const double x = random.uniform();
    ASSERT_GE(x, 0.0);
    ASSERT_LT(x, 1.0);
    sum += x;
    smallest = std::min(smallest, x);
    largest = std::max(largest, x);
  }
  EXPECT_NEAR(sum / kDraws, 0.5, 0.005);
  EXPECT_LT(smallest, 0.001);
  EXPECT_GT(largest, 0.999);
}

TEST(Random, BelowIsEven) {
  Random random(1);
  std::array<int, 7> seen{};
  for (int i = 0; i < 70000; ++i) ++seen.at(random.below(seen.size()));
  for (const int count : seen) EXPECT_NEAR(count, 10000, 500);
}

TEST(Random, BelowOneAndBelowHuge) {
  Random random(1);
  constexpr std::uint64_t kHuge = std::numeric_limits<std::uint64_t>::max() / 2 + 2;
  for (int i = 0; i < 100; ++i) {
    EXPECT_EQ(random.below(1), 0U);
    EXPECT_LT(random.below(kHuge), kHuge);
  }
}

}  // namespace
}  // namespace keyseek
