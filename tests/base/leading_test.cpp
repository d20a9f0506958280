#include "base/leading.hpp"

#include <gtest/gtest.h>

#include <Eigen/Dense>

#include "file/temporary_directory.hpp"
#include "support/random_data.hpp"

namespace keyseek {
namespace {

/// Symmetric, with eigenvalues that fall like 1 / (1 + i).
Eigen::MatrixXd falling(Eigen::Index n) {
  const auto size = static_cast<std::size_t>(n);
  const Matrix<float> random = test::normal_matrix(size, size, 1);
  const Eigen::Map<const Eigen::MatrixXf> m(random.data(), n, n);
  const Eigen::HouseholderQR<Eigen::MatrixXd> qr(m.cast<double>());
  const Eigen::MatrixXd q = qr.householderQ();
  const Eigen::VectorXd values = 1.0 / (1.0 + Eigen::ArrayXd::LinSpaced(n, 0, double(n - 1)));
  return q * values.asDiagonal() * q.transpose();
}

TEST(LeadingEigenvectors, AreThoseOfAFullDecomposition) {
  for (const Eigen::Index n : {Eigen::Index{5}, kExactDimension, kExactDimension + 60}) {
    const Leading found = leading_eigenvectors(falling(n), 5, {}, "");
    ASSERT_EQ(found.vectors.cols(), 5);
    for (Eigen::Index i = 0; i < 5; ++i)
      EXPECT_NEAR(found.values[i], 1.0 / (1.0 + double(i)), 1e-3) << n << " " << i;
    const Eigen::MatrixXd gram = found.vectors.transpose() * found.vectors;
    EXPECT_LT((gram - Eigen::MatrixXd::Identity(5, 5)).cwiseAbs().maxCoeff(), 1e-10);
  }
}

TEST(LeadingEigenvectors, OfAZeroMatrixAreZero) {
  const Eigen::Index n = kExactDimension + 1;
  const Leading found = leading_eigenvectors(Eigen::MatrixXd::Zero(n, n), 3, {}, "");
  EXPECT_EQ(found.values.cwiseAbs().maxCoeff(), 0);
  EXPECT_TRUE(found.vectors.allFinite());
}

TEST(LeadingEigenvectors, CanBeCancelled) {
  Execution run;
  run.progress = [](std::string_view, std::size_t, std::size_t) { return false; };
  const Eigen::MatrixXd m = falling(kExactDimension + 1);
  test::expect_error(ErrorCode::cancelled, {"some stage"},
                     [&] { (void)leading_eigenvectors(m, 3, run, "some stage"); });
}

}  // namespace
}  // namespace keyseek
