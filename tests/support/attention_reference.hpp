/// Attention in f64.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <vector>

#include "keyseek/attention.hpp"
#include "support/reference.hpp"

namespace keyseek::test {

inline constexpr double kInfinity = std::numeric_limits<double>::infinity();

struct Reference {
  std::vector<double> out;
  double lse = -kInfinity;
  double best = -kInfinity;  ///< largest logit
};

/// What a naive softmax knows of logits, in f64; `null`: the query head's null logit.
struct NaiveLogits {
  double scale = 1.0;
  double softcap = 0.0;
  double null = -kInfinity;

  [[nodiscard]] double of(double product) const {
    return softcap > 0 ? softcap * std::tanh(scale * product / softcap) : scale * product;
  }
};

/// Query over the tokens `ids`.
inline Reference reference(const float* query, AnyMatrixView keys, ValuesView values,
                           const std::vector<Id>& ids, const NaiveLogits& how) {
  Reference r;
  r.out.resize(values.rows.cols);
  if (ids.empty()) return r;
  std::vector<double> logits;
  double top = -kInfinity;
  for (const Id id : ids) {
    logits.push_back(how.of(product(keys, id, query).value));
    top = std::max(top, logits.back());
  }
  const double largest = top;
  top = std::max(top, how.null);
  double sum = std::exp(how.null - top);
  std::vector<float> value(values.rows.cols);
  for (std::size_t j = 0; j < ids.size(); ++j) {
    const double weight = std::exp(logits[j] - top);
    sum += weight;
    values.rows.copy_row(ids[j], value.data());
    const double factor = values.scales != nullptr ? double{values.scales[ids[j]]} : 1.0;
    for (std::size_t c = 0; c < value.size(); ++c) r.out[c] += weight * factor * double{value[c]};
  }
  for (double& x : r.out) x /= sum;
  r.lse = top + std::log(sum);
  r.best = largest;
  return r;
}
inline Reference reference(const float* query, AnyMatrixView keys, ValuesView values,
                           const std::vector<Id>& ids, double scale) {
  return reference(query, keys, values, ids, NaiveLogits{.scale = scale});
}

/// |out - truth| / |truth|.
template <class Truth>
double relative_error(const float* out, const Truth* truth, std::size_t size) {
  double error = 0, power = 0;
  for (std::size_t c = 0; c < size; ++c) {
    const auto wanted = static_cast<double>(truth[c]);
    error += (double{out[c]} - wanted) * (double{out[c]} - wanted);
    power += wanted * wanted;
  }
  return std::sqrt(error / power);
}
inline double relative_error(const float* out, const std::vector<double>& truth) {
  return relative_error(out, truth.data(), truth.size());
}

/// The larger of two errors; infinite for what is not a number.
inline double worse(double a, double b) {
  return std::isnan(a) || std::isnan(b) ? kInfinity : std::max(a, b);
}

inline void expect_close(const Partial& part, std::size_t g, const Reference& truth,
                         double bound = 1e-5) {
  EXPECT_LT(relative_error(part.out.row(g), truth.out), bound) << "query " << g;
  EXPECT_NEAR(part.lse[g], truth.lse, 1e-5 * std::max(1.0, std::fabs(truth.lse))) << "query " << g;
  EXPECT_NEAR(part.best[g], truth.best, 1e-5 * std::max(1.0, std::fabs(truth.best)));
}

/// first, first + 1, ..., last - 1.
inline std::vector<Id> range(std::size_t first, std::size_t last) {
  std::vector<Id> ids(last - first);
  std::iota(ids.begin(), ids.end(), static_cast<Id>(first));
  return ids;
}

}  // namespace keyseek::test
