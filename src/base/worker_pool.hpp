/// Threads that wait for work between calls.
#pragma once

#include <condition_variable>
#include <cstddef>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

namespace keyseek {

/// Where parallel_for starts threads for each call, which is nothing beside a build, these are for
/// calls of microseconds. Started at first use. Serves any number of callers at once: each works
/// on its own call and waits for nobody else's, and the threads join the oldest call that wants
/// more of them. So a body may call `run` again.
class WorkerPool {
 public:
  /// The caller's thread is one of them, so threads - 1 are started; at least 1.
  explicit WorkerPool(int threads);
  ~WorkerPool();
  WorkerPool(const WorkerPool&) = delete;
  WorkerPool& operator=(const WorkerPool&) = delete;

  [[nodiscard]] int threads() const noexcept { return threads_; }
  /// body(i, worker) for all i < count, in any order. `worker` is 0 in the caller's thread, and in
  /// each of the pool's its own number below threads(). The first exception stops the rest and is
  /// rethrown.
  void run(std::size_t count, const std::function<void(std::size_t, int)>& body);

 private:
  struct Job;
  void start_threads();
  void post(Job& job, std::size_t helpers);
  void withdraw(Job& job);
  void take_back(const Job& job);
  void help(int worker);

  int threads_;
  std::mutex mutex_;  ///< of all below, and of the jobs' counts
  std::condition_variable work_;
  std::vector<Job*> jobs_;  ///< that want helpers, from old to new
  bool closing_ = false;
  std::vector<std::thread> started_;
};

}  // namespace keyseek
