/// What exact and wide coordinates share.
#pragma once

#include <Eigen/Core>
#include <algorithm>

#include "sketch/coordinates.hpp"

namespace keyseek {

using Coordinates = Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

inline constexpr Eigen::Index kStep = 16;  // a code row is filled up to so many bytes

/// Leading coordinates that leave no more than a share of `residual` of `total`; `power` falls.
[[nodiscard]] inline Eigen::Index enough(const Eigen::VectorXd& power, double total,
                                         double residual) {
  const double allowed = residual * total;
  double left = total;
  Eigen::Index count = 0;
  while (count < power.size() && left > allowed) left -= power[count++];
  return std::clamp((count + kStep - 1) / kStep * kStep, std::min(kStep, power.size()),
                    power.size());
}

/// The maps, where of coordinate j the keys have power key[j], the queries query[j]: they are
/// brought to units in which a rounding error of either side weighs the same, then rotated, so that
/// all have about the same power and codes of few bits serve them alike.
[[nodiscard]] SketchMaps rotated(Coordinates of_keys, Coordinates of_queries,
                                 const Eigen::VectorXd& key, const Eigen::VectorXd& query);

/// `sketch_axes` of few and of many dimensions.
[[nodiscard]] SketchAxes exact_axes(AnyMatrixView keys, MatrixView<float> queries,
                                    const SketchParams& params, const Execution& run);
[[nodiscard]] SketchAxes wide_axes(AnyMatrixView keys, MatrixView<float> queries,
                                   const SketchParams& params, const Execution& run);

}  // namespace keyseek
