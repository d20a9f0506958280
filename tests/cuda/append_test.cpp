// The kernel `append`, emulated, against a window that is a queue.
#include <gtest/gtest.h>

#include <vector>

#include "static_problem.hpp"

namespace keyseek::cuda::test {
namespace {

using emulation::Order;

constexpr std::uint32_t kSink = 2, kWindow = 3, kCapacity = kSink + kWindow;

/// Tokens are told apart by the bits of their elements: every element of token t's key has t.
class Appended {
 public:
  Appended(std::uint32_t heads, std::uint32_t dim)
      : heads_(heads),
        dim_(dim),
        keys_(std::size_t{heads} * kCapacity * dim),
        values_(keys_.size()),
        rings_(heads) {}

  void append(std::uint16_t token, Order order, int skipped_barrier = -1) {
    Row keys(std::size_t{heads_} * dim_), values(keys.size());
    for (std::uint32_t h = 0; h < heads_; ++h) {
      std::fill_n(keys.begin() + h * dim_, dim_, key_of(token, h));
      std::fill_n(values.begin() + h * dim_, dim_, value_of(token, h));
    }
    const AppendArgs a{keys.data(), values.data(), keys_.data(), values_.data(), rings_.data(),
                       heads_,      dim_,          kSink,        kCapacity};
    emulation::run({{heads_, 1}, kAppendThreads, order, token, skipped_barrier},
                   [&] { cuda::append(a); });
  }

  /// True when the device holds the tokens `rows`, in this order.
  [[nodiscard]] bool holds(const std::vector<std::uint16_t>& rows) const {
    for (std::uint32_t h = 0; h < heads_; ++h) {
      if (rings_[h].rows != rows.size()) return false;
      for (std::size_t row = 0; row < rows.size(); ++row) {
        const std::size_t at = (std::size_t{h} * kCapacity + row) * dim_;
        if (!all_are(keys_, at, key_of(rows[row], h))) return false;
        if (!all_are(values_, at, value_of(rows[row], h))) return false;
      }
    }
    return true;
  }

 private:
  using Row = AlignedVector<std::uint16_t>;

  static std::uint16_t key_of(std::uint16_t token, std::uint32_t head) {
    return static_cast<std::uint16_t>(token * 16 + head * 2);
  }
  static std::uint16_t value_of(std::uint16_t token, std::uint32_t head) {
    return static_cast<std::uint16_t>(key_of(token, head) + 1);
  }
  [[nodiscard]] bool all_are(const Row& memory, std::size_t first, std::uint16_t wanted) const {
    for (std::size_t i = first; i < first + dim_; ++i) {
      if (memory[i] != wanted) return false;
    }
    return true;
  }

  std::uint32_t heads_, dim_;
  Row keys_, values_;
  std::vector<Ring> rings_;
};

/// Rows that hold the first `count` tokens.
std::vector<std::uint16_t> expected(std::uint16_t count) {
  std::vector<std::uint16_t> rows;
  for (std::uint16_t t = 0; t < count; ++t) {
    if (rows.size() < kCapacity) {
      rows.push_back(t);
    } else {
      rows[kSink + (t - kSink) % kWindow] = t;
    }
  }
  return rows;
}

TEST(Append, FillsThenReplacesTheOldestOfTheWindow) {
  for (const Order order : {Order::ascending, Order::descending, Order::shuffled}) {
    for (const std::uint32_t dim : {64U, 96U, 128U, 256U}) {
      Appended heads(3, dim);
      for (std::uint16_t t = 0; t < 14; ++t) {
        heads.append(t, order);
        ASSERT_TRUE(heads.holds(expected(static_cast<std::uint16_t>(t + 1))))
            << "token " << t << ", d " << dim;
      }
    }
  }
}

// Without its barrier the first thread would move the ring on under the others.
TEST(Append, AMissingBarrierIsSeen) {
  int wrong = 0;
  for (const Order order : {Order::ascending, Order::descending}) {
    Appended heads(1, 128);
    for (std::uint16_t t = 0; t < 7; ++t) heads.append(t, order, 0);
    wrong += heads.holds(expected(7)) ? 0 : 1;
  }
  EXPECT_GT(wrong, 0);
}

}  // namespace
}  // namespace keyseek::cuda::test
