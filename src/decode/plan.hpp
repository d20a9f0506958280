/// How a head's indexed tokens are attended: tried on the prompt's own queries.
#pragma once

#include "decode/head_index.hpp"
#include "decode/plan_input.hpp"
#include "keyseek/decode.hpp"

namespace keyseek {

/// A plan and what it uses; the index is empty where it uses none.
struct Planned {
  HeadPlan plan;
  HeadIndex index;
  Tail tail;
};

/// Attends to all indexed tokens.
[[nodiscard]] HeadPlan plan_of_everything(const Tokens::Piece& indexed);

/// `before`: a projection index over input.tokens.indexed that is there already, or none.
[[nodiscard]] Planned make_plan(const PlanInput& input, const DecodeParams& params,
                                HeadIndex before, const Execution& run);

}  // namespace keyseek
