/// The best keys of one query seen so far, by approximate score.
#pragma once

#include <algorithm>
#include <cstddef>
#include <functional>
#include <limits>
#include <vector>

#include "search/ranked.hpp"

namespace keyseek {

/// Keeps at least the `capacity` best of what is added, unordered; what cannot be among
/// them any more is refused cheaply by `threshold()`.
class Pool {
 public:
  void reset(std::size_t capacity, float threshold = -std::numeric_limits<float>::infinity()) {
    items_.clear();
    capacity_ = capacity;
    threshold_ = threshold;
  }

  /// Only keys with a score above it need to be added.
  [[nodiscard]] float threshold() const noexcept { return threshold_; }
  [[nodiscard]] std::vector<Ranked>& items() noexcept { return items_; }
  [[nodiscard]] const std::vector<Ranked>& items() const noexcept { return items_; }

  void add(float score, Id id) { items_.push_back(ranked(score, id)); }
  /// Adds `count` keys, written by the caller to where this points.
  [[nodiscard]] Ranked* add_room(std::size_t count) {
    items_.resize(items_.size() + count);
    return items_.data() + items_.size() - count;
  }

  /// Drops all but the `capacity` best once twice as many have come together.
  void settle() {
    if (items_.size() >= 2 * capacity_) shrink();
  }

  /// Drops all but the `capacity` best.
  void shrink() {
    if (items_.size() < capacity_ || capacity_ == 0) return;
    const auto last = items_.begin() + static_cast<std::ptrdiff_t>(capacity_ - 1);
    std::nth_element(items_.begin(), last, items_.end(), std::greater<>());
    threshold_ = score_of(*last);
    items_.resize(capacity_);
  }

 private:
  std::vector<Ranked> items_;
  std::size_t capacity_ = 0;
  float threshold_ = 0;
};

}  // namespace keyseek
