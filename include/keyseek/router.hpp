/// Training queries that can be searched: queries like mine, and the keys they want.
///
/// Queries are out of the keys' distribution but not out of each other's, so the nearest
/// training queries are easy to find, and their exact lists hold most of what a new query
/// wants. Two queries are near when they see the keys alike: they are compared in coordinates
/// that a linear map gives, the query map: the square root of the covariance C of the keys that
/// training queries want, where |x - y|^2 is the expected squared difference of the two queries'
/// scores, apart from what all keys share: E((q1 - q2).(k - mean))^2 = (q1 - q2)' C (q1 - q2). It
/// is cut to the directions in which training queries vary most and scaled to unit length (a
/// query's length does not change its top k). Their coordinates are kept in 8 bits, sorted by
/// spherical k-means clusters.
///
/// Immutable and thread-safe; copies share the bytes.
///
///     auto router = keyseek::Router::build(queries, lists, keys, {.clusters = 256});
///     keyseek::RouteScratch scratch;
///     for (auto near : router.nearest(new_queries, 4, 8, scratch)) {  // 8 of 4 clusters each
///       if (near != keyseek::kNoId) router.append_list(near, ids);    // keys that one wants
///     }
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "keyseek/execution.hpp"
#include "keyseek/key_store.hpp"
#include "keyseek/matrix.hpp"

namespace keyseek {

struct RouterParams {
  std::size_t dim = 64;           ///< of the query map; at most the keys' dimension is used
  std::size_t clusters = 256;     ///< at most; fewer when there are few training queries
  std::size_t iterations = 6;     ///< of k-means
  double queries_per_key = 0.45;  ///< bounds memory: of more, an even sample is kept
  std::uint64_t seed = 1;

  void validate() const;  ///< throws Error(invalid_argument)
};

/// Memory that `Router::nearest` works in; one per thread at a time.
struct RouteScratch {
  std::vector<float> projected;  ///< [G, dim]
  EncodedQueries encoded;
  std::vector<Id> rows;                ///< 0, 1, 2, ...: the centroids
  std::vector<Id> members;             ///< queries of the probed clusters
  std::vector<float> centroid_scores;  ///< [G, C]
  std::vector<float> scores;
  std::vector<std::uint64_t> ranked;
  std::vector<std::uint32_t> near;  ///< the answer
  std::vector<float> similarity;    ///< [G] cosine of the nearest one that was found
};

class Router {
 public:
  Router() = default;
  /// `queries` [m, d] and their exact `lists` [m, k] of rows of `keys`.
  [[nodiscard]] static Router build(MatrixView<float> queries, MatrixView<Id> lists,
                                    AnyMatrixView keys, const RouterParams& params = {},
                                    const Execution& run = {});

  /// The router with more training queries [m, d] and their `lists`; clusters and query map stay.
  [[nodiscard]] Router extended(MatrixView<float> queries, MatrixView<Id> lists, std::size_t n,
                                const Execution& run = {}) const;
  /// The router without the keys from n on in its lists, and without queries that want no other.
  [[nodiscard]] Router truncated(std::size_t n) const;

  [[nodiscard]] std::size_t clusters() const noexcept {
    return parts_.cluster_offsets.empty() ? 0 : parts_.cluster_offsets.size() - 1;
  }
  [[nodiscard]] std::size_t queries() const noexcept { return parts_.scales.size(); }
  [[nodiscard]] bool empty() const noexcept { return queries() == 0; }
  [[nodiscard]] std::size_t dim() const noexcept { return parts_.query_map.rows(); }
  [[nodiscard]] std::size_t bytes() const noexcept;

  /// For each row of `queries` [G, d] the `count` nearest training queries among those of the
  /// `probes` nearest clusters, in no order; row after row, padded with kNoId. Lies in `scratch`,
  /// as does how similar the nearest one is: the cosine of their coordinates, from 8-bit codes.
  [[nodiscard]] std::span<const std::uint32_t> nearest(MatrixView<float> queries,
                                                       std::size_t probes, std::size_t count,
                                                       RouteScratch& scratch) const;
  /// Appends the keys that training query `query` wants, by ascending id.
  void append_list(std::uint32_t query, std::vector<Id>& out) const;
  /// Asks the memory system for that list.
  void prefetch_list(std::uint32_t query) const noexcept;
  /// Bytes of that list.
  [[nodiscard]] std::size_t list_bytes(std::uint32_t query) const noexcept {
    return (parts_.list_offsets[query + 1] - parts_.list_offsets[query]) * sizeof(std::uint16_t);
  }

  struct Parts {
    AnyMatrix query_map;                         ///< f16 [dim, d]
    SharedArray<std::uint8_t> centroids;         ///< codes [C, code_cols(dim)]
    SharedArray<float> centroid_scales;          ///< [C]
    SharedArray<std::uint32_t> cluster_offsets;  ///< [C + 1], into the queries
    SharedArray<std::uint8_t> codes;             ///< [queries, code_cols(dim)], by cluster
    SharedArray<float> scales;                   ///< [queries]
    SharedArray<std::uint32_t> list_offsets;     ///< [queries + 1], into the gaps
    /// Ascending ids of each list as gaps; 65535 adds as much and names no key.
    SharedArray<std::uint16_t> gaps;
  };
  [[nodiscard]] const Parts& parts() const noexcept { return parts_; }
  /// Throws Error(corrupt) when the parts contradict each other or name a key >= n.
  [[nodiscard]] static Router from_parts(Parts parts, std::size_t n);

 private:
  void score_centroids(std::size_t group, RouteScratch& s) const;
  [[nodiscard]] std::span<const std::uint64_t> nearest_clusters(std::size_t g, std::size_t probes,
                                                                RouteScratch& s) const;
  Parts parts_;
};

}  // namespace keyseek
