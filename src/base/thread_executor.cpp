/// Starts threads of our own for each call and joins them before it returns.
#include <thread>
#include <vector>

#include "keyseek/execution.hpp"

namespace keyseek {
namespace {

class ThreadExecutor final : public Executor {
 public:
  void run(std::size_t count, const std::function<void(std::size_t)>& task) override {
    std::vector<std::jthread> threads;
    std::size_t started = 1;  // the caller's
    try {
      threads.reserve(count);
      for (; started < count; ++started) threads.emplace_back([&task, started] { task(started); });
    } catch (const std::exception&) {
      // A system that is short of threads or memory has the same work done by fewer.
    }
    if (count > 0) task(0);
    for (std::size_t i = started; i < count; ++i) task(i);
  }
  [[nodiscard]] std::string_view name() const noexcept override { return "threads"; }
};

}  // namespace

std::shared_ptr<Executor> thread_executor() {
  static const auto executor = std::make_shared<ThreadExecutor>();
  return executor;
}

std::shared_ptr<Executor> default_executor() {
  auto openmp = openmp_executor();
  return openmp ? std::move(openmp) : thread_executor();
}

}  // namespace keyseek
