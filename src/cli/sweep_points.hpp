/// The dials that a sweep tries.
#pragma once

#include <cstddef>
#include <optional>
#include <vector>

#include "keyseek/index.hpp"

namespace keyseek::cli {

struct SweepPoint {
  std::optional<Dials> dials;     ///< none: an index without dials
  std::vector<double> tuned_for;  ///< target recalls that tuning chose these dials for
};

/// Dials from a few scanned keys to nearly all, by rising effort: every combination of lists
/// and expansions, or with `points` > 0 so many of them, near the ridge where both cost alike.
[[nodiscard]] std::vector<SweepPoint> grid(std::size_t points);

/// The grid with the tuned dials marked; those that are not in it come first.
[[nodiscard]] std::vector<SweepPoint> with_tuned(std::vector<SweepPoint> grid,
                                                 const std::vector<OperatingPoint>& tuned);

}  // namespace keyseek::cli
