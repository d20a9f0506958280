// Who plans a refresh, once, and what becomes of an error.
#include "decode/refresh_task.hpp"

#include <unistd.h>

#include <utility>

#include "keyseek/error.hpp"

namespace keyseek {

RefreshTask::RefreshTask(const HeadCache::State& head)
    : head_(head),
      began_(head.tokens()),
      bytes_(head.recent_keys.bytes() + head.recent_values.bytes() +
             head.remembered.size() * sizeof(float)) {}

bool RefreshTask::offer() noexcept {
  return !head_.params.index && !head_.pages && !offered_.exchange(true);
}

std::shared_ptr<const HeadCache::State> RefreshTask::plan(const Execution& run) const {
  auto copy = std::make_shared<HeadCache::State>(head_);
  copy->refresh(run);
  return copy;
}

void RefreshTask::hand_over(int planner) noexcept {
  planner_.store(planner, std::memory_order_release);
  planner_.notify_all();
}

void RefreshTask::run(const Execution& run) noexcept {
  int nobody = kNobody;
  if (!planner_.compare_exchange_strong(nobody, ::getpid(), std::memory_order_acq_rel)) return;
  try {
    planned_ = plan(run);
    hand_over(kDone);
  } catch (const Error& error) {
    if (error.code() == ErrorCode::cancelled) return hand_over(kNobody);
    error_ = std::current_exception();
    hand_over(kFailed);
  } catch (...) {
    error_ = std::current_exception();
    hand_over(kFailed);
  }
}

std::shared_ptr<const HeadCache::State> RefreshTask::result() {
  while (true) {
    int planner = planner_.load(std::memory_order_acquire);
    if (planner == kDone) return planned_;
    if (planner == kNobody) {
      run({.threads = 1});
    } else if (planner == kFailed) {
      if (!planner_.compare_exchange_strong(planner, ::getpid(), std::memory_order_acq_rel))
        continue;
      const std::exception_ptr error = std::exchange(error_, nullptr);
      hand_over(kNobody);
      std::rethrow_exception(error);
    } else if (planner != ::getpid()) {
      return plan({.threads = 1});
    } else {
      planner_.wait(planner, std::memory_order_acquire);
    }
  }
}

}  // namespace keyseek
