/// How many of the keys that were found are attended.
#pragma once

#include <cstddef>
#include <span>

#include "keyseek/decode.hpp"

namespace keyseek {

/// Of one query's `scores`, inner products, best first; `best` and `lse` are the largest logit
/// and the log-sum-exp of what is attended exactly, of which null logits are in the sum alone.
[[nodiscard]] std::size_t kept_by(const StopRule& stop, std::span<const float> scores,
                                  Logits logits, float best, float lse);

}  // namespace keyseek
