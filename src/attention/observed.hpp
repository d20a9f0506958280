/// Checks of arguments against what was observed.
#pragma once

#include "keyseek/tail.hpp"

namespace keyseek {

/// Throws Error unless `values` have the shape that `seen` was observed with.
void require_values(const Observations& seen, ValuesView values);
/// Throws Error unless the k best keys of `seen` are known.
void require_k(const Observations& seen, std::size_t k);

}  // namespace keyseek
