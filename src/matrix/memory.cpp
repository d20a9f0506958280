/// Allocates memory at cache lines, and on huge pages where it is large.
#include <cstddef>
#include <new>

#include "keyseek/matrix.hpp"

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace keyseek {
namespace {

constexpr std::size_t kCacheLine = 64, kHugePage = std::size_t{2} << 20U;
// From here on at least one whole huge page is used.
constexpr std::size_t kLarge = kHugePage;

std::align_val_t alignment_of(std::size_t bytes) {
  return std::align_val_t{bytes >= kLarge ? kHugePage : kCacheLine};
}

}  // namespace

void* allocate_aligned(std::size_t bytes) {
  void* memory = ::operator new(bytes, alignment_of(bytes));
#if defined(MADV_HUGEPAGE)
  // Advice: where it is not taken, nothing is lost. The last page may be shared with others.
  if (bytes >= kLarge) (void)::madvise(memory, bytes / kHugePage * kHugePage, MADV_HUGEPAGE);
#endif
  return memory;
}

void free_aligned(void* memory, std::size_t bytes) noexcept {
  ::operator delete(memory, alignment_of(bytes));
}

}  // namespace keyseek
