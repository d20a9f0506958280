/// The threads of decode steps, and the memory each of them works in.
#include <atomic>
#include <mutex>
#include <vector>

#include "base/background.hpp"
#include "base/parallel.hpp"
#include "base/per_process.hpp"
#include "base/worker_pool.hpp"
#include "keyseek/decode_pool.hpp"

namespace keyseek {
namespace {

/// What the workers of one call work in, each in its own; waits for a caller between calls.
struct Desk {
  std::vector<DecodeScratch> scratch;
  std::unique_ptr<Desk> next;
};

/// Callers are any threads, at once and one within another, so each takes a spare desk.
struct Crew {
  Crew(int count, const std::shared_ptr<Executor>& given)
      : threads(static_cast<std::size_t>(count)), executor(given) {
    if (!executor) executor = openmp_executor();
    if (!executor) executor = std::make_shared<WorkerPool>(count);
  }

  [[nodiscard]] std::unique_ptr<Desk> take() {
    {
      const std::lock_guard lock(mutex);
      if (spare != nullptr) {
        auto mine = std::move(spare);
        spare = std::move(mine->next);
        return mine;
      }
    }
    auto mine = std::make_unique<Desk>();
    mine->scratch.resize(threads);
    return mine;
  }
  void put_back(std::unique_ptr<Desk> mine) noexcept {
    const std::lock_guard lock(mutex);
    mine->next = std::move(spare);
    spare = std::move(mine);
  }

  std::size_t threads;
  std::shared_ptr<Executor> executor;
  std::mutex mutex;
  std::unique_ptr<Desk> spare;
};

}  // namespace

struct DecodePool::State {
  int threads = 1;
  std::shared_ptr<Executor> executor;
  PerProcess<Crew> crew;
  PerProcess<Background> background;
};

DecodePool::DecodePool(int threads, std::shared_ptr<Executor> executor) {
  const Execution run = {.threads = threads};
  run.validate();
  state_ = std::make_unique<State>();
  state_->threads = run.thread_count();
  state_->executor = std::move(executor);
}
DecodePool::~DecodePool() = default;
DecodePool::DecodePool(DecodePool&&) noexcept = default;
DecodePool& DecodePool::operator=(DecodePool&&) noexcept = default;

int DecodePool::threads() const noexcept { return state_->threads; }

void DecodePool::run(std::size_t count,
                     const std::function<void(std::size_t, DecodeScratch&)>& body) {
  Crew& crew = state_->crew.get(state_->threads, state_->executor);
  std::unique_ptr<Desk> mine = crew.take();
  try {
    parallel_for(count, 1, {.threads = state_->threads, .progress = {}, .executor = crew.executor},
                 "", [&](std::size_t i, std::size_t, int worker) {
                   body(i, mine->scratch[static_cast<std::size_t>(worker)]);
                 });
  } catch (...) {
    crew.put_back(std::move(mine));
    throw;
  }
  crew.put_back(std::move(mine));
}

void DecodePool::run_aside(std::function<void(const Execution&)> work) {
  state_->background.get().add(std::move(work));
}

}  // namespace keyseek
