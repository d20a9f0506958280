/// Clusters rows by direction, in a fixed number of rounds of spherical k-means.
#include "router/clustering.hpp"

#include <algorithm>
#include <cmath>
#include <string_view>

#include "base/parallel.hpp"
#include "base/random.hpp"
#include "score/rows.hpp"

namespace keyseek {
namespace {

// Rows per cluster that the iterations look at; all rows are assigned at the end.
constexpr std::size_t kSamplePerCluster = 16;

/// Rows of `m` drawn without repetition, in ascending order.
Matrix<float> sample_rows(MatrixView<float> m, std::size_t count, std::uint64_t seed) {
  std::vector<std::size_t> order(m.rows);
  for (std::size_t i = 0; i < m.rows; ++i) order[i] = i;
  Random random(seed);
  for (std::size_t i = 0; i < count; ++i) std::swap(order[i], order[i + random.below(m.rows - i)]);
  std::sort(order.begin(), order.begin() + static_cast<std::ptrdiff_t>(count));
  Matrix<float> rows(count, m.cols);
  for (std::size_t i = 0; i < count; ++i) std::copy_n(m.row(order[i]), m.cols, rows.row(i));
  return rows;
}

/// The centroid with the largest inner product, of each row; ties to the smaller number.
std::vector<std::uint32_t> nearest(MatrixView<float> rows, MatrixView<float> centroids,
                                   const Execution& run, std::string_view stage) {
  constexpr std::size_t kTile = 32;
  std::vector<std::uint32_t> best(rows.rows);
  parallel_for(rows.rows, kTile, run, stage, [&](std::size_t begin, std::size_t end, int) {
    const std::size_t group = end - begin;
    std::vector<float> scores(centroids.rows * group);
    score_rows(rows_of(AnyMatrixView::of(centroids)), rows.slice(begin, group), scores.data());
    std::vector<std::uint32_t> winner(group);
    for (std::uint32_t c = 1; c < centroids.rows; ++c) {
      for (std::size_t g = 0; g < group; ++g) {
        if (scores[c * group + g] > scores[winner[g] * group + g]) winner[g] = c;
      }
    }
    std::copy(winner.begin(), winner.end(), best.begin() + static_cast<std::ptrdiff_t>(begin));
  });
  return best;
}

/// Moves each centroid to the direction of its members' sum; one without members stays.
void recentre(MatrixView<float> rows, const std::vector<std::uint32_t>& cluster,
              Matrix<float>& centroids) {
  const std::size_t d = centroids.cols();
  std::vector<double> sums(centroids.rows() * d);
  for (std::size_t i = 0; i < rows.rows; ++i) {
    double* sum = sums.data() + cluster[i] * d;
    for (std::size_t j = 0; j < d; ++j) sum[j] += double{rows.row(i)[j]};
  }
  for (std::size_t c = 0; c < centroids.rows(); ++c) {
    const double* sum = sums.data() + c * d;
    double power = 0;
    for (std::size_t j = 0; j < d; ++j) power += sum[j] * sum[j];
    if (power == 0) continue;
    for (std::size_t j = 0; j < d; ++j)
      centroids.row(c)[j] = static_cast<float>(sum[j] / std::sqrt(power));
  }
}

}  // namespace

Clustering spherical_kmeans(MatrixView<float> rows, std::size_t clusters, std::size_t iterations,
                            std::uint64_t seed, const Execution& run) {
  const Matrix<float> sample =
      sample_rows(rows, std::min(rows.rows, clusters * kSamplePerCluster), seed);
  Clustering result;
  result.centroids = sample_rows(sample, clusters, seed + 1);
  for (std::size_t i = 0; i < iterations; ++i) {
    recentre(sample, nearest(sample, result.centroids, run, "clustering queries"),
             result.centroids);
  }
  result.cluster = nearest(rows, result.centroids, run, "assigning queries");
  return result;
}

}  // namespace keyseek
