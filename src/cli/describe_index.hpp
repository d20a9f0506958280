/// What the tool says of an index.
#pragma once

#include "cli/console.hpp"
#include "keyseek/index.hpp"

namespace keyseek::cli {

/// Kind, keys, dim, bytes, what its kind has beside these, and tuned dials.
[[nodiscard]] Json describe(const Index& index);

}  // namespace keyseek::cli
