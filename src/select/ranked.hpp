/// A score and an id as one number, so that "better" is one comparison.
///
/// Larger is better: the score first, then the smaller id. Sorting and selecting plain
/// 64-bit numbers is also several times faster than sorting pairs.
#pragma once

#include <bit>
#include <cstdint>

#include "keyseek/matrix.hpp"

namespace keyseek {

using Ranked = std::uint64_t;

/// Order-preserving bits of a float that is not NaN.
[[nodiscard]] inline std::uint32_t ordered_bits(float x) noexcept {
  const auto bits = std::bit_cast<std::uint32_t>(x);
  return (bits & 0x80000000U) != 0 ? ~bits : bits | 0x80000000U;
}
[[nodiscard]] inline float from_ordered_bits(std::uint32_t bits) noexcept {
  return std::bit_cast<float>((bits & 0x80000000U) != 0 ? bits & 0x7fffffffU : ~bits);
}

[[nodiscard]] inline Ranked ranked(float score, Id id) noexcept {
  // Adding zero turns -0 into 0: equal scores must have equal bits.
  return (Ranked{ordered_bits(score + 0.0F)} << 32) | static_cast<std::uint32_t>(~id);
}
[[nodiscard]] inline Id id_of(Ranked r) noexcept { return ~static_cast<std::uint32_t>(r); }
[[nodiscard]] inline float score_of(Ranked r) noexcept {
  return from_ordered_bits(static_cast<std::uint32_t>(r >> 32));
}

}  // namespace keyseek
