/// Hands chunks of work to workers, one after another, and rethrows the first of their errors.
#include "base/parallel.hpp"

#include <algorithm>
#include <atomic>
#include <exception>
#include <mutex>
#include <thread>

#if defined(__linux__)
#include <sched.h>
#endif

#include "base/fail.hpp"

namespace keyseek {

void Execution::validate() const {
  require(threads >= 0 && threads <= 4096, "threads is {}, must be in [0, 4096]", threads);
}

int Execution::thread_count() const noexcept {
  if (threads > 0) return threads;
#if defined(__linux__)
  // What this process may use, which containers and taskset make fewer than there are.
  cpu_set_t allowed;
  if (::sched_getaffinity(0, sizeof(allowed), &allowed) == 0)
    return std::max(1, CPU_COUNT(&allowed));
#endif
  return std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
}

void report_progress(const Execution& run, std::string_view stage, std::size_t done,
                     std::size_t total) {
  if (run.progress && !run.progress(stage, done, total))
    fail(ErrorCode::cancelled, "cancelled during {} at {} of {}", stage, done, total);
}

namespace {

/// What the workers of one call share.
class Job {
 public:
  Job(std::size_t count, std::size_t grain, const Execution& run, std::string_view stage,
      const std::function<void(std::size_t, std::size_t, int)>& body)
      : count_(count), grain_(grain), run_(run), stage_(stage), body_(body) {}

  void work(int worker) noexcept {
    try {
      while (!stop_.load(std::memory_order_relaxed)) {
        const std::size_t begin = next_.fetch_add(grain_, std::memory_order_relaxed);
        if (begin >= count_) return;
        const std::size_t end = std::min(count_, begin + grain_);
        body_(begin, end, worker);
        report(end - begin);
      }
    } catch (...) {
      const std::lock_guard lock(mutex_);
      if (!error_) error_ = std::current_exception();
      stop_.store(true, std::memory_order_relaxed);
    }
  }

  void rethrow() const {
    if (error_) std::rethrow_exception(error_);
  }

 private:
  void report(std::size_t finished) {
    if (!run_.progress || stage_.empty()) return;
    const std::lock_guard lock(mutex_);
    done_ += finished;
    // About two hundred reports per stage: enough for a progress bar, too few to cost time.
    if (done_ != count_ && done_ < reported_ + count_ / 200) return;
    reported_ = done_;
    report_progress(run_, stage_, done_, count_);
  }

  std::size_t count_, grain_;
  const Execution& run_;
  std::string_view stage_;
  const std::function<void(std::size_t, std::size_t, int)>& body_;
  std::atomic<std::size_t> next_{0};
  std::atomic<bool> stop_{false};
  std::mutex mutex_;
  std::size_t done_ = 0, reported_ = 0;
  std::exception_ptr error_;
};

}  // namespace

void parallel_for(std::size_t count, std::size_t grain, const Execution& run,
                  std::string_view stage,
                  const std::function<void(std::size_t, std::size_t, int)>& body) {
  if (count == 0) return;
  grain = std::clamp<std::size_t>(grain, 1, count);
  Job job(count, grain, run, stage, body);
  const std::size_t chunks = (count + grain - 1) / grain;
  const auto workers = std::min(static_cast<std::size_t>(run.thread_count()), chunks);
  const auto work = [&job](std::size_t worker) { job.work(static_cast<int>(worker)); };
  if (workers == 1) {
    work(0);
  } else {
    (run.executor ? run.executor : default_executor())->run(workers, work);
  }
  job.rethrow();
}

}  // namespace keyseek
