/// Spherical k-means.
#pragma once

#include <cstdint>
#include <vector>

#include "keyseek/execution.hpp"
#include "keyseek/matrix.hpp"

namespace keyseek {

struct Clustering {
  Matrix<float> centroids;             ///< [clusters, d], unit length
  std::vector<std::uint32_t> cluster;  ///< [rows]: the centroid with the largest inner product
};

/// Clusters the unit vectors `rows`. Deterministic in `seed` at any thread count.
[[nodiscard]] Clustering spherical_kmeans(MatrixView<float> rows, std::size_t clusters,
                                          std::size_t iterations, std::uint64_t seed,
                                          const Execution& run);

}  // namespace keyseek
