/// How long work runs: threads, progress, cancellation.
///
/// A value; the function that gets one owns nothing of it. Threads are started for the call
/// and joined before it returns, whether it succeeds, fails or is cancelled.
///
///     keyseek::Execution run;
///     run.threads = 2;
///     run.progress = [&](std::string_view stage, std::size_t done, std::size_t total) {
///       std::fprintf(stderr, "\r%.*s %zu/%zu", int(stage.size()), stage.data(), done, total);
///       return !interrupted;  // false: the work stops with ErrorCode::cancelled
///     };
#pragma once

#include <cstddef>
#include <functional>
#include <string_view>

namespace keyseek {

/// Called from one thread at a time, a few hundred times per stage at most.
/// Returns false to cancel.
using Progress = std::function<bool(std::string_view stage, std::size_t done, std::size_t total)>;

struct Execution {
  int threads = 0;         ///< 0: one per processor this process may use
  Progress progress = {};  ///< empty: silent

  void validate() const;                            ///< throws Error(invalid_argument)
  [[nodiscard]] int thread_count() const noexcept;  ///< threads, with 0 resolved
};

}  // namespace keyseek
