/// How deep a sketch has the best keys in its order.
#pragma once

#include "keyseek/execution.hpp"
#include "keyseek/matrix.hpp"
#include "keyseek/sketch.hpp"

namespace keyseek {

/// Of a sketch of n keys, measured on an even sample of `queries`: of the sketch of all `keys`, or
/// of an even sample of them.
[[nodiscard]] Sketch::Depth measure_depth(const Sketch& sketch, AnyMatrixView keys, std::size_t n,
                                          MatrixView<float> queries, const Execution& run);

}  // namespace keyseek
