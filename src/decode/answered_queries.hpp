/// Queries of the prompt as they would be asked while decoding.
#pragma once

#include <cstddef>
#include <vector>

#include "decode/plan_input.hpp"
#include "keyseek/decode_params.hpp"

namespace keyseek {

/// Queries moved to positions within the horizon, and what they attend exactly there: sink and
/// window as they will stand, and, for the tokens decoded until then, as many tokens of the
/// query's own past.
struct AnsweredQueries {
  Matrix<float> queries;  ///< [m * group, d]
  Partial exact;          ///< [m * group]
  std::size_t run = 1;    ///< steps that were consecutive positions
};

/// `rows` are blocks of input.queries, `run` consecutive ones moved by one shift.
[[nodiscard]] AnsweredQueries moved_queries(const PlanInput& input,
                                            const std::vector<std::size_t>& rows, std::size_t run,
                                            const DecodeParams& params, std::uint64_t seed);

/// Queries of the window's own positions, as they were asked: they attend exactly to the sink and
/// to what the window holds up to them. Nearest to what decoding will ask about, and a little
/// harder, since less of the past is exact.
[[nodiscard]] AnsweredQueries newest_queries(const PlanInput& input,
                                             const std::vector<std::size_t>& rows, std::size_t run,
                                             const DecodeParams& params);

/// Attention of a step's queries over the sink and the window's tokens before position `end`.
void attend_static(const PlanInput& input, MatrixView<float> queries, std::size_t end,
                   const DecodeParams& params, AttendScratch& scratch, Partial& part,
                   Partial& exact);

/// Writes `part` over queries [first, ...) of `all`.
void put(const Partial& part, std::size_t first, Partial& all);

/// One after the other; both of the same `run`.
[[nodiscard]] AnsweredQueries joined(const AnsweredQueries& first, const AnsweredQueries& second);

}  // namespace keyseek
