/// A thread beside everything else, for what nobody waits for yet.
#pragma once

#include <atomic>
#include <condition_variable>
#include <deque>
#include <functional>
#include <mutex>
#include <thread>

#include "keyseek/execution.hpp"

namespace keyseek {

/// Does what it is given, one after the other, in the order in which it came. Its thread starts
/// with the first. What is waiting when it ends is dropped; what is being done is told to stop.
class Background {
 public:
  /// Throws nothing, and stops when run.progress says so.
  using Work = std::function<void(const Execution& run)>;

  Background() = default;
  ~Background();
  Background(const Background&) = delete;
  Background& operator=(const Background&) = delete;

  void add(Work work);

 private:
  void work_until_closed();

  std::mutex mutex_;  ///< of the works and the thread
  std::condition_variable more_;
  std::deque<Work> works_;
  std::atomic<bool> closing_ = false;
  std::thread thread_;
};

}  // namespace keyseek
