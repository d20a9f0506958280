/// A refresh that is planned aside, from a copy of its head.
#pragma once

#include <atomic>
#include <cstddef>
#include <exception>
#include <memory>

#include "decode/head_state.hpp"

namespace keyseek {

/// Whoever comes first plans: a thread in the background, or the step that needs the plan. As it
/// looks at nothing but its copy, what comes of it is the same. Copies of a head share it.
class RefreshTask {
 public:
  /// Copies the head, which shares what is indexed.
  explicit RefreshTask(const HeadCache::State& head);

  /// Plans, unless somebody does or has. Where `run` stops it, or a forked process left the thread
  /// that planned behind, somebody else may.
  void run(const Execution& run) noexcept;
  /// The copy, refreshed: plans it, or waits for who does. Throws what planning threw; another call
  /// tries again.
  [[nodiscard]] std::shared_ptr<const HeadCache::State> result();
  [[nodiscard]] bool done() const noexcept { return planner_ == kDone; }

  /// Tokens of the head when it was copied.
  [[nodiscard]] std::size_t began() const noexcept { return began_; }
  /// What the copy does not share.
  [[nodiscard]] std::size_t bytes() const noexcept { return bytes_; }
  /// True once, for who has it planned in the background; never where that would ask for a search
  /// of the caller's own, who is asked in steps alone, or read pages, which a truncation may give
  /// to somebody else meanwhile.
  [[nodiscard]] bool offer() noexcept;

 private:
  [[nodiscard]] std::shared_ptr<const HeadCache::State> plan(const Execution& run) const;
  void hand_over(int planner) noexcept;

  // Else the process that plans.
  static constexpr int kNobody = 0, kDone = -1, kFailed = -2;

  const HeadCache::State head_;
  const std::size_t began_, bytes_;
  std::atomic<bool> offered_ = false;
  std::atomic<int> planner_ = kNobody;
  std::shared_ptr<const HeadCache::State> planned_;  ///< of who plans, then when it is done
  std::exception_ptr error_;                         ///< likewise, when it failed
};

}  // namespace keyseek
