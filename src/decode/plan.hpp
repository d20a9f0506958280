/// How a head's indexed tokens are attended: tried on the prompt's own queries.
#pragma once

#include <cstddef>
#include <optional>
#include <span>

#include "decode/tokens.hpp"
#include "keyseek/decode.hpp"

namespace keyseek {

/// Positions whose queries a plan needs; with fewer everything is attended.
inline constexpr std::size_t kLeastPositions = 64;

/// What a plan is made from.
struct PlanInput {
  Tokens tokens;
  MatrixView<float> queries;               ///< [positions * group, d] as they were asked
  std::span<const std::size_t> positions;  ///< of them, increasing
  std::size_t group = 1;
};

/// A plan and what it uses; indexes that it does not use are not there.
struct Planned {
  HeadPlan plan;
  std::optional<FlatIndex> flat;
  std::optional<ProjectionIndex> projection;
  Tail tail;
};

/// `before` holds indexes over input.tokens.indexed that are there already, or nothing.
[[nodiscard]] Planned make_plan(const PlanInput& input, const DecodeParams& params, Planned before,
                                const Execution& run);

/// The keys that a plan retrieves; the plan's retriever must be flat or projection.
void retrieve_planned(const HeadPlan& plan, const std::optional<FlatIndex>& flat,
                      const std::optional<ProjectionIndex>& projection, MatrixView<float> queries,
                      const Hits* previous, SearchScratch& scratch, Hits& hits);

}  // namespace keyseek
