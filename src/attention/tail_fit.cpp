/// The fit of a tail, step by step: clusters of keys, then their biases, values and mass.
#include <Eigen/Dense>
#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "attention/key_clusters.hpp"
#include "attention/leftover.hpp"
#include "attention/observed.hpp"
#include "attention/tail_mass.hpp"
#include "base/fail.hpp"
#include "keyseek/tail.hpp"

namespace keyseek {
namespace {

using Dense = Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

// A limit of the logarithm of a mass that is none: far above any, but not infinite.
constexpr float kUnlimited = 1e30F;
Eigen::Index index(std::size_t i) { return static_cast<Eigen::Index>(i); }

/// The numbers in f16, or in f32 where f16 would lose them.
AnyMatrix in_16_bits(const Dense& m) {
  constexpr double kLargest = 65504, kLeast = 0x1p-14;  // the least normal number
  const auto rows = static_cast<std::size_t>(m.rows()), cols = static_cast<std::size_t>(m.cols());
  const double largest = m.cwiseAbs().maxCoeff();
  if (largest > kLargest || (largest > 0 && largest < kLeast)) {
    Matrix<float> out(rows, cols);
    std::transform(m.data(), m.data() + m.size(), out.data(),
                   [](double x) { return static_cast<float>(x); });
    return AnyMatrix::copy_of(AnyMatrixView::of(out.view()));
  }
  Matrix<Half> out(rows, cols);
  std::transform(m.data(), m.data() + m.size(), out.data(),
                 [](double x) { return to_half(static_cast<float>(x)); });
  return AnyMatrix::copy_of(AnyMatrixView::of(out.view()));
}

/// [n] the root of the mass of all heads: what a key weighs in the clustering.
std::vector<float> root_weights(const Matrix<float>& mass) {
  std::vector<float> weights(mass.rows());
  for (std::size_t i = 0; i < mass.rows(); ++i) {
    const float* row = mass.row(i);
    weights[i] = static_cast<float>(std::sqrt(std::accumulate(row, row + mass.cols(), 0.0)));
  }
  return weights;
}

/// Fits one tail; each function is a step of the recipe.
class Fit {
 public:
  Fit(const Observations& seen, AnyMatrixView keys, ValuesView values,
      std::span<const std::size_t> kept, const KeyClusters& clusters, const TailParams& params)
      : seen_(seen),
        keys_(keys),
        values_(values),
        kept_(kept),
        clusters_(clusters),
        params_(params),
        group_(seen.group),
        dv_(values.rows.cols) {}

  Tail::Parts run() {
    summarize_clusters();
    if (count_ == 0) return {};
    for (std::size_t q = 0; q < seen_.queries.rows(); ++q)
      left_.push_back(leftover(seen_, values_, kept_[q], q));
    bias_ = Matrix<float>(count_, group_);
    correction_ = Matrix<float>(group_, Tail::kFeatures);
    limits_ = Matrix<float>(group_, Tail::kLimits);
    for (std::size_t g = 0; g < group_; ++g) {
      limits_.row(g)[2] = kUnlimited;  // until training says what lies beside retrieved keys
      const Dense logits = centroid_logits(g);
      set_bias(g, logits);
      const Dense biased = logits.rowwise() + bias_row(g);
      fit_values(g, biased);
      fit_mass(g, biased);
    }
    return is_finite() ? parts() : Tail::Parts{};
  }

 private:
  /// Clusters of keys that get attention, with its share per head, mean key and mean values.
  void summarize_clusters() {
    const Matrix<float> mass = mass_without(seen_, kept_);
    const std::vector<float> weights = root_weights(mass);
    const std::size_t clusters = std::min(params_.vectors, keys_.rows);
    const std::size_t d = keys_.cols;
    Dense key_sums = Dense::Zero(index(clusters), index(d));
    Dense shares = Dense::Zero(index(clusters), index(group_));
    std::vector<Dense> value_sums(group_, Dense::Zero(index(clusters), index(dv_)));
    std::vector<float> key(d), value(dv_);
    for (std::size_t i = 0; i < keys_.rows; ++i) {
      const double weight = double{weights[i]} * double{weights[i]};
      if (weight <= 0) continue;
      const Eigen::Index c = clusters_[i];
      keys_.copy_row(i, key.data());
      key_sums.row(c) +=
          weight * Eigen::Map<const Eigen::RowVectorXf>(key.data(), index(d)).cast<double>();
      values_.rows.copy_row(i, value.data());
      const double factor = values_.scales != nullptr ? double{values_.scales[i]} : 1.0;
      const auto row =
          Eigen::Map<const Eigen::RowVectorXf>(value.data(), index(dv_)).cast<double>();
      for (std::size_t g = 0; g < group_; ++g) {
        const double share = mass.row(i)[g];
        shares(c, index(g)) += share;
        value_sums[g].row(c) += share * factor * row;
      }
    }
    keep_clusters(key_sums, shares, value_sums);
  }

  /// Those with any mass; values of a head that has none there are the other heads' mean.
  void keep_clusters(const Dense& key_sums, const Dense& shares,
                     const std::vector<Dense>& value_sums) {
    std::vector<Eigen::Index> kept;
    for (Eigen::Index c = 0; c < shares.rows(); ++c)
      if (shares.row(c).sum() > 0) kept.push_back(c);
    count_ = kept.size();
    centroids_ = Dense(index(count_), key_sums.cols());
    shares_ = Dense(index(count_), index(group_));
    means_.assign(group_, Dense(index(count_), index(dv_)));
    for (std::size_t i = 0; i < count_; ++i) {
      const Eigen::Index c = kept[i];
      const double all = shares.row(c).sum();
      centroids_.row(index(i)) = key_sums.row(c) / all;
      shares_.row(index(i)) = shares.row(c);
      Eigen::RowVectorXd mean = Eigen::RowVectorXd::Zero(index(dv_));
      for (const Dense& sums : value_sums) mean += sums.row(c);
      for (std::size_t g = 0; g < group_; ++g) {
        const double share = shares(c, index(g));
        means_[g].row(index(i)) = mean / all;
        if (share > 0) means_[g].row(index(i)) = value_sums[g].row(c) / share;
      }
    }
    // The tail is used as it is stored, so it is trained for what that holds.
    if (count_ == 0) return;
    stored_keys_ = in_16_bits(centroids_);
    const Matrix<float> used = to_f32(stored_keys_.view());
    std::copy_n(used.data(), centroids_.size(), centroids_.data());
  }

  /// [m, C] logits of q . mu_c, of the queries of head g, without bias.
  [[nodiscard]] Dense centroid_logits(std::size_t g) const {
    const std::size_t steps = seen_.steps();
    Dense queries(index(steps), index(keys_.cols));
    for (std::size_t s = 0; s < steps; ++s) {
      queries.row(index(s)) =
          Eigen::Map<const Eigen::RowVectorXf>(seen_.queries.row(s * group_ + g), index(keys_.cols))
              .cast<double>();
    }
    Dense logits = double{seen_.logits.scale} * (queries * centroids_.transpose());
    if (seen_.logits.softcap > 0)
      logits = logits.unaryExpr([&](double scaled) { return seen_.logits.capped(scaled); }).eval();
    return logits;
  }

  /// Gives each cluster, summed over the queries, the mass that its keys have.
  void set_bias(std::size_t g, const Dense& logits) {
    if (shares_.col(index(g)).sum() <= 0) return;  // nothing to learn from: no bias
    Eigen::RowVectorXd expected = Eigen::RowVectorXd::Zero(index(count_));
    for (std::size_t s = 0; s < seen_.steps(); ++s) {
      const std::size_t q = s * group_ + g;
      const double rest = seen_.rest.lse[q], exact = seen_.exact.lse[q];
      const double total = rest + std::log1p(std::exp(exact - rest));
      expected += (logits.row(index(s)).array() - total).min(60.0).exp().matrix();
    }
    const double least = kLeastShare * shares_.col(index(g)).sum() + 1e-30;
    for (std::size_t c = 0; c < count_; ++c) {
      const double share = std::max(shares_(index(c), index(g)), least);
      bias_.row(c)[g] = static_cast<float>(std::log(share) - std::log(expected(index(c)) + 1e-300));
    }
  }

  [[nodiscard]] Eigen::RowVectorXd bias_row(std::size_t g) const {
    Eigen::RowVectorXd row(index(count_));
    for (std::size_t c = 0; c < count_; ++c) row(index(c)) = bias_.row(c)[g];
    return row;
  }

  /// Ridge regression of the values on the queries' true tail outputs, from the means.
  void fit_values(std::size_t g, const Dense& biased) {
    const std::size_t steps = seen_.steps();
    Dense softmax = (biased.colwise() - biased.rowwise().maxCoeff()).array().exp().matrix();
    softmax.array().colwise() /= softmax.rowwise().sum().array().eval();
    Dense missing = -(softmax * means_[g]);
    Eigen::VectorXd weight(index(steps));
    for (std::size_t s = 0; s < steps; ++s) {
      const Leftover& left = left_[s * group_ + g];
      missing.row(index(s)) += Eigen::Map<const Eigen::RowVectorXd>(left.out.data(), index(dv_));
      weight(index(s)) = left.share * left.share;
    }
    const Dense weighted = weight.asDiagonal() * softmax;
    Dense normal = softmax.transpose() * weighted;
    const double ridge = params_.ridge * normal.trace() / static_cast<double>(count_);
    if (ridge <= 0) return;
    normal.diagonal().array() += ridge;
    means_[g] += normal.ldlt().solve(weighted.transpose() * missing);
  }

  /// Regression of the tail's missing mass, in logarithms, on the features.
  void fit_mass(std::size_t g, const Dense& biased) {
    constexpr std::size_t kF = Tail::kFeatures;
    Eigen::Matrix<double, kF, kF> normal = Eigen::Matrix<double, kF, kF>::Zero();
    Eigen::Matrix<double, kF, 1> moment = Eigen::Matrix<double, kF, 1>::Zero();
    std::vector<MassFeatures> features;
    double total = 0;
    for (std::size_t s = 0; s < seen_.steps(); ++s) {
      const std::size_t q = s * group_ + g;
      const Leftover& left = left_[q];
      const double top = biased.row(index(s)).maxCoeff();
      const double own = top + std::log((biased.row(index(s)).array() - top).exp().sum());
      const float* scores = kept_[q] > 0 ? seen_.top_scores.row(q) : nullptr;
      features.push_back(mass_features({scores, kept_[q]}, seen_.logits, left.retrieved, own));
      const Eigen::Map<const Eigen::Matrix<double, kF, 1>> f(features.back().data());
      // An error of the log mass moves the output by share * (1 - share).
      const double weight = std::pow(left.share * (1.0 - left.share), 2);
      normal += weight * f * f.transpose();
      moment += weight * (left.lse - own) * f;
      total += weight;
    }
    if (total <= 0) return;
    normal.diagonal().array() += 1e-3 * total;
    const Eigen::Matrix<double, kF, 1> c = normal.ldlt().solve(moment);
    for (std::size_t i = 0; i < kF; ++i) correction_.row(g)[i] = static_cast<float>(c(index(i)));
    set_limits(g, features);
  }

  /// Whether f32 holds what was fitted: if not, there is no tail.
  [[nodiscard]] bool is_finite() const {
    for (const Matrix<float>* m : {&bias_, &correction_, &limits_})
      if (!std::isfinite(largest_magnitude(AnyMatrixView::of(m->view())))) return false;
    constexpr double kLargest = std::numeric_limits<float>::max();
    return std::all_of(means_.begin(), means_.end(), [](const Dense& values) {
      return values.cwiseAbs().maxCoeff() <= kLargest && values.allFinite();
    });
  }

  /// Where training saw the corrections of head g, and its mass against the last key retrieved.
  void set_limits(std::size_t g, const std::vector<MassFeatures>& features) {
    constexpr double kInfinity = std::numeric_limits<double>::infinity();
    double least = kInfinity, most = -kInfinity, beyond = -kInfinity;
    for (std::size_t s = 0; s < features.size(); ++s) {
      const double shift = mass_shift(features[s], correction_.row(g));
      least = std::min(least, shift);
      most = std::max(most, shift);
      const std::size_t q = s * group_ + g, k = kept_[q];
      if (k == 0) continue;
      const double last = seen_.logits.of(seen_.top_scores.row(q)[k - 1]);
      beyond = std::max(beyond, left_[q].lse - last);
    }
    limits_.row(g)[0] = static_cast<float>(least);
    limits_.row(g)[1] = static_cast<float>(most);
    if (std::isfinite(beyond)) limits_.row(g)[2] = static_cast<float>(beyond);
  }

  [[nodiscard]] Tail::Parts parts() const {
    Dense values(index(group_ * count_), index(dv_));
    for (std::size_t g = 0; g < group_; ++g)
      values.middleRows(index(g * count_), index(count_)) = means_[g];
    return {.keys = stored_keys_,
            .bias = bias_,
            .values = in_16_bits(values),
            .correction = correction_,
            .limits = limits_,
            .logits = seen_.logits};
  }

  const Observations& seen_;
  AnyMatrixView keys_;
  ValuesView values_;
  std::span<const std::size_t> kept_;
  const KeyClusters& clusters_;
  const TailParams& params_;
  std::size_t group_;
  std::size_t dv_;
  std::size_t count_ = 0;       ///< clusters kept
  Dense centroids_;             ///< [C, d]
  AnyMatrix stored_keys_;       ///< the same
  Dense shares_;                ///< [C, G] of mass
  std::vector<Dense> means_;    ///< [G] of [C, dv]
  std::vector<Leftover> left_;  ///< [m * G]
  Matrix<float> bias_, correction_, limits_;
};

}  // namespace

void TailParams::validate() const {
  require(vectors >= 1 && vectors <= 65536, "tail.vectors is {}, must be in [1, 65536]", vectors);
  require(iterations <= 1000, "tail.iterations is {}, at most 1000", iterations);
  require(std::isfinite(ridge) && ridge > 0, "tail.ridge is {}, must be above 0", ridge);
}

namespace {

void require_observed(const Observations& seen, AnyMatrixView keys,
                      std::span<const std::size_t> kept) {
  require(seen.queries.rows() > 0, "seen is empty");
  require_kept(seen, kept);
  require(keys.rows == seen.mass.rows(), "keys has {} rows, {} were observed", keys.rows,
          seen.mass.rows());
  require(keys.cols == seen.queries.cols(), "keys have dimension {}, the queries {}", keys.cols,
          seen.queries.cols());
}

}  // namespace

KeyClusters Tail::cluster(const Observations& seen, AnyMatrixView keys,
                          std::span<const std::size_t> kept, const TailParams& params) {
  params.validate();
  require_observed(seen, keys, kept);
  const std::vector<float> weights = root_weights(mass_without(seen, kept));
  if (std::all_of(weights.begin(), weights.end(), [](float w) { return w <= 0; }))
    return KeyClusters(keys.rows, 0);
  return cluster_keys(keys, weights, std::min(params.vectors, keys.rows), params.iterations,
                      params.seed);
}

Tail Tail::fit(const Observations& seen, AnyMatrixView keys, ValuesView values,
               std::span<const std::size_t> kept, const TailParams& params,
               const KeyClusters* clusters) {
  params.validate();
  require_observed(seen, keys, kept);
  require_values(seen, values);
  KeyClusters own;
  if (clusters == nullptr) {
    own = cluster(seen, keys, kept, params);
    clusters = &own;
  }
  require(clusters->size() == keys.rows, "clusters are of {} keys, there are {}", clusters->size(),
          keys.rows);
  for (const std::uint32_t c : *clusters)
    require(c < params.vectors, "clusters name cluster {} of {}", c, params.vectors);
  Tail tail;
  tail.parts_ = Fit(seen, keys, values, kept, *clusters, params).run();
  return tail;
}

Tail Tail::fit(const Observations& seen, AnyMatrixView keys, ValuesView values, std::size_t k,
               const TailParams& params) {
  return fit(seen, keys, values, std::vector<std::size_t>(seen.queries.rows(), k), params);
}

}  // namespace keyseek
