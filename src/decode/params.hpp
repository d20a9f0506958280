/// What parameters of a head must be beside what each of them means: possible, and such that a file
/// brings them back.
#pragma once

#include <string_view>

#include "keyseek/decode.hpp"

namespace keyseek {

/// Both throw Error(invalid_argument) with the name of the parameter and its value.
void require_saveable(const DecodeParams& params);
void require_stop_rule(const StopRule& stop, std::string_view name);

}  // namespace keyseek
