/// Finds the coordinates in which queries see most of the keys.
#include "sketch/coordinates.hpp"

#include <Eigen/Dense>
#include <algorithm>
#include <cmath>

#include "base/leading.hpp"
#include "base/parallel.hpp"
#include "base/random.hpp"
#include "matrix/even_rows.hpp"
#include "sketch/maps.hpp"

namespace keyseek {
namespace {

using Dense = Coordinates;
using Eigensolver = Eigen::SelfAdjointEigenSolver<Dense>;

constexpr std::size_t kSample = 4096;  // rows that say enough about a covariance

Dense sample(AnyMatrixView m) {
  using Floats = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
  const Matrix<float> rows = even_rows(m, kSample);
  return Eigen::Map<const Floats>(rows.data(), static_cast<Eigen::Index>(rows.rows()),
                                  static_cast<Eigen::Index>(rows.cols()))
      .cast<double>();
}

Dense second_moment(const Dense& rows) {
  return rows.transpose() * rows / static_cast<double>(rows.rows());
}

/// Queries' second moment with the ridge; the identity when all queries are zero.
Dense with_ridge(Dense moment, double ridge) {
  const double mean = moment.trace() / static_cast<double>(moment.rows());
  if (!(mean > 0)) return Dense::Identity(moment.rows(), moment.cols());
  moment.diagonal().array() += ridge * mean;
  return moment;
}

/// Factors of the queries' coordinates, and divisors of the keys'.
Eigen::VectorXd balance(const Eigen::VectorXd& key, const Eigen::VectorXd& query) {
  return key.binaryExpr(query, [](double k, double q) {
    const double factor = std::pow(k / q, 0.25);
    return std::isnormal(factor) ? factor : 1.0;
  });
}

/// A random orthogonal matrix, always the same.
Dense random_rotation(Eigen::Index n) {
  Random random(1);
  Dense m(n, n);
  // Sums of a few uniform numbers are close enough to normal ones.
  for (double& x : m.reshaped()) x = random.uniform() + random.uniform() + random.uniform() - 1.5;
  return Eigen::HouseholderQR<Dense>(m).householderQ();
}

/// Replaces the rows, of falling power, by orthogonal combinations of about equal power: a Hadamard
/// transform over rows that stand far apart, then a random rotation of those, at most 16, that it
/// leaves together. A few rows at the end, those of least power, stay.
void rotate(Dense& rows) {
  constexpr Eigen::Index kMostTogether = 16;
  Eigen::Index apart = 16;
  while (rows.rows() / apart > kMostTogether) apart *= 2;
  const Eigen::Index together = rows.rows() / apart;
  if (together == 0) return;
  for (Eigen::Index half = 1; half < apart; half *= 2) {
    for (Eigen::Index a = 0; a < apart; ++a) {
      if ((a & half) != 0) continue;
      auto first = rows.middleRows(a * together, together);
      auto second = rows.middleRows((a + half) * together, together);
      const Dense sum = (first + second) / std::sqrt(2.0);
      second = ((first - second) / std::sqrt(2.0)).eval();
      first = sum;
    }
  }
  const Dense rotation = random_rotation(together);
  for (Eigen::Index a = 0; a < apart; ++a) {
    auto some = rows.middleRows(a * together, together);
    some = (rotation * some).eval();
  }
}

}  // namespace

SketchMaps rotated(Coordinates of_keys, Coordinates of_queries, const Eigen::VectorXd& key,
                   const Eigen::VectorXd& query) {
  const Eigen::VectorXd factors = balance(key, query);
  of_keys = factors.cwiseInverse().asDiagonal() * of_keys;
  of_queries = factors.asDiagonal() * of_queries;
  rotate(of_keys);
  rotate(of_queries);
  // In units that fit 16 bits, and a factor that fits f32.
  double largest = of_queries.cwiseAbs().maxCoeff();
  constexpr double kLargestFactor = 0x1p120;
  const double moved = largest > kLargestFactor ? std::exp2(std::ilogb(largest) - 120) : 1.0;
  const auto r = static_cast<std::size_t>(of_keys.rows()),
             d = static_cast<std::size_t>(of_keys.cols());
  SketchMaps maps{Matrix<Half>(r, d), static_cast<float>(largest / moved), Matrix<float>(r, d)};
  std::transform(of_queries.data(), of_queries.data() + of_queries.size(), maps.queries.data(),
                 [&](double x) { return to_half(static_cast<float>(x / largest)); });
  std::transform(of_keys.data(), of_keys.data() + of_keys.size(), maps.keys.data(),
                 [&](double x) { return static_cast<float>(x * moved); });
  return maps;
}

SketchAxes exact_axes(AnyMatrixView keys, MatrixView<float> queries, const SketchParams& params,
                      const Execution& run) {
  Dense rows = sample(keys);
  rows.rowwise() -= rows.colwise().mean().eval();
  const Dense seen = second_moment(sample(AnyMatrixView::of(queries)));
  const Eigensolver metric(with_ridge(seen, params.ridge));
  report_progress(run, "finding coordinates", 1, 2);
  // A ridge of 0 may leave directions of no weight: kept, at next to none.
  const double least = metric.eigenvalues().maxCoeff() * 1e-9;
  const Eigen::VectorXd roots = metric.eigenvalues().cwiseMax(least).cwiseSqrt();
  const Dense& axes = metric.eigenvectors();
  const Dense root = axes * roots.asDiagonal() * axes.transpose();
  const Dense inverse = axes * roots.cwiseInverse().asDiagonal() * axes.transpose();

  const Eigensolver components(second_moment(rows * root));
  const Eigen::VectorXd power = components.eigenvalues().reverse().cwiseMax(0.0);
  const Dense all = components.eigenvectors().rowwise().reverse().transpose();
  const Dense of_keys = all * root, of_queries = all * inverse;
  const Eigen::VectorXd asked = (of_queries * seen * of_queries.transpose()).diagonal();
  SketchAxes found;
  found.most = keys.cols;
  if (params.dim > 0) {
    found.wanted = std::min(params.dim, keys.cols);
  } else if (params.residual > 0) {
    found.wanted = static_cast<std::size_t>(enough(power, power.sum(), params.residual));
  }
  found.leading = [=](std::size_t count) {
    const auto r = static_cast<Eigen::Index>(count);
    return rotated(of_keys.topRows(r), of_queries.topRows(r), power.head(r), asked.head(r));
  };
  return found;
}

SketchAxes sketch_axes(AnyMatrixView keys, MatrixView<float> queries, const SketchParams& params,
                       const Execution& run) {
  return static_cast<Eigen::Index>(keys.cols) <= kExactDimension
             ? exact_axes(keys, queries, params, run)
             : wide_axes(keys, queries, params, run);
}

}  // namespace keyseek
