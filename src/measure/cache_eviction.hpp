/// Emptying the processor's caches of what a program has used.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace keyseek {

/// Owns a buffer of at least twice the last-level cache (64 to 256 MiB); one thread at a time.
class CacheEviction {
 public:
  CacheEviction();

  /// Reads every cache line of the buffer, so that other lines have to leave; as reading a
  /// model's weights does. (Written lines would have to be written back while the step that
  /// is timed already runs.)
  void evict() noexcept;

  [[nodiscard]] std::size_t bytes() const noexcept { return buffer_.size() * sizeof(buffer_[0]); }

 private:
  std::vector<std::uint64_t> buffer_;
};

}  // namespace keyseek
