/// The best keys of one query seen so far, by approximate score.
#pragma once

#include <cstddef>
#include <limits>
#include <span>
#include <vector>

#include "score/kernels.hpp"
#include "select/ranked.hpp"

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
  /// Adds keys, `scores` one for each.
  void add(std::span<const Id> ids, const float* scores) {
    Ranked* to = add_room(ids.size());
    for (std::size_t i = 0; i < ids.size(); ++i) to[i] = ranked(scores[i], ids[i]);
  }
  /// Adds `count` keys, written by the caller to where this points.
  [[nodiscard]] Ranked* add_room(std::size_t count) {
    items_.resize(items_.size() + count);
    return items_.data() + items_.size() - count;
  }

  /// Drops what cannot be among the `capacity` best once twice as many have come together.
  void settle() {
    if (items_.size() >= 2 * capacity_) shrink();
  }

  /// Drops all but the `capacity` best, give or take a sixteenth more.
  void shrink() {
    if (items_.size() <= capacity_ || capacity_ == 0) return;
    Ranked bar = 0;
    items_.resize(kernels().keep_top(items_.data(), items_.size(), capacity_,
                                     capacity_ + capacity_ / 16, &bar));
    if (bar > 0) threshold_ = score_of(bar);
  }

 private:
  std::vector<Ranked> items_;
  std::size_t capacity_ = 0;
  float threshold_ = 0;
};

}  // namespace keyseek
