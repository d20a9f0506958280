/// Callers post their work; threads that wait join the oldest that wants more of them.
#include "base/worker_pool.hpp"

#include <algorithm>
#include <atomic>
#include <exception>

namespace keyseek {

/// What one call asks for, and how far it has come.
struct WorkerPool::Job {
  std::size_t count = 0;
  const std::function<void(std::size_t)>* task = nullptr;
  std::atomic<std::size_t> next{0};
  // Guarded by the pool:
  std::size_t wanted = 0;   ///< threads that may still join
  std::size_t working = 0;  ///< threads that did
  std::condition_variable done;

  void work() {
    for (std::size_t i = next.fetch_add(1); i < count; i = next.fetch_add(1)) (*task)(i);
  }
};

WorkerPool::WorkerPool(int threads) : threads_(std::max(1, threads)) {}

WorkerPool::~WorkerPool() {
  {
    const std::lock_guard lock(mutex_);
    closing_ = true;
  }
  work_.notify_all();
  for (std::thread& thread : started_) thread.join();
}

void WorkerPool::start_threads() {
  const auto wanted = static_cast<std::size_t>(threads_ - 1);
  started_.reserve(wanted);
  try {
    while (started_.size() < wanted) started_.emplace_back(&WorkerPool::help, this);
  } catch (const std::exception&) {
    // A system that is short of threads or memory has the same work done by fewer.
  }
}

void WorkerPool::post(Job& job, std::size_t helpers) {
  {
    const std::lock_guard lock(mutex_);
    start_threads();
    jobs_.push_back(&job);
    job.wanted = helpers;
  }
  work_.notify_all();
}

/// Threads that have not begun with the job do not begin any more.
void WorkerPool::take_back(const Job& job) {
  jobs_.erase(std::remove(jobs_.begin(), jobs_.end(), &job), jobs_.end());
}

void WorkerPool::withdraw(Job& job) {
  std::unique_lock lock(mutex_);
  take_back(job);
  job.done.wait(lock, [&] { return job.working == 0; });
}

void WorkerPool::help() {
  std::unique_lock lock(mutex_);
  while (true) {
    work_.wait(lock, [&] { return closing_ || !jobs_.empty(); });
    if (closing_) return;
    Job& job = *jobs_.front();
    ++job.working;
    if (--job.wanted == 0) take_back(job);
    lock.unlock();
    job.work();
    lock.lock();
    take_back(job);  // all of it is taken
    // With the lock held: the caller ends the job as soon as it may look at it.
    if (--job.working == 0) job.done.notify_one();
  }
}

void WorkerPool::run(std::size_t count, const std::function<void(std::size_t)>& task) {
  Job job;
  job.count = count;
  job.task = &task;
  const std::size_t helpers = std::min(static_cast<std::size_t>(threads_), count) - (count > 0);
  if (helpers > 0) post(job, helpers);
  job.work();
  if (helpers > 0) withdraw(job);
}

}  // namespace keyseek
