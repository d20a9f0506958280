/// The correction of the tail's total mass.
#pragma once

#include <algorithm>
#include <array>
#include <span>

#include "keyseek/tail.hpp"

namespace keyseek {

using MassFeatures = std::array<double, Tail::kFeatures>;

/// What the tail's mass may depend on: where the retrieved logits lie against the tail's own.
/// `scores` are inner products, best first; `retrieved` their log-sum-exp as logits.
inline MassFeatures mass_features(std::span<const float> scores, Logits logits, double retrieved,
                                  double own) {
  MassFeatures f = {1.0};
  if (scores.empty()) return f;
  const auto logit = [&](std::size_t rank) { return logits.of(scores[rank]) - own; };
  f[1] = retrieved - own;
  f[2] = logit(0);
  f[3] = logit(scores.size() / 4);
  f[4] = logit(scores.size() / 2);
  f[5] = logit(scores.size() - 1);
  return f;
}

/// What the features add to the logarithm of the tail's mass.
inline double mass_shift(const MassFeatures& f, const float* c) {
  double sum = 0;
  for (std::size_t i = 0; i < f.size(); ++i) sum += f[i] * double{c[i]};
  return sum;
}

/// The logarithm of the tail's mass for head g: `own`, corrected within the limits of training.
inline double tail_mass(const Tail::Parts& parts, std::size_t g, const MassFeatures& f,
                        std::span<const float> scores, double own) {
  const float* limits = parts.limits.row(g);
  const double shift =
      std::clamp(mass_shift(f, parts.correction.row(g)), double{limits[0]}, double{limits[1]});
  if (scores.empty()) return own + shift;
  // A key that is not retrieved weighs at most what the last retrieved one does. So a query that
  // wants what no training query did cannot take the tail for it.
  const double last = parts.logits.of(scores.back());
  return std::min(own + shift, last + double{limits[2]});
}

}  // namespace keyseek
