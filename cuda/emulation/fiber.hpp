/// A function with a stack of its own that can stop in the middle and go on later.
#pragma once

#include <ucontext.h>

#include <cstddef>
#include <exception>
#include <functional>
#include <memory>

namespace keyseek::cuda::emulation {

/// Stays where it was made: contexts hold addresses.
class Fiber {
 public:
  Fiber();
  Fiber(const Fiber&) = delete;
  Fiber& operator=(const Fiber&) = delete;

  /// To run `body` from its beginning at the next resume(). `body` must live until it ends.
  void start(const std::function<void()>& body);
  /// Runs until the body ends or calls yield(). Rethrows what the body threw.
  void resume();
  /// Called in the body: back to who called resume().
  void yield();
  [[nodiscard]] bool ended() const noexcept { return ended_; }

 private:
  static void enter(unsigned high, unsigned low);
  void run_body();
  void leave(bool for_good);

  std::unique_ptr<std::byte[]> stack_;
  ucontext_t context_{}, caller_{};
  const std::function<void()>* body_ = nullptr;
  std::exception_ptr error_;
  bool ended_ = true;
  // What AddressSanitizer is told about stacks.
  void* fake_stack_ = nullptr;
  const void* caller_stack_ = nullptr;
  std::size_t caller_stack_size_ = 0;
};

}  // namespace keyseek::cuda::emulation
