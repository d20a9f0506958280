/// OpenMP's threads. Compiled with OpenMP where CMake finds it; the one file that uses its runtime.
#include <utility>

#include "keyseek/execution.hpp"

#if defined(_OPENMP)
#include <unistd.h>
#endif

namespace keyseek {

#if defined(_OPENMP)

namespace {

/// The process that loaded keyseek: a forked child of it has OpenMP's state without its threads,
/// and a runtime that waits for them for ever.
const pid_t kLoadedBy = ::getpid();

class OpenMpExecutor final : public Executor {
 public:
  void run(std::size_t count, const std::function<void(std::size_t)>& task) override {
    if (::getpid() != kLoadedBy) return thread_executor()->run(count, task);
    const int tasks = static_cast<int>(count);
#pragma omp parallel for num_threads(tasks) schedule(static, 1)
    for (int i = 0; i < tasks; ++i) task(static_cast<std::size_t>(i));
  }
  [[nodiscard]] std::string_view name() const noexcept override { return "openmp"; }
};

}  // namespace

std::shared_ptr<Executor> openmp_executor() {
  static const auto executor = std::make_shared<OpenMpExecutor>();
  return executor;
}

#else

std::shared_ptr<Executor> openmp_executor() { return nullptr; }

#endif

}  // namespace keyseek
