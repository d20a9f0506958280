/// The coordinates in which queries that see the keys alike are near.
#pragma once

#include "keyseek/execution.hpp"
#include "keyseek/matrix.hpp"

namespace keyseek {

/// [dim, d], or fewer rows where keys are fewer: row r . q is coordinate r, up to a factor. See
/// router.hpp for the reasoning. `keys` are the keys the queries want; both are sampled, evenly,
/// down to what a covariance needs.
[[nodiscard]] Matrix<Half> query_map_of(AnyMatrixView keys, MatrixView<float> queries,
                                        std::size_t dim, const Execution& run);

}  // namespace keyseek
