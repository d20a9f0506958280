#include "decode/stop.hpp"

#include <algorithm>
#include <cmath>

namespace keyseek {
namespace {

std::size_t within(std::span<const float> scores, float scale, double least) {
  std::size_t count = 0;
  while (count < scores.size() && double{scale} * double{scores[count]} >= least) ++count;
  return count;
}

std::size_t share_of_mass(std::span<const float> scores, float scale, double limit, double best,
                          double lse) {
  const double top = std::max(best, double{scale} * double{scores[0]});
  const auto mass = [&](float score) { return std::exp(double{scale} * double{score} - top); };
  double left = 0;  // mass of what is not kept
  for (const float score : scores) left += mass(score);
  const double allowed = (1.0 - limit) * (left + std::exp(lse - top));
  std::size_t count = 0;
  while (count < scores.size() && left > allowed) left -= mass(scores[count++]);
  return count;
}

}  // namespace

std::size_t kept_by(const StopRule& stop, std::span<const float> scores, float scale, float best,
                    float lse) {
  const std::size_t found = std::min(stop.k, scores.size());
  const auto considered = scores.first(found);
  std::size_t kept = found;
  if (found > 0 && stop.rule == Rule::dipr) {
    const double largest = std::max(double{best}, double{scale} * double{scores[0]});
    kept = within(considered, scale, largest - stop.limit);
  } else if (found > 0 && stop.rule == Rule::mass) {
    kept = share_of_mass(considered, scale, stop.limit, double{best}, double{lse});
  }
  return std::clamp(kept, std::min(stop.least, found), found);
}

}  // namespace keyseek
