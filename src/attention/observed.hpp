/// Checks of arguments against what was observed.
#pragma once

#include "keyseek/tail.hpp"

namespace keyseek {

/// Throws Error unless `values` have the shape that `seen` was observed with.
void require_values(const Observations& seen, ValuesView values);
/// Throws Error unless `kept` has a number for each query of `seen`, of best keys that are known.
void require_kept(const Observations& seen, std::span<const std::size_t> kept);

}  // namespace keyseek
