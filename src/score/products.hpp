/// Inner products of two sets of vectors: the dense algebra of many dimensions.
#pragma once

#include <string_view>

#include "keyseek/execution.hpp"
#include "keyseek/matrix.hpp"

namespace keyseek {

/// [a.rows, b.rows]: <row i of a, row j of b>, the same at any number of threads.
[[nodiscard]] Matrix<float> products(MatrixView<float> a, MatrixView<float> b, const Execution& run,
                                     std::string_view stage);
/// The matrix with rows and columns exchanged, [cols, rows].
[[nodiscard]] Matrix<float> transposed(MatrixView<float> m);

}  // namespace keyseek
