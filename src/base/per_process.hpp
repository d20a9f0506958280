/// What a forked child must not share with its parent.
#pragma once

#include <unistd.h>

#include <atomic>
#include <memory>
#include <utility>

namespace keyseek {

/// A T made at first use, once in each process. In a forked child its parent's may be in any
/// state: threads do not come along, locks stay as they were. The child leaves that behind and
/// makes its own. Thread-safe.
template <class T>
class PerProcess {
 public:
  PerProcess() = default;
  ~PerProcess() {
    const Made* made = made_.load(std::memory_order_acquire);
    if (made != nullptr && made->process == ::getpid()) delete made;
  }
  PerProcess(const PerProcess&) = delete;
  PerProcess& operator=(const PerProcess&) = delete;

  /// The T of this process, constructed from `args` where there is none yet.
  template <class... Args>
  [[nodiscard]] T& get(const Args&... args) {
    const pid_t process = ::getpid();
    Made* made = made_.load(std::memory_order_acquire);
    if (made != nullptr && made->process == process) return made->value;
    auto fresh = std::make_unique<Made>(process, args...);
    while (!made_.compare_exchange_strong(made, fresh.get(), std::memory_order_acq_rel)) {
      if (made != nullptr && made->process == process) return made->value;  // another thread's
    }
    return fresh.release()->value;
  }

 private:
  struct Made {
    template <class... Args>
    explicit Made(pid_t maker, const Args&... args) : process(maker), value(args...) {}
    pid_t process;
    T value;
  };
  std::atomic<Made*> made_ = nullptr;
};

}  // namespace keyseek
