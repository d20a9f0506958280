/// Choosing the dials of a projection index on held-out queries.
#pragma once

#include <vector>

#include "keyseek/index.hpp"
#include "search/projection_search.hpp"

namespace keyseek {

/// For each target recall the cheapest dials that reach it on `training.tuning`, or the
/// best ones where none does. Empty without held-out queries.
[[nodiscard]] std::vector<OperatingPoint> tune(const SearchSpace& space,
                                               const TrainingQueries& training,
                                               const ProjectionParams& params,
                                               const Execution& run);

/// The dials for a search of k keys with a wanted recall; defaults without points.
[[nodiscard]] Dials choose_dials(const std::vector<OperatingPoint>& points, std::size_t tuning_k,
                                 std::size_t k, double target_recall);

}  // namespace keyseek
