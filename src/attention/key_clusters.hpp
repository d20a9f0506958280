/// Weighted k-means of keys.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "keyseek/matrix.hpp"

namespace keyseek {

/// The cluster of each key, in [0, clusters): Euclidean k-means, keys weighing `weights` [n] (not
/// negative, not all zero). Centroids are found on an even sample of the keys.
[[nodiscard]] std::vector<std::uint32_t> cluster_keys(AnyMatrixView keys,
                                                      const std::vector<float>& weights,
                                                      std::size_t clusters, std::size_t iterations,
                                                      std::uint64_t seed);

}  // namespace keyseek
