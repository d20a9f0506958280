/// What a plan is tried on: queries of the prompt, answered in full.
#pragma once

#include <cstddef>
#include <vector>

#include "decode/answered_queries.hpp"
#include "decode/plan_input.hpp"
#include "keyseek/decode_params.hpp"
#include "keyseek/execution.hpp"
#include "keyseek/tail.hpp"

namespace keyseek {

/// Two kinds of queries are held out. Old ones, from before the positions that train and as far
/// from them as decoding will be, are moved to where it will be: they say what later tokens will
/// find. The newest ones stay where they were asked: what the text was about last is near for
/// them, as it will be for the first tokens. A plan has to hold for both.
struct Evidence {
  std::size_t first_training = 0, last_training = 0;  ///< of input.positions; the last is not in
  AnsweredQueries held;
  std::size_t old_queries = 0;  ///< of `held`, before the newest
  AnsweredQueries planted;      ///< queries whose answer hangs on one token
  Observations train_seen, held_seen, planted_seen;

  /// Mean of the errors of old or of newest held-out queries, whichever is larger; with a
  /// `confidence` above 0, what that share of them is not above.
  [[nodiscard]] double error(const std::vector<float>& errors, double confidence) const;
};

/// `k`: keys per query that a plan may ask for.
[[nodiscard]] Evidence gather_evidence(const PlanInput& input, const DecodeParams& params,
                                       std::size_t k, const Execution& run);

}  // namespace keyseek
