/// The coordinates of a sketch. See sketch.hpp for the reasoning.
#pragma once

#include <cstddef>
#include <functional>

#include "keyseek/execution.hpp"
#include "keyseek/matrix.hpp"
#include "keyseek/sketch.hpp"

namespace keyseek {

/// Maps [dim, d] of queries and of centred keys into the same coordinates, where a rounding error
/// of any weighs the same.
struct SketchMaps {
  Matrix<Half> queries;  ///< over `factor`
  float factor = 1;
  Matrix<float> keys;
};

/// Coordinates that were found, those that leave least out first.
struct SketchAxes {
  std::size_t most = 0;                            ///< coordinates there are
  std::size_t wanted = 0;                          ///< of them, by the params; 0: any number
  std::function<SketchMaps(std::size_t)> leading;  ///< the maps of the first so many
};

[[nodiscard]] SketchAxes sketch_axes(AnyMatrixView keys, MatrixView<float> queries,
                                     const SketchParams& params, const Execution& run);

}  // namespace keyseek
