// Threads of a pool, and a scratch for each of them and for each caller.
#include <mutex>

#include "base/per_process.hpp"
#include "base/worker_pool.hpp"
#include "keyseek/decode_pool.hpp"

namespace keyseek {
namespace {

/// A scratch that waits for a caller.
struct Spare {
  DecodeScratch scratch;
  std::unique_ptr<Spare> next;
};

/// Threads and what they work in: each thread has a scratch of its own, by its number. Callers
/// are any threads, at once and one within another, so each takes a spare one for its call.
struct Crew {
  explicit Crew(int threads)
      : workers(threads), scratch(static_cast<std::size_t>(workers.threads())) {}

  [[nodiscard]] std::unique_ptr<Spare> take_spare() {
    const std::lock_guard lock(mutex);
    if (spares == nullptr) return std::make_unique<Spare>();
    auto mine = std::move(spares);
    spares = std::move(mine->next);
    return mine;
  }
  void put_back(std::unique_ptr<Spare> mine) noexcept {
    const std::lock_guard lock(mutex);
    mine->next = std::move(spares);
    spares = std::move(mine);
  }

  WorkerPool workers;
  std::vector<DecodeScratch> scratch;
  std::mutex mutex;
  std::unique_ptr<Spare> spares;
};

}  // namespace

struct DecodePool::State {
  int threads = 1;
  PerProcess<Crew> crew;
};

DecodePool::DecodePool(int threads) {
  const Execution run = {.threads = threads};
  run.validate();
  state_ = std::make_unique<State>();
  state_->threads = run.thread_count();
}
DecodePool::~DecodePool() = default;
DecodePool::DecodePool(DecodePool&&) noexcept = default;
DecodePool& DecodePool::operator=(DecodePool&&) noexcept = default;

int DecodePool::threads() const noexcept { return state_->threads; }

void DecodePool::run(std::size_t count,
                     const std::function<void(std::size_t, DecodeScratch&)>& body) {
  Crew& crew = state_->crew.get(state_->threads);
  std::unique_ptr<Spare> mine = crew.take_spare();
  try {
    crew.workers.run(count, [&](std::size_t i, int worker) {
      body(i, worker == 0 ? mine->scratch : crew.scratch[static_cast<std::size_t>(worker)]);
    });
  } catch (...) {
    crew.put_back(std::move(mine));
    throw;
  }
  crew.put_back(std::move(mine));
}

}  // namespace keyseek
