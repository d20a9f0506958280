/// The best keys of one query seen so far, by approximate score.
#pragma once

#include <algorithm>
#include <cstddef>
#include <limits>
#include <span>
#include <vector>

#include "keyseek/allowed_keys.hpp"
#include "score/kernels.hpp"
#include "select/ranked.hpp"

namespace keyseek {

/// No key scores less.
inline constexpr float kNothing = -std::numeric_limits<float>::infinity();

/// Keeps at least the `capacity` best of what is added, unordered; what cannot be among
/// them any more is refused cheaply by `threshold()`.
class Pool {
 public:
  /// Keys that `allowed` (null: it has all) does not have are not kept.
  void reset(std::size_t capacity, float threshold = kNothing,
             const AllowedKeys* allowed = nullptr) {
    items_.clear();
    capacity_ = capacity;
    threshold_ = threshold;
    allowed_ = allowed;
  }

  /// Only keys with a score above it need to be added.
  [[nodiscard]] float threshold() const noexcept { return threshold_; }
  [[nodiscard]] std::vector<Ranked>& items() noexcept { return items_; }
  [[nodiscard]] const std::vector<Ranked>& items() const noexcept { return items_; }

  void add(float score, Id id) {
    if (allowed_ == nullptr || allowed_->has(id)) items_.push_back(ranked(score, id));
  }
  /// Adds keys, `scores` one for each.
  void add(std::span<const Id> ids, const float* scores) {
    Ranked* to = add_room(ids.size());
    for (std::size_t i = 0; i < ids.size(); ++i) to[i] = ranked(scores[i], ids[i]);
    keep_allowed(ids.size());
  }
  /// Adds `count` keys, written by the caller to where this points; `keep_allowed` is to follow.
  [[nodiscard]] Ranked* add_room(std::size_t count) {
    items_.resize(items_.size() + count);
    return items_.data() + items_.size() - count;
  }

  /// Drops what is not allowed of the `count` keys that came last.
  void keep_allowed(std::size_t count) {
    if (allowed_ == nullptr) return;
    const auto last = items_.end() - static_cast<std::ptrdiff_t>(count);
    const auto drop = [this](Ranked item) { return !allowed_->has(id_of(item)); };
    items_.erase(std::remove_if(last, items_.end(), drop), items_.end());
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
  const AllowedKeys* allowed_ = nullptr;
};

}  // namespace keyseek
