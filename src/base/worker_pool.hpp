/// Threads that wait for work between calls.
#pragma once

#include <cstddef>
#include <functional>
#include <memory>

namespace keyseek {

/// Started at first use. Where parallel_for starts threads for each call, which is nothing
/// beside a build, these are for calls of microseconds. A forked child starts threads of its
/// own, since its parent's do not come along. One call at a time.
class WorkerPool {
 public:
  /// The caller's thread is worker 0, so threads - 1 are started; at least 1.
  explicit WorkerPool(int threads);
  ~WorkerPool();
  WorkerPool(const WorkerPool&) = delete;
  WorkerPool& operator=(const WorkerPool&) = delete;

  [[nodiscard]] int threads() const noexcept { return threads_; }
  /// body(i, worker) for all i < count, in any order. The first exception stops the rest and is
  /// rethrown.
  void run(std::size_t count, const std::function<void(std::size_t, int)>& body);

 private:
  struct Crew;
  void start();
  void leave_behind_after_fork();

  int threads_;
  std::unique_ptr<Crew> crew_;
};

}  // namespace keyseek
