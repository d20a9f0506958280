/// What options and a stop rule must be, of a plan that is asked for or decided.
#pragma once

#include <string_view>

#include "keyseek/decode_params.hpp"

namespace keyseek {

/// Throws Error(invalid_argument) that calls the limit `name` when it is none of the rule's.
void require_limit(Rule rule, double limit, std::string_view name);

/// What `validate` asks of each option and of options together, but that somebody reads them: a
/// file's have been asked already, and its plan stands.
void require_possible(const DecodeParams& params);

}  // namespace keyseek
