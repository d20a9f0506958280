/// keyseek's own indexes in a sweep.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "keyseek/index.hpp"
#include "sweep/contender.hpp"

namespace keyseek::sweep {

struct IndexContenderParams {
  IndexKind kind = IndexKind::flat;
  std::vector<Point> grid = {};  ///< of a projection index
  bool novel = true;             ///< whether rows tell tuned dials apart by `novel`, as of RowStyle
  ProjectionParams projection = {};
  Json build_params = {};       ///< field `build` of a projection index's rows
  std::size_t cold_steps = 64;  ///< steps that are evicted and timed for a cold row
  Progress between_steps = {};  ///< as of MeasureParams
  /// Called when an index that learns from queries is built.
  std::function<TrainingQueries()> training = {};
};

/// Looks at `problem`, which has to live as long.
[[nodiscard]] Contender index_contender(const Problem& problem, IndexContenderParams params);

}  // namespace keyseek::sweep
