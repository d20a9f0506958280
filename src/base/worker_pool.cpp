#include "base/worker_pool.hpp"

#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <exception>
#include <mutex>
#include <thread>
#include <vector>

namespace keyseek {
namespace {

/// One call.
struct Job {
  std::size_t count = 0;
  const std::function<void(std::size_t, int)>* body = nullptr;
  std::atomic<std::size_t> next{0};
  std::mutex mutex;
  std::exception_ptr error;

  void work(int worker) noexcept {
    try {
      for (std::size_t i = next.fetch_add(1); i < count; i = next.fetch_add(1)) (*body)(i, worker);
    } catch (...) {
      const std::lock_guard lock(mutex);
      if (!error) error = std::current_exception();
      next.store(count);
    }
  }
};

}  // namespace

struct WorkerPool::Crew {
  std::mutex mutex;
  std::condition_variable work, done;
  Job* job = nullptr;       ///< of the present call
  std::size_t calls = 0;    ///< so far; tells a waiting thread that there is a new one
  std::size_t wanted = 0;   ///< threads that may still join the present call
  std::size_t working = 0;  ///< threads in it
  bool closing = false;
  pid_t process = ::getpid();
  std::vector<std::thread> threads;

  void wait_for_work(int worker) {
    std::size_t seen = 0;
    std::unique_lock lock(mutex);
    while (true) {
      work.wait(lock, [&] { return closing || (calls != seen && wanted > 0); });
      if (closing) return;
      seen = calls;
      --wanted;
      ++working;
      Job* mine = job;
      lock.unlock();
      mine->work(worker);
      lock.lock();
      --working;
      if (working == 0) done.notify_one();
    }
  }

  void close() {
    {
      const std::lock_guard lock(mutex);
      closing = true;
    }
    work.notify_all();
    for (std::thread& thread : threads) thread.join();
  }
};

WorkerPool::WorkerPool(int threads) : threads_(std::max(1, threads)) {}

WorkerPool::~WorkerPool() {
  leave_behind_after_fork();
  if (crew_) crew_->close();
}

/// The threads of a forked child's copy do not exist: they cannot be joined, and what they
/// waited on may be in any state.
void WorkerPool::leave_behind_after_fork() {
  if (crew_ && crew_->process != ::getpid()) static_cast<void>(crew_.release());
}

void WorkerPool::start() {
  crew_ = std::make_unique<Crew>();
  Crew* crew = crew_.get();
  for (int t = 1; t < threads_; ++t)
    crew->threads.emplace_back([crew, t] { crew->wait_for_work(t); });
}

void WorkerPool::run(std::size_t count, const std::function<void(std::size_t, int)>& body) {
  Job job;
  job.count = count;
  job.body = &body;
  const std::size_t helpers = std::min(static_cast<std::size_t>(threads_), count) - (count > 0);
  if (helpers == 0) {
    job.work(0);
  } else {
    leave_behind_after_fork();
    if (!crew_) start();
    Crew& crew = *crew_;
    {
      const std::lock_guard lock(crew.mutex);
      crew.job = &job;
      ++crew.calls;
      crew.wanted = helpers;
    }
    crew.work.notify_all();
    job.work(0);
    std::unique_lock lock(crew.mutex);
    crew.wanted = 0;  // who has not begun need not
    crew.done.wait(lock, [&] { return crew.working == 0; });
  }
  if (job.error) std::rethrow_exception(job.error);
}

}  // namespace keyseek
