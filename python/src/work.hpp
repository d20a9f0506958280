/// Long work beside Python: the GIL is released, progress reported, Ctrl-C obeyed.
#pragma once

#include <nanobind/nanobind.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>

#include <atomic>
#include <chrono>
#include <cstddef>
#include <exception>
#include <future>
#include <mutex>
#include <optional>
#include <string>

#include "gil.hpp"
#include "keyseek/execution.hpp"
#include "whole.hpp"

namespace nb = nanobind;

namespace keyseek::python {

/// Called as progress(stage, done, total) from the thread that works; returning False stops it.
using ProgressCallback =
    std::optional<nb::typed<nb::callable, nb::object(std::string, std::size_t, std::size_t)>>;

/// What the worker and the Python thread that waits for it share.
class Watch {
 public:
  explicit Watch(const ProgressCallback& callback) : callback_(callback) {}

  /// For the worker. False once the work has to stop.
  [[nodiscard]] bool report(std::string_view stage, std::size_t done, std::size_t total);
  /// For the thread that Python called, without the GIL: Python's signal handlers run here,
  /// if it is the main thread, which alone may run them.
  void look_for_signals();
  /// Throws what a callback or a signal handler raised.
  void rethrow() const;

 private:
  void stop_with_current_exception();

  const ProgressCallback& callback_;
  std::atomic<bool> stop_{false};
  mutable std::mutex mutex_;
  std::exception_ptr raised_;
};

/// Where `threads` are no number, throws. Else body(const Execution&) on a thread of its own;
/// returns its result. The caller holds the GIL, the body does not and uses no Python.
template <class Body>
auto run_long(const Whole& threads, const ProgressCallback& callback, Body body) {
  constexpr std::chrono::milliseconds kSignalInterval{50};
  Watch watch(callback);
  const Execution run{int_of(threads, "threads"),
                      [&](std::string_view stage, std::size_t done, std::size_t total) {
                        return watch.report(stage, done, total);
                      }};
  const GilReleased released;
  auto result = std::async(std::launch::async, [&] { return body(run); });
  while (result.wait_for(kSignalInterval) == std::future_status::timeout) watch.look_for_signals();
  watch.rethrow();
  return result.get();
}

}  // namespace keyseek::python
