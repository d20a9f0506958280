/// What the tool says of an index.
#pragma once

#include "cli/console.hpp"
#include "keyseek/index.hpp"

namespace keyseek::cli {

/// Kind, keys, dim, bytes, what its kind has beside these, and tuned dials.
[[nodiscard]] Json describe(const Index& index);

/// The value of one of the index's facts; 0 when its kind has none of this name.
[[nodiscard]] std::size_t fact(const Index& index, std::string_view name);

}  // namespace keyseek::cli
