/// Clusters keys by distance, those with more mass counting more.
#include "attention/key_clusters.hpp"

#include <algorithm>

#include "base/random.hpp"
#include "score/rows.hpp"

namespace keyseek {
namespace {

constexpr std::size_t kSample = 8192;
constexpr std::size_t kChunk = 256;  // keys scored at a time

/// The nearest centroid of each key: the one with the largest <k, c> - |c|^2 / 2.
std::vector<std::uint32_t> assign(AnyMatrixView keys, const Matrix<float>& centroids) {
  const std::size_t count = centroids.rows(), d = centroids.cols();
  std::vector<float> half_norm(count);
  for (std::size_t c = 0; c < count; ++c) {
    double power = 0;
    for (std::size_t j = 0; j < d; ++j) power += double{centroids.row(c)[j]} * centroids.row(c)[j];
    half_norm[c] = static_cast<float>(power / 2);
  }
  std::vector<std::uint32_t> cluster(keys.rows);
  std::vector<float> scores(kChunk * count);
  for (std::size_t first = 0; first < keys.rows; first += kChunk) {
    const std::size_t rows = std::min(kChunk, keys.rows - first);
    score_rows(rows_of(keys.slice(first, rows)), centroids, scores.data());
    for (std::size_t i = 0; i < rows; ++i) {
      const float* row = scores.data() + i * count;
      std::uint32_t best = 0;
      for (std::uint32_t c = 1; c < count; ++c)
        if (row[c] - half_norm[c] > row[best] - half_norm[best]) best = c;
      cluster[first + i] = best;
    }
  }
  return cluster;
}

/// An index drawn with probability proportional to `weights`, whose running sums are given.
std::size_t draw(const std::vector<double>& running, Random& random) {
  const double at = random.uniform() * running.back();
  const auto it = std::upper_bound(running.begin(), running.end(), at);
  return std::min(static_cast<std::size_t>(it - running.begin()), running.size() - 1);
}

}  // namespace

std::vector<std::uint32_t> cluster_keys(AnyMatrixView keys, const std::vector<float>& weights,
                                        std::size_t clusters, std::size_t iterations,
                                        std::uint64_t seed) {
  const std::size_t d = keys.cols, count = std::min(keys.rows, kSample);
  Matrix<float> rows(count, d);
  std::vector<float> weight(count);
  std::vector<double> running(count);
  double total = 0;
  for (std::size_t i = 0; i < count; ++i) {
    const std::size_t row = i * keys.rows / count;
    keys.copy_row(row, rows.row(i));
    weight[i] = weights[row];
    running[i] = total += double{weight[i]};
  }
  Random random(seed);
  Matrix<float> centroids(clusters, d);
  const auto restart = [&](std::size_t c) {
    const std::size_t row = total > 0 ? draw(running, random) : random.below(count);
    std::copy_n(rows.row(row), d, centroids.row(c));
  };
  for (std::size_t c = 0; c < clusters; ++c) restart(c);
  for (std::size_t iteration = 0; iteration < iterations; ++iteration) {
    const auto cluster = assign(AnyMatrixView::of(rows.view()), centroids);
    Matrix<double> sums(clusters, d);
    std::vector<double> share(clusters);
    for (std::size_t i = 0; i < count; ++i) {
      share[cluster[i]] += double{weight[i]};
      double* sum = sums.row(cluster[i]);
      for (std::size_t j = 0; j < d; ++j) sum[j] += double{weight[i]} * double{rows.row(i)[j]};
    }
    for (std::size_t c = 0; c < clusters; ++c) {
      if (share[c] <= 0) {
        restart(c);
        continue;
      }
      for (std::size_t j = 0; j < d; ++j)
        centroids.row(c)[j] = static_cast<float>(sums.row(c)[j] / share[c]);
    }
  }
  return assign(keys, centroids);
}

}  // namespace keyseek
