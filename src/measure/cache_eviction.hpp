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

  /// Writes every cache line of the buffer, so that other lines have to leave.
  void evict() noexcept;

  [[nodiscard]] std::size_t bytes() const noexcept { return buffer_.size() * sizeof(buffer_[0]); }

 private:
  std::vector<std::uint64_t> buffer_;
};

}  // namespace keyseek
