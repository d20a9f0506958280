/// Random numbers that are the same on every platform and standard library.
///
///     Random random(seed);
///     const auto row = random.below(rows);
#pragma once

#include <cstdint>

namespace keyseek {

/// SplitMix64 (Steele, Lea, Flood: Fast splittable pseudorandom number generators, OOPSLA
/// 2014). The standard engines are portable too, but the standard distributions are not.
class Random {
 public:
  explicit Random(std::uint64_t seed) noexcept : state_(seed) {}

  [[nodiscard]] std::uint64_t next() noexcept {
    state_ += 0x9e3779b97f4a7c15ULL;
    std::uint64_t z = state_;
    z = (z ^ (z >> 30U)) * 0xbf58476d1ce4e5b9ULL;
    z = (z ^ (z >> 27U)) * 0x94d049bb133111ebULL;
    return z ^ (z >> 31U);
  }

  /// Draws from [0, 1), in multiples of 2^-53.
  [[nodiscard]] double uniform() noexcept { return static_cast<double>(next() >> 11U) * 0x1p-53; }

  /// Draws from [0, n) without bias; n must be above 0.
  [[nodiscard]] std::uint64_t below(std::uint64_t n) noexcept {
    const std::uint64_t surplus = (0 - n) % n;  // 2^64 mod n: that many draws are one too many
    std::uint64_t x = next();
    while (x < surplus) x = next();
    return x % n;
  }

 private:
  std::uint64_t state_;
};

}  // namespace keyseek
