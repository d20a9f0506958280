/// Who reads which option: for the table, why a plan never looks at one of them.
#pragma once

#include <string>

#include "keyseek/decode_params.hpp"

/// Each gives an empty text where `params` have somebody who reads the option, and else why they
/// have not, as what follows "max_error is 0.02, but ".
namespace keyseek::read_by {

[[nodiscard]] std::string all(const DecodeParams& params);
/// A plan that is made, not given.
[[nodiscard]] std::string planner(const DecodeParams& params);
/// The same, among indexes of ours.
[[nodiscard]] std::string choice_of_index(const DecodeParams& params);
/// A search, whichever.
[[nodiscard]] std::string search(const DecodeParams& params);
/// A search whose rule keeps fewer keys than it finds, or one that is planned.
[[nodiscard]] std::string least(const DecodeParams& params);
[[nodiscard]] std::string limited_rule(const DecodeParams& params);
/// An index whose memory is weighed.
[[nodiscard]] std::string weighed_index(const DecodeParams& params);
/// An index that queries of the prompt train.
[[nodiscard]] std::string trained_index(const DecodeParams& params);
/// A given projection index, and that or one that a plan may take.
[[nodiscard]] std::string given_projection(const DecodeParams& params);
[[nodiscard]] std::string projection(const DecodeParams& params);
/// Whoever tries a plan on held-out queries.
[[nodiscard]] std::string trial(const DecodeParams& params);
[[nodiscard]] std::string tail(const DecodeParams& params);
[[nodiscard]] std::string tail_training(const DecodeParams& params);
/// The re-rotation of queries, and its frequencies where theta makes them.
[[nodiscard]] std::string shift(const DecodeParams& params);
[[nodiscard]] std::string theta(const DecodeParams& params);

}  // namespace keyseek::read_by
