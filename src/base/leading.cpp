/// Finds leading eigenvectors by a full decomposition or by subspace iteration.
#include "base/leading.hpp"

#include <Eigen/Dense>
#include <algorithm>
#include <cmath>

#include "base/parallel.hpp"
#include "base/random.hpp"

namespace keyseek {
namespace {

// Columns beyond those wanted, and multiplications: enough where eigenvalues fall, and where they
// do not, one direction is as good as the next.
constexpr Eigen::Index kSpare = 32;
constexpr std::size_t kRounds = 2;

Leading all_of(const Eigen::MatrixXd& m, Eigen::Index count) {
  const Eigen::SelfAdjointEigenSolver<Eigen::MatrixXd> eigen(m);
  return {eigen.eigenvalues().reverse().head(count),
          eigen.eigenvectors().rowwise().reverse().leftCols(count)};
}

Eigen::MatrixXd orthonormal(const Eigen::MatrixXd& columns) {
  const Eigen::HouseholderQR<Eigen::MatrixXd> qr(columns);
  return qr.householderQ() * Eigen::MatrixXd::Identity(columns.rows(), columns.cols());
}

Eigen::MatrixXd random_columns(Eigen::Index rows, Eigen::Index cols) {
  Random random(1);
  Eigen::MatrixXd out(rows, cols);
  for (double& x : out.reshaped()) x = random.uniform() - 0.5;
  return out;
}

}  // namespace

Leading leading_eigenvectors(const Eigen::MatrixXd& m, Eigen::Index count, const Execution& run,
                             std::string_view stage) {
  const Eigen::Index n = m.rows();
  count = std::min(count, n);
  if (n <= kExactDimension) return all_of(m, count);
  const Eigen::Index width = std::min(n, count + kSpare);
  Eigen::MatrixXd basis = random_columns(n, width);
  for (std::size_t round = 0; round < kRounds; ++round) {
    report_progress(run, stage, round, kRounds);
    basis = orthonormal(m * basis);
  }
  const Leading inside = all_of(basis.transpose() * (m * basis), count);
  return {inside.values, basis * inside.vectors};
}

}  // namespace keyseek
