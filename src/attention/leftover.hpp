/// What of attention is not retrieved: a tail is to stand for it.
#pragma once

#include <cstddef>
#include <span>
#include <vector>

#include "attention/observed.hpp"
#include "keyseek/tail.hpp"

namespace keyseek {

/// A share of mass below this is nothing, since its logarithm is noise.
inline constexpr double kLeastShare = 1e-9;

/// What is left of a query's attention when its k best keys are taken away.
struct Leftover {
  double share = 0;         ///< of the mass over all tokens
  double lse = 0;           ///< of its logits
  double retrieved = 0;     ///< log-sum-exp of the k best
  std::vector<double> out;  ///< [dv] mean of its values
};
[[nodiscard]] Leftover leftover(const Observations& seen, ValuesView values, std::size_t k,
                                std::size_t q);

/// Mass [n, G] of the keys without each query's kept best.
[[nodiscard]] Matrix<float> mass_without(const Observations& seen,
                                         std::span<const std::size_t> kept);

}  // namespace keyseek
