#include "sketch/coordinates.hpp"

#include <Eigen/Dense>
#include <algorithm>
#include <cmath>

#include "base/even_rows.hpp"

namespace keyseek {
namespace {

using Dense = Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
using Eigensolver = Eigen::SelfAdjointEigenSolver<Dense>;

constexpr std::size_t kSample = 4096;  // rows that say enough about a covariance
constexpr Eigen::Index kStep = 16;     // a code row is filled up to so many bytes

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

/// Leading coordinates that leave no more than a share of `residual` of `power`, which falls.
Eigen::Index enough(const Eigen::VectorXd& power, double residual) {
  const double allowed = residual * power.sum();
  double left = power.sum();
  Eigen::Index count = 0;
  while (count < power.size() && left > allowed) left -= power[count++];
  return std::clamp((count + kStep - 1) / kStep * kStep, std::min(kStep, power.size()),
                    power.size());
}

/// Of coordinate j the keys have power key[j], the queries query[j].
Eigen::VectorXd balance(const Eigen::VectorXd& key, const Eigen::VectorXd& query) {
  return key.binaryExpr(query, [](double k, double q) {
    const double factor = std::pow(k / q, 0.25);
    return std::isnormal(factor) ? factor : 1.0;
  });
}

}  // namespace

SketchMaps sketch_maps(AnyMatrixView keys, MatrixView<float> queries, const SketchParams& params) {
  Dense rows = sample(keys);
  rows.rowwise() -= rows.colwise().mean().eval();
  const Dense seen = second_moment(sample(AnyMatrixView::of(queries)));
  const Eigensolver metric(with_ridge(seen, params.ridge));
  // A ridge of 0 may leave directions of no weight: kept, at next to none.
  const double least = metric.eigenvalues().maxCoeff() * 1e-9;
  const Eigen::VectorXd roots = metric.eigenvalues().cwiseMax(least).cwiseSqrt();
  const Dense& axes = metric.eigenvectors();
  const Dense root = axes * roots.asDiagonal() * axes.transpose();
  const Dense inverse = axes * roots.cwiseInverse().asDiagonal() * axes.transpose();

  const Eigensolver components(second_moment(rows * root));
  const Eigen::VectorXd power = components.eigenvalues().reverse().cwiseMax(0.0);
  const Eigen::Index r = params.dim > 0 ? static_cast<Eigen::Index>(std::min(params.dim, keys.cols))
                                        : enough(power, params.residual);
  const Dense leading = components.eigenvectors().rowwise().reverse().leftCols(r).transpose();
  Dense of_keys = leading * root, of_queries = leading * inverse;
  const Eigen::VectorXd factors =
      balance(power.head(r), (of_queries * seen * of_queries.transpose()).diagonal());
  of_keys = factors.cwiseInverse().asDiagonal() * of_keys;
  of_queries = factors.asDiagonal() * of_queries;
  // In units that fit 16 bits.
  const double largest = of_queries.cwiseAbs().maxCoeff();

  SketchMaps maps{Matrix<Half>(static_cast<std::size_t>(r), keys.cols), static_cast<float>(largest),
                  Matrix<float>(static_cast<std::size_t>(r), keys.cols)};
  std::transform(of_queries.data(), of_queries.data() + of_queries.size(), maps.queries.data(),
                 [&](double x) { return to_half(static_cast<float>(x / largest)); });
  std::transform(of_keys.data(), of_keys.data() + of_keys.size(), maps.keys.data(),
                 [](double x) { return static_cast<float>(x); });
  return maps;
}

}  // namespace keyseek
