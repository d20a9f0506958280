/// Which keys a search without seeds starts from.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <numeric>
#include <vector>

#include "keyseek/matrix.hpp"

namespace keyseek {

/// Of keys that are wanted count[i] times, the most wanted ones; ties to the smaller id.
[[nodiscard]] inline std::vector<Id> most_wanted(const std::vector<std::uint32_t>& count,
                                                 std::size_t how_many) {
  std::vector<Id> keys(count.size());
  std::iota(keys.begin(), keys.end(), Id{0});
  const auto wanted = static_cast<std::ptrdiff_t>(std::min(how_many, keys.size()));
  std::partial_sort(keys.begin(), keys.begin() + wanted, keys.end(),
                    [&](Id a, Id b) { return count[a] != count[b] ? count[a] > count[b] : a < b; });
  keys.resize(static_cast<std::size_t>(wanted));
  return keys;
}

}  // namespace keyseek
