// Selecting and ranking, at every instruction set.
#include <gtest/gtest.h>

#include <algorithm>
#include <limits>
#include <memory>
#include <set>
#include <vector>

#include "score/kernels.hpp"
#include "select/ranked.hpp"
#include "support/random_data.hpp"

namespace keyseek {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

TEST(SelectAbove, IndicesOfWhatIsAboveInOrder) {
  for (std::size_t n = 0; n <= 70; ++n) {
    const Matrix<float> scores = test::whole_matrix(1, n, 3, n);
    for (const float threshold : {-kInfinity, -3.5F, -3.0F, -1.0F, 0.0F, 2.0F, 3.0F, kInfinity}) {
      std::vector<std::uint32_t> expected;
      for (std::size_t j = 0; j < n; ++j) {
        if (scores.data()[j] > threshold) expected.push_back(static_cast<std::uint32_t>(j));
      }
      for (const Isa isa : available_isas()) {
        // No more memory than promised, for an address sanitizer to watch.
        const std::unique_ptr<std::uint32_t[]> out(new std::uint32_t[n]);
        const std::unique_ptr<float[]> in(new float[n]);
        std::copy_n(scores.data(), n, in.get());
        const std::size_t count = kernels_for(isa).select_above(in.get(), n, threshold, out.get());
        ASSERT_EQ(std::vector<std::uint32_t>(out.get(), out.get() + count), expected)
            << to_string(isa) << " n " << n << " threshold " << threshold;
      }
    }
  }
}

/// Distinct numbers that lie badly for a bisection, in random order.
std::vector<std::uint64_t> items_of(std::size_t n, std::size_t kind, Random& random) {
  std::set<std::uint64_t> distinct;
  for (std::uint64_t i = 0; distinct.size() < n; ++i) {
    switch (kind) {
      case 0:
        distinct.insert(random.next());
        break;
      case 1:
        distinct.insert(i);
        break;  // from zero, side by side
      case 2:
        distinct.insert(~std::uint64_t{0} - i);
        break;  // up to the largest number
      case 3:
        distinct.insert(std::uint64_t{1} << (i % 64) | i);
        break;
      default:  // a few scores, many ids each
        distinct.insert(ranked(static_cast<float>(random.below(4)), static_cast<Id>(i)));
    }
  }
  std::vector<std::uint64_t> items(distinct.begin(), distinct.end());
  for (std::size_t i = n; i > 1; --i) std::swap(items[i - 1], items[random.below(i)]);
  return items;
}

/// Every level keeps the same items, in order: those above a bar, as many as asked for.
void check_keep_top(const std::vector<std::uint64_t>& items, std::size_t at_least,
                    std::size_t at_most) {
  const std::size_t n = items.size();
  std::uint64_t first_bar = 0;
  for (const Isa isa : available_isas()) {
    const std::unique_ptr<std::uint64_t[]> kept(new std::uint64_t[n]);
    std::copy(items.begin(), items.end(), kept.get());
    std::uint64_t bar = 1234;
    const std::size_t count = kernels_for(isa).keep_top(kept.get(), n, at_least, at_most, &bar);
    if (n <= at_most) {
      ASSERT_EQ(count, n);
      ASSERT_EQ(bar, 0U);
      ASSERT_TRUE(std::equal(items.begin(), items.end(), kept.get()));
      continue;
    }
    ASSERT_GE(count, at_least) << to_string(isa) << " n " << n;
    ASSERT_LE(count, at_most) << to_string(isa) << " n " << n;
    std::vector<std::uint64_t> expected;
    std::copy_if(items.begin(), items.end(), std::back_inserter(expected),
                 [&](std::uint64_t item) { return item > bar; });
    ASSERT_EQ(std::vector<std::uint64_t>(kept.get(), kept.get() + count), expected)
        << to_string(isa) << " n " << n << " at least " << at_least;
    if (isa == Isa::baseline) first_bar = bar;
    ASSERT_EQ(bar, first_bar) << to_string(isa);
  }
}

TEST(KeepTop, ExactlyAsManyAsWanted) {
  Random random(1);
  for (std::size_t n = 1; n <= 300; ++n) {
    const auto items = items_of(n, n % 5, random);
    for (const std::size_t k : {std::size_t{1}, n / 3, n / 2, n - 1, n, n + 1}) {
      if (k >= 1) check_keep_top(items, k, k);
    }
  }
}

TEST(KeepTop, SomewhereBetweenTheBounds) {
  Random random(2);
  for (std::size_t round = 0; round < 500; ++round) {
    const std::size_t n = 1 + random.below(2000);
    const std::size_t at_least = 1 + random.below(n);
    check_keep_top(items_of(n, round % 5, random), at_least,
                   at_least + random.below(1 + at_least / 8));
  }
}

TEST(RankDescending, CountsTheLargerOnes) {
  Random random(3);
  for (std::size_t n = 0; n <= 300; ++n) {
    const auto items = items_of(n, n % 5, random);
    auto sorted = items;
    std::sort(sorted.begin(), sorted.end(), std::greater<>());
    for (const Isa isa : available_isas()) {
      const std::unique_ptr<std::uint64_t[]> in(new std::uint64_t[n]);
      std::copy(items.begin(), items.end(), in.get());
      const std::unique_ptr<std::uint32_t[]> rank(new std::uint32_t[n]);
      kernels_for(isa).rank_descending(in.get(), n, rank.get());
      for (std::size_t i = 0; i < n; ++i) {
        ASSERT_LT(rank[i], n);
        ASSERT_EQ(sorted[rank[i]], items[i]) << to_string(isa) << " n " << n;
      }
    }
  }
}

}  // namespace
}  // namespace keyseek
