/// How deep a sketch has the best keys in its order.
#pragma once

#include "keyseek/execution.hpp"
#include "keyseek/matrix.hpp"
#include "keyseek/sketch.hpp"

namespace keyseek {

/// Of a sketch of `keys`, measured on an even sample of `queries`.
[[nodiscard]] Sketch::Depth measure_depth(const Sketch& sketch, AnyMatrixView keys,
                                          MatrixView<float> queries, const Execution& run);

}  // namespace keyseek
