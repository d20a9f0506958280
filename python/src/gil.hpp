/// The GIL, given away and asked for, also while the interpreter ends.
///
/// A thread that asks for the GIL of an ending interpreter never gets it. Python ends the thread
/// instead, by unwinding its stack, and the first destructor on the way turns that into an abort
/// of the process. Nobody waits for such a daemon thread, so here it rests until the process is
/// gone; from Python 3.14 on the interpreter does the same by itself.
#pragma once

#include <nanobind/nanobind.h>

#include <chrono>
#include <exception>
#include <thread>
#include <utility>

namespace keyseek::python {

[[noreturn]] inline void rest_until_the_process_ends() {
  while (true) std::this_thread::sleep_for(std::chrono::hours(1));
}

/// Without the GIL, for as long as this lives.
class GilReleased {
 public:
  GilReleased() : thread_(PyEval_SaveThread()) {}
  ~GilReleased() {
    try {
      PyEval_RestoreThread(thread_);
    } catch (...) {  // no exception, but the unwinding
      rest_until_the_process_ends();
    }
  }
  GilReleased(const GilReleased&) = delete;
  GilReleased& operator=(const GilReleased&) = delete;

 private:
  PyThreadState* thread_;
};

/// With the GIL, for as long as this lives; from any thread.
class GilHeld {
 public:
  GilHeld() {
    try {
      state_ = PyGILState_Ensure();
    } catch (...) {
      rest_until_the_process_ends();
    }
  }
  ~GilHeld() { PyGILState_Release(state_); }
  GilHeld(const GilHeld&) = delete;
  GilHeld& operator=(const GilHeld&) = delete;

 private:
  PyGILState_STATE state_;
};

/// function(args...) while the GIL is held; Python may give it away and ask for it meanwhile.
template <class Function, class... Args>
[[nodiscard]] nanobind::object call_python(const Function& function, Args&&... args) {
  try {
    return function(std::forward<Args>(args)...);
  } catch (const std::exception&) {
    throw;
  } catch (...) {
    rest_until_the_process_ends();
  }
}

}  // namespace keyseek::python
