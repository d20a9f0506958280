/// How a head's indexed tokens are attended: tried on the prompt's own queries.
#pragma once

#include <cstddef>
#include <span>

#include "decode/tokens.hpp"
#include "keyseek/decode.hpp"

namespace keyseek {

/// Positions whose queries a plan needs; with fewer everything is attended.
inline constexpr std::size_t kLeastPositions = 64;

/// What a plan is made from.
struct PlanInput {
  Tokens tokens;
  AnyMatrix indexed_keys;                  ///< what tokens.indexed.keys looks at
  MatrixView<float> queries;               ///< [positions * group, d] as they were asked
  std::span<const std::size_t> positions;  ///< of them, increasing
  std::size_t group = 1;
};

/// A plan and what it uses; indexes that it does not use are not there.
struct Planned {
  HeadPlan plan;
  HeadIndex index;
  Tail tail;
};

/// `before` holds indexes over input.tokens.indexed that are there already, or nothing.
[[nodiscard]] Planned make_plan(const PlanInput& input, const DecodeParams& params,
                                HeadIndex before, const Execution& run);

}  // namespace keyseek
