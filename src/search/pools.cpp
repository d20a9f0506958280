/// The rules for how many keys go on to the next look.
#include "search/pools.hpp"

#include <algorithm>

namespace keyseek {
namespace {

/// From here on codes of a key carry enough that few more than k are needed.
constexpr std::size_t kManyDimensions = 128;

}  // namespace

std::size_t list_pool(std::size_t k, std::size_t d) noexcept {
  return k + (d >= kManyDimensions ? 30 : 60) * std::max<std::size_t>(k, 25) / 100;
}

std::size_t trained_pool(std::size_t k, std::size_t d) noexcept {
  return k + std::max<std::size_t>(8, k / (d >= kManyDimensions ? 10 : 4));
}

std::size_t untrained_pool(std::size_t k) noexcept { return k + std::max<std::size_t>(16, k / 2); }

std::size_t projection_pool(std::size_t k, std::size_t d, const Dials& dials) noexcept {
  return dials.pool > 0 ? dials.pool : std::max<std::size_t>(trained_pool(k, d), dials.expand);
}

}  // namespace keyseek
