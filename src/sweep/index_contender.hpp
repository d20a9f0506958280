/// keyseek's own indexes in a sweep.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "keyseek/index.hpp"
#include "sweep/contender.hpp"

namespace keyseek::sweep {

struct IndexParams {
  std::string kind = "flat";     ///< or "sketch", "projection"
  std::vector<Point> grid = {};  ///< of a projection index
  bool novel = true;             ///< whether rows tell tuned dials apart by `novel`, as of RowStyle
  ProjectionParams projection = {};
  Json build_params = {};       ///< field `build` of a projection index's rows
  std::size_t cold_steps = 64;  ///< steps that are evicted and timed for a cold row
  Progress between_steps = {};  ///< as of MeasureParams
  /// Called when an index that learns from queries is built.
  std::function<io::TrainingSet()> training = {};
};

/// Looks at `problem`, which has to live as long.
[[nodiscard]] Contender index_contender(const Problem& problem, IndexParams params);

}  // namespace keyseek::sweep
