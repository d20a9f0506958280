/// The coordinates of a sketch. See sketch.hpp for the reasoning.
#pragma once

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

[[nodiscard]] SketchMaps sketch_maps(AnyMatrixView keys, MatrixView<float> queries,
                                     const SketchParams& params, const Execution& run);

}  // namespace keyseek
