#include "router/projection.hpp"

#include <Eigen/Dense>
#include <algorithm>
#include <cmath>

#include "base/even_rows.hpp"

namespace keyseek {
namespace {

using Dense = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

constexpr std::size_t kSample = 4096;  // rows that say enough about a covariance

Dense sample(AnyMatrixView m) {
  const Matrix<float> rows = even_rows(m, kSample);
  return Eigen::Map<const Dense>(rows.data(), static_cast<Eigen::Index>(rows.rows()),
                                 static_cast<Eigen::Index>(rows.cols()));
}

/// Square root of the keys' covariance.
Dense covariance_root(AnyMatrixView keys) {
  Dense rows = sample(keys);
  rows.rowwise() -= rows.colwise().mean().eval();
  const Dense covariance = rows.transpose() * rows / static_cast<float>(rows.rows());
  const Eigen::SelfAdjointEigenSolver<Dense> eigen(covariance);
  const Eigen::VectorXf roots = eigen.eigenvalues().cwiseMax(0.0F).cwiseSqrt();
  return eigen.eigenvectors() * roots.asDiagonal() * eigen.eigenvectors().transpose();
}

}  // namespace

Matrix<Half> query_projection(AnyMatrixView keys, MatrixView<float> queries, std::size_t dim) {
  const Dense root = covariance_root(keys);
  Dense seen = sample(AnyMatrixView::of(queries)) * root;
  seen.rowwise().normalize();
  const Dense moment = seen.transpose() * seen;
  const Eigen::SelfAdjointEigenSolver<Dense> eigen(moment);
  const auto d = static_cast<Eigen::Index>(keys.cols);
  const auto r = static_cast<Eigen::Index>(std::min(dim, keys.cols));
  // Eigenvalues ascend: the last columns are the directions in which queries vary most.
  const Dense rows = eigen.eigenvectors().rightCols(r).transpose() * root;
  // Coordinates are scaled to unit length later, so any factor will do: one that fits 16 bits.
  const float largest = rows.cwiseAbs().maxCoeff();
  const float factor = largest > 0.0F ? 1.0F / largest : 1.0F;
  Matrix<Half> projection(static_cast<std::size_t>(r), keys.cols);
  std::transform(rows.data(), rows.data() + r * d, projection.data(),
                 [factor](float x) { return to_half(x * factor); });
  return projection;
}

}  // namespace keyseek
