/// Inner products on their way to logits.
#pragma once

#include <cstddef>

#include "keyseek/attention.hpp"
#include "score/kernels.hpp"

namespace keyseek {

/// Puts `count` inner products under the soft-cap, if there is one; returns what they are still to
/// be multiplied by to be logits.
[[nodiscard]] inline float capped(Logits how, float* products, std::size_t count) {
  if (how.softcap <= 0.0F) return how.scale;
  kernels().cap(products, count, how.scale, how.softcap);
  return 1.0F;
}

}  // namespace keyseek
