/// The dials that a sweep tries.
#pragma once

#include <cstddef>
#include <vector>

#include "keyseek/index.hpp"
#include "sweep/contender.hpp"

namespace keyseek::sweep {

/// Dials from a few scanned keys to nearly all, by rising effort: every combination of lists
/// and expansions, or with `points` > 0 so many of them, near the ridge where both cost alike.
[[nodiscard]] std::vector<Point> grid(std::size_t points);

/// Of these with two lists or more, all that are at most `spread` places off the ridge.
[[nodiscard]] std::vector<Point> grid_near_ridge(std::size_t spread);

/// The grid with the tuned dials marked; those that are not in it come first.
[[nodiscard]] std::vector<Point> with_tuned(std::vector<Point> grid,
                                            const std::vector<OperatingPoint>& tuned);

}  // namespace keyseek::sweep
