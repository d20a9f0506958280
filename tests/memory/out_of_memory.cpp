#include "memory/out_of_memory.hpp"

#include <atomic>
#include <cstdlib>

namespace {

constexpr long kNever = -1;
std::atomic<long> left{kNever};

/// However many threads count down, exactly one of them comes to 0.
void count() {
  long now = left.load(std::memory_order_relaxed);
  while (now > kNever && !left.compare_exchange_weak(now, now - 1)) {
  }
  if (now == 0) throw std::bad_alloc();
}

void* allocate(std::size_t bytes) {
  count();
  void* memory = std::malloc(bytes > 0 ? bytes : 1);
  if (memory == nullptr) throw std::bad_alloc();
  return memory;
}

void* allocate(std::size_t bytes, std::align_val_t alignment) {
  count();
  const auto unit = static_cast<std::size_t>(alignment);
  void* memory = std::aligned_alloc(unit, (bytes / unit + 1) * unit);
  if (memory == nullptr) throw std::bad_alloc();
  return memory;
}

}  // namespace

void* operator new(std::size_t bytes) { return allocate(bytes); }
void* operator new[](std::size_t bytes) { return allocate(bytes); }
void* operator new(std::size_t bytes, std::align_val_t unit) { return allocate(bytes, unit); }
void* operator new[](std::size_t bytes, std::align_val_t unit) { return allocate(bytes, unit); }
// Sanitizers bring these two of their own, whose memory std::free would not take.
void* operator new(std::size_t bytes, const std::nothrow_t&) noexcept {
  try {
    return allocate(bytes);
  } catch (const std::bad_alloc&) {
    return nullptr;
  }
}
void* operator new[](std::size_t bytes, const std::nothrow_t& none) noexcept {
  return operator new(bytes, none);
}
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete[](void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }
void operator delete[](void* memory, std::size_t) noexcept { std::free(memory); }
void operator delete(void* memory, std::align_val_t) noexcept { std::free(memory); }
void operator delete[](void* memory, std::align_val_t) noexcept { std::free(memory); }
void operator delete(void* memory, std::size_t, std::align_val_t) noexcept { std::free(memory); }
void operator delete[](void* memory, std::size_t, std::align_val_t) noexcept { std::free(memory); }

namespace keyseek::test {

RunsOut::RunsOut(std::size_t count) { left = static_cast<long>(count); }
RunsOut::~RunsOut() { left = kNever; }
bool RunsOut::did() const { return left.load() == kNever; }

}  // namespace keyseek::test
