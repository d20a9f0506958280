/// Threads that wait for work between calls.
#pragma once

#include <condition_variable>
#include <cstddef>
#include <functional>
#include <mutex>
#include <string_view>
#include <thread>
#include <vector>

#include "keyseek/execution.hpp"

namespace keyseek {

/// Threads that are started for each call are nothing beside a build; these are for calls of
/// microseconds. Started at first use. Serves any number of callers at once: each works
/// on its own call and waits for nobody else's, and the threads join the oldest call that wants
/// more of them. So a task may call `run` again.
class WorkerPool final : public Executor {
 public:
  /// The caller's thread is one of them, so threads - 1 are started; at least 1.
  explicit WorkerPool(int threads);
  ~WorkerPool() override;

  void run(std::size_t count, const std::function<void(std::size_t)>& task) override;
  [[nodiscard]] std::string_view name() const noexcept override { return "pool"; }

 private:
  struct Job;
  void start_threads();
  void post(Job& job, std::size_t helpers);
  void withdraw(Job& job);
  void take_back(const Job& job);
  void help();

  int threads_;
  std::mutex mutex_;  ///< of all below, and of the jobs' counts
  std::condition_variable work_;
  std::vector<Job*> jobs_;  ///< that want helpers, from old to new
  bool closing_ = false;
  std::vector<std::thread> started_;
};

}  // namespace keyseek
