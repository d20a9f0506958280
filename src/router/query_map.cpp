/// Finds the coordinates in which queries that see the keys alike are near.
#include "router/query_map.hpp"

#include <Eigen/Dense>
#include <algorithm>
#include <cmath>

#include "base/leading.hpp"
#include "base/parallel.hpp"
#include "matrix/even_rows.hpp"
#include "score/products.hpp"

namespace keyseek {
namespace {

using Dense = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

constexpr std::size_t kSample = 4096;      // rows that say enough about a covariance
constexpr std::size_t kWideSample = 1024;  // rows that say enough about its leading directions
constexpr const char* kStage = "projecting queries";

Eigen::Map<const Dense> dense(const Matrix<float>& m) {
  return {m.data(), static_cast<Eigen::Index>(m.rows()), static_cast<Eigen::Index>(m.cols())};
}

/// Times the power of two that brings the largest of them to [1, 2): squares then fit f32, and all
/// that follows is the same but for that power.
void bring_in_range(float* elements, std::size_t count) {
  const float largest = largest_magnitude({elements, Dtype::f32, 1, count, count});
  if (largest == 0.0F) return;
  const int exponent = -std::ilogb(largest);
  for (std::size_t i = 0; i < count; ++i) elements[i] = std::ldexp(elements[i], exponent);
}

Matrix<float> sampled_keys(AnyMatrixView keys, std::size_t most) {
  Matrix<float> rows = even_rows(keys, most);
  bring_in_range(rows.data(), rows.rows() * rows.cols());
  return rows;
}

/// Each in a range of its own, since their lengths will not matter.
Matrix<float> sampled_queries(MatrixView<float> queries, std::size_t most) {
  Matrix<float> rows = even_rows(AnyMatrixView::of(queries), most);
  for (std::size_t i = 0; i < rows.rows(); ++i) bring_in_range(rows.row(i), rows.cols());
  return rows;
}

/// Rows of unit length; those that see all keys alike stay zero.
void normalize_rows(Dense& rows) {
  Eigen::VectorXf norms = rows.rowwise().norm();
  norms = (norms.array() > 0.0F).select(norms, 1.0F);
  rows.array().colwise() /= norms.array();
}

/// Square root of the keys' covariance.
Dense covariance_root(AnyMatrixView keys) {
  const Matrix<float> sampled = sampled_keys(keys, kSample);
  Dense rows = dense(sampled);
  rows.rowwise() -= rows.colwise().mean().eval();
  const Dense covariance = rows.transpose() * rows / static_cast<float>(rows.rows());
  const Eigen::SelfAdjointEigenSolver<Dense> eigen(covariance);
  const Eigen::VectorXf roots = eigen.eigenvalues().cwiseMax(0.0F).cwiseSqrt();
  return eigen.eigenvectors() * roots.asDiagonal() * eigen.eigenvectors().transpose();
}

Dense exact_rows(AnyMatrixView keys, MatrixView<float> queries, Eigen::Index r,
                 const Execution& run) {
  const Dense root = covariance_root(keys);
  report_progress(run, kStage, 1, 2);
  Dense seen = dense(sampled_queries(queries, kSample)) * root;
  normalize_rows(seen);
  const Dense moment = seen.transpose() * seen;
  const Eigen::SelfAdjointEigenSolver<Dense> eigen(moment);
  // Eigenvalues ascend: the last columns are the directions in which queries vary most.
  return eigen.eigenvectors().rightCols(r).transpose() * root;
}

/// The same, up to a rotation, of many dimensions. With X the centred keys, X'X is their covariance
/// but for a factor, so a query q is as well compared by Xq as by the root times q: its scores of
/// the sampled keys. Few keys have few such scores, whatever their dimension.
Dense wide_rows(AnyMatrixView keys, MatrixView<float> queries, Eigen::Index r,
                const Execution& run) {
  Matrix<float> sampled = sampled_keys(keys, kWideSample);
  Eigen::Map<Dense> rows(sampled.data(), static_cast<Eigen::Index>(sampled.rows()),
                         static_cast<Eigen::Index>(sampled.cols()));
  rows.rowwise() -= rows.colwise().mean().eval();
  Matrix<float> scores = products(sampled_queries(queries, kWideSample), sampled, run, kStage);
  for (std::size_t i = 0; i < scores.rows(); ++i) {
    Eigen::Map<Eigen::VectorXf> of_query(scores.row(i), rows.rows());
    const float norm = of_query.norm();
    if (norm > 0.0F) of_query /= norm;
  }
  const Matrix<float> seen = transposed(scores);
  const Eigen::MatrixXd moment = dense(products(seen, seen, run, kStage)).cast<double>();
  const Leading leading = leading_eigenvectors(moment, r, run, kStage);
  return leading.vectors.transpose().cast<float>() * rows;
}

}  // namespace

Matrix<Half> query_map_of(AnyMatrixView keys, MatrixView<float> queries, std::size_t dim,
                          const Execution& run) {
  const auto d = static_cast<Eigen::Index>(keys.cols);
  const auto r = static_cast<Eigen::Index>(std::min(dim, keys.cols));
  const Dense rows =
      d <= kExactDimension ? exact_rows(keys, queries, r, run) : wide_rows(keys, queries, r, run);
  // Coordinates are scaled to unit length later, so any factor will do: one that fits 16 bits.
  const float largest = rows.cwiseAbs().maxCoeff();
  const float factor = largest > 0.0F ? 1.0F / largest : 1.0F;
  Matrix<Half> map(static_cast<std::size_t>(rows.rows()), keys.cols);
  std::transform(rows.data(), rows.data() + rows.size(), map.data(),
                 [factor](float x) { return to_half(x * factor); });
  return map;
}

}  // namespace keyseek
