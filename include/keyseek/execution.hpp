/// How long work runs: threads, whose threads, progress, cancellation.
///
/// A value; the function that gets one owns nothing of it. Work is cut into pieces of fixed size,
/// so its results depend neither on the number of threads nor on whose they are. When a call
/// returns, whether it succeeds, fails or is cancelled, nothing of it runs any more.
///
///     keyseek::Execution run;
///     run.threads = 2;
///     run.executor = keyseek::thread_executor();  // or an engine's own pool
///     run.progress = [&](std::string_view stage, std::size_t done, std::size_t total) {
///       std::fprintf(stderr, "\r%.*s %zu/%zu", int(stage.size()), stage.data(), done, total);
///       return !interrupted;  // false: the work stops with ErrorCode::cancelled
///     };
#pragma once

#include <cstddef>
#include <functional>
#include <memory>
#include <string_view>

namespace keyseek {

/// Called from one thread at a time, a few hundred times per stage at most.
/// Returns false to cancel.
using Progress = std::function<bool(std::string_view stage, std::size_t done, std::size_t total)>;

/// Threads that work is given to. An engine hands in its own by deriving from this.
class Executor {
 public:
  Executor() = default;
  virtual ~Executor() = default;
  Executor(const Executor&) = delete;
  Executor& operator=(const Executor&) = delete;

  /// Calls task(i) once for every i < count, the caller's thread among those that may do it, and
  /// returns when all calls have returned. Tasks throw nothing and wait for nothing: they may run
  /// one after another. Any number of threads may call it at once, a task included.
  virtual void run(std::size_t count, const std::function<void(std::size_t)>& task) = 0;
  [[nodiscard]] virtual std::string_view name() const noexcept = 0;
};

/// Threads started for each call and joined before it returns. Nothing is left that would not
/// survive a fork.
[[nodiscard]] std::shared_ptr<Executor> thread_executor();
/// OpenMP's threads, which the runtime keeps between calls; null when keyseek was built without
/// OpenMP (KEYSEEK_OPENMP). They do not survive a fork, so a forked child gets threads for each
/// call instead.
[[nodiscard]] std::shared_ptr<Executor> openmp_executor();
/// OpenMP's where there are any, else threads for each call.
[[nodiscard]] std::shared_ptr<Executor> default_executor();

struct Execution {
  int threads = 0;                          ///< 0: one per processor this process may use
  Progress progress = {};                   ///< empty: silent
  std::shared_ptr<Executor> executor = {};  ///< null: default_executor()

  void validate() const;                            ///< throws Error(invalid_argument)
  [[nodiscard]] int thread_count() const noexcept;  ///< threads, with 0 resolved
  /// The same threads, and no progress.
  [[nodiscard]] Execution silent() const { return {threads, {}, executor}; }
};

}  // namespace keyseek
