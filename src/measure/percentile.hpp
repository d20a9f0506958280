/// Percentiles: which one of many measured times stands for all.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <vector>

namespace keyseek {

/// The smallest of `sorted` that at least the share `p` of them does not exceed.
inline double percentile(const std::vector<double>& sorted, double p) {
  const double rank = std::ceil(p * static_cast<double>(sorted.size()));
  return sorted[static_cast<std::size_t>(std::max(1.0, rank)) - 1];
}

}  // namespace keyseek
