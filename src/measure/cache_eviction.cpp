/// Reads through more memory than the caches hold, so that nothing else stays in them.
#include "measure/cache_eviction.hpp"

#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <string>

namespace keyseek {
namespace {

constexpr std::size_t kLine = 64;

/// "36608K" or "32M" of sysfs in bytes; 0 when it is neither.
std::size_t parse_size(const std::string& text) {
  const std::size_t digits = std::min(text.find_first_not_of("0123456789"), text.size());
  if (digits == 0 || digits > 9) return 0;
  const std::size_t number = std::stoul(text.substr(0, digits));
  const char unit = digits < text.size() ? text[digits] : 'B';
  return number << (unit == 'K' ? 10U : unit == 'M' ? 20U : unit == 'G' ? 30U : 0U);
}

/// Bytes of the largest cache; 0 when the system does not say.
std::size_t last_level_cache() {
  std::size_t largest = 0;
#ifdef _SC_LEVEL3_CACHE_SIZE
  largest = static_cast<std::size_t>(std::max(0L, ::sysconf(_SC_LEVEL3_CACHE_SIZE)));
#endif
  for (int i = 0; i < 8; ++i) {
    std::ifstream file("/sys/devices/system/cpu/cpu0/cache/index" + std::to_string(i) + "/size");
    std::string text;
    if (file >> text) largest = std::max(largest, parse_size(text));
  }
  return largest;
}

}  // namespace

CacheEviction::CacheEviction() {
  constexpr std::size_t kFloor = std::size_t{64} << 20U, kCap = std::size_t{256} << 20U;
  buffer_.resize(std::clamp(2 * last_level_cache(), kFloor, kCap) / sizeof(buffer_[0]));
}

void CacheEviction::evict() noexcept {
  std::uint64_t sum = 0;
  for (std::size_t i = 0; i < buffer_.size(); i += kLine / sizeof(buffer_[0])) sum += buffer_[i];
  // Volatile: nobody reads the result, and the compiler must not know.
  volatile std::uint64_t sink = sum;
  (void)sink;
}

}  // namespace keyseek
