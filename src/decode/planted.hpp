/// Queries whose answer hangs on one token, made from those of the prompt.
#pragma once

#include <cstddef>
#include <cstdint>

#include "decode/answered_queries.hpp"
#include "decode/plan_input.hpp"
#include "keyseek/decode_params.hpp"

namespace keyseek {

/// Of `count` steps of `asked`, evenly spread, the queries, each turned towards an indexed token,
/// chosen at random among those that it can be turned to, until about half of their attention is on
/// it; they attend exactly to sink and window, as the first decoded tokens do. A prompt's own
/// queries seldom ask for one token of the far past, and what a head does for them in the mean says
/// little about one that does.
[[nodiscard]] AnsweredQueries planted_queries(const PlanInput& input, const AnsweredQueries& asked,
                                              std::size_t count, const DecodeParams& params,
                                              std::uint64_t seed);

}  // namespace keyseek
