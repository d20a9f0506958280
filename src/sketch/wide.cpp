// The coordinates of a sketch of many dimensions, from few vectors and without a decomposition of
// matrices [d, d].
//
// With X the sampled keys less their mean [s, d] and W the queries' second moment with the ridge,
// the components wanted are of W^(1/2) X'X W^(1/2). The matrix X W X' [s, s] has the same powers,
// and an eigenvector v of it gives both maps: b = X'v is the queries' row, W b the keys', in units
// in which <b, W b> is 1.
#include <Eigen/Dense>
#include <algorithm>
#include <cmath>
#include <optional>
#include <utility>

#include "base/leading.hpp"
#include "matrix/even_rows.hpp"
#include "score/products.hpp"
#include "sketch/maps.hpp"

namespace keyseek {
namespace {

using Floats = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

constexpr std::size_t kSample = 768;   // rows that say enough about leading directions
constexpr std::size_t kHeldOut = 256;  // keys that say how much the others' directions leave out
// Of a sample, more coordinates than this share would be directions of the sample alone.
constexpr double kMostOfSample = 0.375;
// A map of more channels would take too much memory.
constexpr std::size_t kMostChannels = 4096;
// Powers below this share of the largest are rounding errors of f32.
constexpr double kLeastPower = 1e-7;
// Where none is asked for.
constexpr double kUsualResidual = 0.07;
constexpr const char* kStage = "finding coordinates";

Eigen::Map<const Floats> dense(const Matrix<float>& m) {
  return {m.data(), static_cast<Eigen::Index>(m.rows()), static_cast<Eigen::Index>(m.cols())};
}
Matrix<float> matrix(const Floats& m) {
  Matrix<float> out(static_cast<std::size_t>(m.rows()), static_cast<std::size_t>(m.cols()));
  std::copy_n(m.data(), m.size(), out.data());
  return out;
}

/// Rows times 2^-exponent, the largest element of which is then in [1, 2).
struct Sample {
  Matrix<float> rows;
  int exponent = 0;
};

Sample in_unit(Matrix<float> rows) {
  const float largest = largest_magnitude(AnyMatrixView::of(rows.view()));
  const int exponent = largest > 0.0F ? std::ilogb(largest) : 0;
  float* elements = rows.data();
  for (std::size_t i = 0; i < rows.rows() * rows.cols(); ++i)
    elements[i] = std::ldexp(elements[i], -exponent);
  return {std::move(rows), exponent};
}

class WideMaps {
 public:
  WideMaps(AnyMatrixView keys, MatrixView<float> queries, const SketchParams& params,
           const Execution& run)
      : params_(params),
        residual_(params.residual > 0 ? params.residual : kUsualResidual),
        run_(run),
        all_keys_(keys),
        keys_(in_unit(even_rows(keys, kSample))),
        queries_(in_unit(even_rows(AnyMatrixView::of(queries), kSample))) {
    Eigen::Map<Floats> rows(keys_.rows.data(), dense(keys_.rows).rows(), dense(keys_.rows).cols());
    mean_ = rows.colwise().mean();
    rows.rowwise() -= mean_;
    const double power = dense(queries_.rows).cast<double>().squaredNorm();
    // In units of the sum over the queries, not of their mean: a factor that cancels out.
    if (power > 0) ridge_ = params.ridge * power / static_cast<double>(queries.cols);
  }

  SketchMaps run() {
    decompose();
    const auto r = wanted();
    return r ? leading_maps(*r) : channel_maps();
  }

 private:
  /// Powers and directions of the sampled keys as queries see them.
  void decompose() {
    const Matrix<float> seen = products(keys_.rows, queries_.rows, run_, kStage);
    const Matrix<float> weighed = products(seen, seen, run_, kStage);
    const Matrix<float> plain = products(keys_.rows, keys_.rows, run_, kStage);
    const Eigen::MatrixXd all =
        dense(weighed).cast<double>() + ridge_ * dense(plain).cast<double>();
    total_ = all.trace();
    const Leading leading = leading_eigenvectors(all, most(), run_, kStage);
    const Eigen::VectorXd& power = leading.values;
    Eigen::Index rank = 0;
    while (rank < power.size() && power[rank] > kLeastPower * power[0]) ++rank;
    power_ = power.head(rank);
    const Floats turned = leading.vectors.leftCols(rank).transpose().cast<float>();
    of_queries_ = products(matrix(turned), transposed(keys_.rows), run_, kStage);
    of_keys_ = weigh(of_queries_);
    for (std::size_t j = 0; j < of_keys_.rows(); ++j)
      normalize(of_queries_.row(j), of_keys_.row(j));
  }

  /// Coordinates to look for: few keys have few directions, and all of them are found.
  [[nodiscard]] Eigen::Index most() const {
    const auto s = static_cast<Eigen::Index>(keys_.rows.rows());
    if (params_.dim > 0) return static_cast<Eigen::Index>(params_.dim);
    return s <= kExactDimension ? s : static_cast<Eigen::Index>(kMostOfSample * double(s));
  }

  /// W times each row.
  [[nodiscard]] Matrix<float> weigh(const Matrix<float>& rows) const {
    const Matrix<float> seen = products(rows, queries_.rows, run_, kStage);
    const Matrix<float> weighed = products(seen, transposed(queries_.rows), run_, kStage);
    return matrix(dense(weighed) + static_cast<float>(ridge_) * dense(rows));
  }

  void normalize(float* query, float* key) const {
    const std::size_t d = of_keys_.cols();
    double product = 0;
    for (std::size_t j = 0; j < d; ++j) product += double{query[j]} * double{key[j]};
    const double scale = product > 0 ? 1.0 / std::sqrt(product) : 0.0;
    for (float* row : {query, key})
      for (std::size_t j = 0; j < d; ++j) row[j] = static_cast<float>(row[j] * scale);
  }

  /// How many coordinates; nothing where those found leave too much out, or there is nothing to
  /// tell keys apart by.
  [[nodiscard]] std::optional<Eigen::Index> wanted() const {
    if (power_.size() == 0) return std::nullopt;
    if (params_.dim > 0) return power_.size();
    Eigen::VectorXd power = power_;
    double total = total_;
    if (all_keys_.rows >= 2 * kSample) total = held_out(power);
    const bool found = total - power.sum() <= residual_ * total;
    if (!found && !complete() && all_keys_.cols <= kMostChannels) return std::nullopt;
    return enough(power, total, residual_);
  }

  /// All keys, and all of their directions.
  [[nodiscard]] bool complete() const {
    return all_keys_.rows <= static_cast<std::size_t>(kExactDimension);
  }

  /// Power of each coordinate, and the total, over keys that are not in the sample.
  double held_out(Eigen::VectorXd& power) const {
    Matrix<float> rows(kHeldOut, all_keys_.cols);
    const std::size_t n = all_keys_.rows;
    for (std::size_t i = 0; i < kHeldOut; ++i) {
      // Half way between two keys of the sample.
      all_keys_.copy_row(i * n / kHeldOut + n / (2 * kSample), rows.row(i));
      for (std::size_t j = 0; j < rows.cols(); ++j)
        rows.row(i)[j] =
            std::ldexp(rows.row(i)[j], -keys_.exponent) - mean_[static_cast<Eigen::Index>(j)];
    }
    const Matrix<float> seen = products(rows, queries_.rows, run_, kStage);
    const Matrix<float> found = products(of_keys_, rows, run_, kStage);
    power = dense(found).cast<double>().rowwise().squaredNorm();
    return dense(seen).cast<double>().squaredNorm() +
           ridge_ * dense(rows).cast<double>().squaredNorm();
  }

  [[nodiscard]] SketchMaps leading_maps(Eigen::Index r) const {
    const Coordinates keys = dense(of_keys_).topRows(r).cast<double>();
    const Coordinates queries = dense(of_queries_).topRows(r).cast<double>();
    const Matrix<float> asked = products(of_queries_, queries_.rows, run_, kStage);
    const Eigen::VectorXd power = dense(asked).topRows(r).cast<double>().rowwise().squaredNorm();
    return rotated(keys, queries, in_key_units(power_.head(r)), in_query_units(power));
  }

  /// Where queries see along too many directions for a sketch of few: every channel is a
  /// coordinate, and nothing is left out. Of keys that are all the same, the first few are enough.
  [[nodiscard]] SketchMaps channel_maps() const {
    const auto d = static_cast<Eigen::Index>(all_keys_.cols);
    const Eigen::Index r = power_.size() == 0 ? kStep : d;
    const auto power = [&](const Matrix<float>& rows) -> Eigen::VectorXd {
      return dense(rows).cast<double>().colwise().squaredNorm().head(r);
    };
    const Coordinates channels = Coordinates::Identity(r, d);
    return rotated(channels, channels, in_key_units(power(keys_.rows)),
                   in_query_units(power(queries_.rows)));
  }

  /// Means of squares in the units of the vectors as they were given.
  [[nodiscard]] Eigen::VectorXd in_key_units(const Eigen::VectorXd& power) const {
    return power * std::exp2(2 * keys_.exponent) / static_cast<double>(keys_.rows.rows());
  }
  [[nodiscard]] Eigen::VectorXd in_query_units(const Eigen::VectorXd& power) const {
    return power * std::exp2(2 * queries_.exponent) / static_cast<double>(queries_.rows.rows());
  }

  const SketchParams& params_;
  double residual_;
  const Execution& run_;
  AnyMatrixView all_keys_;
  Sample keys_, queries_;
  Eigen::RowVectorXf mean_;             ///< of the sampled keys, in their units
  double ridge_ = 1.0;                  ///< weight of the identity in W
  double total_ = 0;                    ///< power of the sampled keys
  Eigen::VectorXd power_;               ///< of each coordinate, falling
  Matrix<float> of_keys_, of_queries_;  ///< [coordinates, d]
};

}  // namespace

SketchAxes wide_axes(AnyMatrixView keys, MatrixView<float> queries, const SketchParams& params,
                     const Execution& run) {
  SketchMaps maps = WideMaps(keys, queries, params, run).run();
  const std::size_t r = maps.queries.rows();
  return {
      .most = r, .wanted = r, .leading = [maps = std::move(maps)](std::size_t) { return maps; }};
}

}  // namespace keyseek
