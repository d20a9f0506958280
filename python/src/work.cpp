/// How long work looks for signals and reports its progress.
#include "work.hpp"

#include <string_view>

#include "gil.hpp"

namespace keyseek::python {

bool Watch::report(std::string_view stage, std::size_t done, std::size_t total) {
  if (stop_) return false;
  if (!callback_) return true;
  const GilHeld held;
  try {
    const nb::object answer =
        call_python(*callback_, nb::str(stage.data(), stage.size()), done, total);
    return !answer.is(nb::bool_(false));
  } catch (...) {
    stop_with_current_exception();
    return false;
  }
}

void Watch::look_for_signals() {
  const GilHeld held;
  try {
    if (PyErr_CheckSignals() != 0) throw nb::python_error();
  } catch (...) {
    stop_with_current_exception();
  }
}

void Watch::rethrow() const {
  const std::lock_guard lock(mutex_);
  if (raised_) std::rethrow_exception(raised_);
}

void Watch::stop_with_current_exception() {
  const std::lock_guard lock(mutex_);
  if (!raised_) raised_ = std::current_exception();
  stop_ = true;
}

}  // namespace keyseek::python
