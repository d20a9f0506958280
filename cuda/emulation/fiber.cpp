/// Switches between fibers, each with a stack of its own.
#include "cuda/emulation/fiber.hpp"

#include <cstdint>
#include <stdexcept>

#if defined(__SANITIZE_ADDRESS__)
#define KEYSEEK_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define KEYSEEK_ASAN 1
#endif
#endif

#if defined(KEYSEEK_ASAN)
#include <sanitizer/common_interface_defs.h>
#endif

namespace keyseek::cuda::emulation {
namespace {

constexpr std::size_t kStackBytes = std::size_t{256} << 10U;

#if defined(KEYSEEK_ASAN)
void before_switch(void** fake_stack, const void* bottom, std::size_t size) {
  __sanitizer_start_switch_fiber(fake_stack, bottom, size);
}
void after_switch(void* fake_stack, const void** bottom, std::size_t* size) {
  __sanitizer_finish_switch_fiber(fake_stack, bottom, size);
}
#else
void before_switch(void** /*fake_stack*/, const void* /*bottom*/, std::size_t /*size*/) {}
void after_switch(void* /*fake_stack*/, const void** /*bottom*/, std::size_t* /*size*/) {}
#endif

}  // namespace

Fiber::Fiber() : stack_(new std::byte[kStackBytes]) {}

void Fiber::start(const std::function<void()>& body) {
  body_ = &body;
  error_ = nullptr;
  ended_ = false;
  if (getcontext(&context_) != 0) throw std::runtime_error("getcontext failed");
  context_.uc_stack.ss_sp = stack_.get();
  context_.uc_stack.ss_size = kStackBytes;
  context_.uc_link = nullptr;
  // makecontext hands over ints only.
  const auto address = reinterpret_cast<std::uintptr_t>(this);
  makecontext(&context_, reinterpret_cast<void (*)()>(&Fiber::enter), 2,
              static_cast<unsigned>(address >> 32U), static_cast<unsigned>(address));
}

void Fiber::resume() {
  void* fake_stack = nullptr;
  before_switch(&fake_stack, stack_.get(), kStackBytes);
  swapcontext(&caller_, &context_);
  after_switch(fake_stack, nullptr, nullptr);
  if (error_) std::rethrow_exception(error_);
}

void Fiber::yield() { leave(false); }

void Fiber::enter(unsigned high, unsigned low) {
  const auto address = (std::uintptr_t{high} << 32U) | low;
  reinterpret_cast<Fiber*>(address)->run_body();
}

void Fiber::run_body() {
  after_switch(nullptr, &caller_stack_, &caller_stack_size_);
  try {
    (*body_)();
  } catch (...) {
    error_ = std::current_exception();
  }
  ended_ = true;
  leave(true);
}

void Fiber::leave(bool for_good) {
  before_switch(for_good ? nullptr : &fake_stack_, caller_stack_, caller_stack_size_);
  swapcontext(&context_, &caller_);
  after_switch(fake_stack_, &caller_stack_, &caller_stack_size_);
}

}  // namespace keyseek::cuda::emulation
