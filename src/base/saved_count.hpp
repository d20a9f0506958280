/// Counts as files keep them: as f64, which holds whole numbers up to 2^53. Infinity is
/// SIZE_MAX, "no limit". `validate()` refuses what lies between, so that whatever can be
/// built can be saved and comes back equal.
#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>
#include <string_view>

#include "base/fail.hpp"

namespace keyseek {

inline constexpr std::size_t kMostSaved = std::size_t{1} << 53U;

/// Throws Error(invalid_argument) unless a file can hold `count`.
inline void require_saveable(std::string_view name, std::size_t count) {
  require(count <= kMostSaved || count == SIZE_MAX,
          "{} is {}, must be at most {} (2^53), or SIZE_MAX for no limit", name, count, kMostSaved);
}

[[nodiscard]] inline double saved_count(std::size_t count) {
  return count == SIZE_MAX ? std::numeric_limits<double>::infinity() : static_cast<double>(count);
}

}  // namespace keyseek
