/// What a stop rule must be, of a plan that is asked for or decided.
#pragma once

#include <string_view>

#include "keyseek/decode_params.hpp"

namespace keyseek {

/// Throws Error(invalid_argument) that calls the limit `name` when it is none of the rule's.
void require_limit(Rule rule, double limit, std::string_view name);

}  // namespace keyseek
