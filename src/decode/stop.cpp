// Each rule, by the scores of the keys found and what is attended exactly.
#include "decode/stop.hpp"

#include <algorithm>
#include <cmath>

namespace keyseek {
namespace {

constexpr double kLargestExponent = 700;  // whose exp is finite

std::size_t within(std::span<const float> scores, Logits logits, double least) {
  std::size_t count = 0;
  while (count < scores.size() && logits.of(scores[count]) >= least) ++count;
  return count;
}

std::size_t share_of_mass(std::span<const float> scores, Logits logits, double limit, double best,
                          double lse) {
  const double top = std::max(best, logits.of(scores[0]));
  const auto mass = [&](float score) { return std::exp(logits.of(score) - top); };
  double left = 0;  // mass of what is not kept
  for (const float score : scores) left += mass(score);
  // A null logit may be far above all keys.
  const double exact = std::exp(std::min(lse - top, kLargestExponent));
  const double allowed = (1.0 - limit) * (left + exact);
  std::size_t count = 0;
  while (count < scores.size() && left > allowed) left -= mass(scores[count++]);
  return count;
}

}  // namespace

std::size_t kept_by(const StopRule& stop, std::span<const float> scores, Logits logits, float best,
                    float lse) {
  const std::size_t found = std::min(stop.k, scores.size());
  const auto considered = scores.first(found);
  std::size_t kept = found;
  if (found > 0 && stop.rule == Rule::dipr) {
    const double largest = std::max(double{best}, logits.of(scores[0]));
    kept = within(considered, logits, largest - stop.limit);
  } else if (found > 0 && stop.rule == Rule::mass) {
    kept = share_of_mass(considered, logits, stop.limit, double{best}, double{lse});
  }
  return std::clamp(kept, std::min(stop.least, found), found);
}

}  // namespace keyseek
