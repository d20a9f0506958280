/// Attention over the keys that remain when a query's best are taken away.
#include "attention/leftover.hpp"

#include <algorithm>
#include <cmath>

namespace keyseek {
namespace {

// Sums in f32 may leave so much of a share that was taken away: what is smaller is none.
constexpr double kNoise = 1e-5;

}  // namespace

Leftover leftover(const Observations& seen, ValuesView values, std::size_t k, std::size_t q) {
  const double rest = seen.rest.lse[q], exact = seen.exact.lse[q];
  const std::size_t dv = values.rows.cols;
  Leftover left;
  left.out.assign(seen.rest.out.row(q), seen.rest.out.row(q) + dv);
  std::vector<float> value(dv);
  double taken = 0;  // share of the indexed keys' mass
  for (std::size_t r = 0; r < k; ++r) {
    const Id id = seen.top_ids.row(q)[r];
    const double weight = std::exp(seen.logits.of(seen.top_scores.row(q)[r]) - rest);
    taken += weight;
    values.rows.copy_row(id, value.data());
    const double factor = values.scales != nullptr ? double{values.scales[id]} : 1.0;
    for (std::size_t c = 0; c < dv; ++c) left.out[c] -= weight * factor * double{value[c]};
  }
  const double remaining = 1.0 - taken >= kNoise ? 1.0 - taken : 0.0;
  left.share = remaining / (1.0 + std::exp(exact - rest));
  left.lse = rest + std::log(std::max(remaining, kLeastShare));
  // Of logits so large that f32 does not tell their sum from the best one, that one.
  if (k > 0)
    left.retrieved = taken > 0 ? rest + std::log(taken) : seen.logits.of(seen.top_scores.row(q)[0]);
  for (double& x : left.out) x = remaining > 0 ? x / remaining : 0.0;
  return left;
}

Matrix<float> mass_without(const Observations& seen, std::span<const std::size_t> kept) {
  Matrix<float> mass = seen.mass;
  for (std::size_t q = 0; q < seen.queries.rows(); ++q) {
    const double rest = seen.rest.lse[q], exact = seen.exact.lse[q];
    const double total = rest + std::log1p(std::exp(exact - rest));
    for (std::size_t r = 0; r < kept[q]; ++r) {
      const double logit = seen.logits.of(seen.top_scores.row(q)[r]);
      float& of_key = mass.row(seen.top_ids.row(q)[r])[q % seen.group];
      of_key -= static_cast<float>(std::exp(logit - total));
    }
  }
  for (std::size_t i = 0; i < mass.rows() * mass.cols(); ++i) {
    float& left = mass.data()[i];
    if (left < static_cast<float>(kNoise) * seen.mass.data()[i]) left = 0.0F;
  }
  return mass;
}

}  // namespace keyseek
