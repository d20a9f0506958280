/// Leading eigenvectors, where all of them would take too long.
///
/// A full decomposition is cubic in the dimension and cannot be stopped. Beyond kExactDimension
/// what is wanted is found by subspace iteration (Halko, Martinsson, Tropp, arXiv 0909.4061).
#pragma once

#include <Eigen/Core>
#include <string_view>

#include "keyseek/execution.hpp"

namespace keyseek {

/// Vectors of up to so many dimensions are decomposed fully: a fraction of a second.
inline constexpr Eigen::Index kExactDimension = 640;

struct Leading {
  Eigen::VectorXd values;   ///< falling
  Eigen::MatrixXd vectors;  ///< in columns
};

/// The `count` largest eigenvalues of the symmetric `m`, none of which is negative beyond rounding,
/// and their vectors. Throws Error(cancelled).
[[nodiscard]] Leading leading_eigenvectors(const Eigen::MatrixXd& m, Eigen::Index count,
                                           const Execution& run, std::string_view stage);

}  // namespace keyseek
