/// What a plan is made from.
#pragma once

#include <cstddef>
#include <span>

#include "decode/tokens.hpp"
#include "keyseek/matrix.hpp"

namespace keyseek {

/// Positions whose queries a plan needs; with fewer everything is attended.
inline constexpr std::size_t kLeastPositions = 64;

struct PlanInput {
  Tokens tokens;
  AnyMatrix indexed_keys;                  ///< what tokens.indexed.keys looks at
  MatrixView<float> queries;               ///< [positions * group, d] as they were asked
  std::span<const std::size_t> positions;  ///< of them, increasing
  std::size_t group = 1;
};

}  // namespace keyseek
