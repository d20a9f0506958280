/// The one way keyseek uses several threads.
///
/// Work is cut into chunks of fixed size, so results never depend on the number of threads as long
/// as chunks write to places of their own. Whose threads these are, run.executor says.
#pragma once

#include <cstddef>
#include <functional>
#include <string_view>

#include "keyseek/execution.hpp"

namespace keyseek {

/// Calls body(begin, end, worker) for consecutive chunks of [0, count), each at most
/// `grain` long; `worker` is below run.thread_count(). The first exception stops the
/// work and is rethrown here. Reports run.progress as `stage` (empty: silent) and
/// throws Error(cancelled) when it returns false.
void parallel_for(std::size_t count, std::size_t grain, const Execution& run,
                  std::string_view stage,
                  const std::function<void(std::size_t begin, std::size_t end, int worker)>& body);

/// Reports `done` of `total` to run.progress, from one thread; throws Error(cancelled) when it
/// returns false.
void report_progress(const Execution& run, std::string_view stage, std::size_t done,
                     std::size_t total);

}  // namespace keyseek
