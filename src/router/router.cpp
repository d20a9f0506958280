/// Builds a router of training queries, searches it, and keeps its lists small.
#include "keyseek/router.hpp"

#include <algorithm>
#include <cmath>
#include <functional>
#include <numeric>
#include <vector>

#include "base/fail.hpp"
#include "base/parallel.hpp"
#include "graph/lists.hpp"
#include "router/clustering.hpp"
#include "router/members.hpp"
#include "router/query_map.hpp"
#include "score/code_tile.hpp"
#include "score/codes.hpp"
#include "score/kernels.hpp"
#include "score/projected.hpp"
#include "score/range.hpp"
#include "select/ranked.hpp"

namespace keyseek {
namespace {

/// Rows of the training set that the router keeps: all, or an even sample.
std::vector<std::size_t> kept_rows(std::size_t m, std::size_t n, double queries_per_key) {
  const double most = std::max(1.0, queries_per_key * static_cast<double>(n));
  const auto count = static_cast<std::size_t>(std::min(static_cast<double>(m), most));
  std::vector<std::size_t> rows(count);
  for (std::size_t i = 0; i < count; ++i) rows[i] = i * m / count;
  return rows;
}

/// The keys that some list names, as rows of their own.
Matrix<float> wanted_keys(MatrixView<Id> lists, AnyMatrixView keys) {
  std::vector<std::uint8_t> wanted(keys.rows);
  for (std::size_t q = 0; q < lists.rows; ++q) {
    for (const Id id : list_of(lists, q)) wanted[id] = 1;
  }
  const auto count = static_cast<std::size_t>(std::count(wanted.begin(), wanted.end(), 1));
  Matrix<float> rows(count, keys.cols);
  std::size_t at = 0;
  for (std::size_t i = 0; i < keys.rows; ++i) {
    if (wanted[i] != 0) keys.copy_row(i, rows.row(at++));
  }
  return rows;
}

double norm_of(const float* row, std::size_t d) {
  double power = 0;
  for (std::size_t j = 0; j < d; ++j) power += double{row[j]} * double{row[j]};
  return std::sqrt(power);
}

/// A zero row stays.
void scale_to_unit(float* row, std::size_t d) {
  const double norm = norm_of(row, d);
  const auto scale = static_cast<float>(norm > 0 ? 1.0 / norm : 0.0);
  for (std::size_t j = 0; j < d; ++j) row[j] *= scale;
}

/// Cosine of a projected query and the best of `near`, whose rows have unit length.
float similarity(std::span<const Ranked> near, const float* query, std::size_t dim) {
  const double norm = norm_of(query, dim);
  if (near.empty() || norm == 0) return 0.0F;
  return static_cast<float>(score_of(*std::max_element(near.begin(), near.end())) / norm);
}

Matrix<float> projected_rows(MatrixView<float> queries, const std::vector<std::size_t>& rows,
                             AnyMatrixView query_map, const Execution& run) {
  Matrix<float> out(rows.size(), query_map.rows);
  parallel_for(rows.size(), 256, run, "projecting queries",
               [&](std::size_t begin, std::size_t end, int) {
                 std::vector<float> scratch(query_map.rows);
                 Matrix<float> moved;
                 for (std::size_t i = begin; i < end; ++i) {
                   project(in_range(queries.slice(rows[i], 1), 1.0, moved), query_map, out.row(i),
                           scratch.data());
                   scale_to_unit(out.row(i), query_map.rows);
                 }
               });
  return out;
}

/// Training queries on their way into a router.
struct NewQueries {
  std::vector<std::uint32_t> cluster;
  AlignedVector<std::uint8_t> codes;
  AlignedVector<float> scales;
  std::vector<std::uint32_t> list_offsets{0};
  std::vector<std::uint16_t> gaps;
};

void encode(MatrixView<float> rows, AlignedVector<std::uint8_t>& codes,
            AlignedVector<float>& scales) {
  const std::size_t cols = code_cols(rows.cols);
  codes.resize(rows.rows * cols);
  scales.resize(rows.rows);
  for (std::size_t i = 0; i < rows.rows; ++i)
    scales[i] = encode_key(rows.row(i), rows.cols, codes.data() + i * cols);
}

void append_gaps(std::span<const Id> list, std::vector<std::uint16_t>& gaps) {
  std::vector<Id> ascending(list.begin(), list.end());
  std::sort(ascending.begin(), ascending.end());
  Id last = 0;
  for (const Id id : ascending) {
    Id gap = id - last;
    for (; gap >= kFullGap; gap -= kFullGap) gaps.push_back(kFullGap);
    gaps.push_back(static_cast<std::uint16_t>(gap));
    last = id;
  }
}

NewQueries encode_queries(MatrixView<float> projected, std::vector<std::uint32_t> cluster,
                          MatrixView<Id> lists, const std::vector<std::size_t>& rows) {
  NewQueries fresh;
  fresh.cluster = std::move(cluster);
  encode(projected, fresh.codes, fresh.scales);
  for (const std::size_t row : rows) {
    append_gaps(list_of(lists, row), fresh.gaps);
    fresh.list_offsets.push_back(static_cast<std::uint32_t>(fresh.gaps.size()));
  }
  return fresh;
}

/// The `count` largest of scores[0, n), ties to the smaller index, in no order.
void best_of(const float* scores, std::size_t n, std::size_t count, std::vector<Ranked>& best) {
  best.resize(n);
  for (std::size_t i = 0; i < n; ++i) best[i] = ranked(scores[i], static_cast<Id>(i));
  Ranked bar;
  best.resize(kernels().keep_top(best.data(), n, count, count, &bar));
}

void check(bool ok, const char* what) {
  if (!ok) fail(ErrorCode::corrupt, "router: {}", what);
}

void check_offsets(const SharedArray<std::uint32_t>& offsets, std::size_t rows, std::size_t total) {
  check(offsets.size() == rows + 1 && offsets[0] == 0 && offsets[rows] == total,
        "offsets do not span their rows");
  for (std::size_t i = 0; i < rows; ++i) check(offsets[i] <= offsets[i + 1], "offsets fall");
}

void check_scales(const SharedArray<float>& scales) {
  for (const float scale : scales) check(std::isfinite(scale) && scale > 0.0F, "a scale is wrong");
}

}  // namespace

void RouterParams::validate() const {
  require(dim >= 1 && dim <= 4096, "router.dim is {}, must be in [1, 4096]", dim);
  require(clusters >= 1 && clusters <= 65536, "router.clusters is {}, must be in [1, 65536]",
          clusters);
  require(iterations <= 1000, "router.iterations is {}, at most 1000", iterations);
  require(queries_per_key > 0.0, "router.queries_per_key is {}, must be above 0", queries_per_key);
}

Router Router::build(MatrixView<float> queries, MatrixView<Id> lists, AnyMatrixView keys,
                     const RouterParams& params, const Execution& run) {
  params.validate();
  require(queries.rows > 0, "queries is empty");
  require(queries.cols == keys.cols, "queries have dimension {}, keys have {}", queries.cols,
          keys.cols);
  require(lists.rows == queries.rows, "lists has {} rows, queries {}", lists.rows, queries.rows);
  require_lists(lists, keys.rows);

  Parts parts;
  const Matrix<float> wanted = wanted_keys(lists, keys);
  require(wanted.rows() > 0, "lists name no key");
  const Matrix<Half> query_map =
      query_map_of(AnyMatrixView::of(wanted.view()), queries, params.dim, run);
  parts.query_map = AnyMatrix::copy_of(AnyMatrixView::of(query_map.view()));

  const std::vector<std::size_t> rows = kept_rows(queries.rows, keys.rows, params.queries_per_key);
  const Matrix<float> projected = projected_rows(queries, rows, parts.query_map.view(), run);
  // A cluster of fewer than a few queries would only cost a look at its centroid.
  const std::size_t clusters = std::clamp<std::size_t>(rows.size() / 8, 1, params.clusters);
  const Clustering clustering =
      spherical_kmeans(projected, clusters, params.iterations, params.seed, run);

  AlignedVector<std::uint8_t> centroids;
  AlignedVector<float> centroid_scales;
  encode(clustering.centroids, centroids, centroid_scales);
  parts.centroids = SharedArray(std::move(centroids));
  parts.centroid_scales = SharedArray(std::move(centroid_scales));

  const NewQueries fresh = encode_queries(projected, clustering.cluster, lists, rows);
  std::vector<Member> members;
  add_members(fresh.cluster, fresh.codes, fresh.scales, fresh.list_offsets, fresh.gaps, members);
  place(std::move(members), clusters, parts);

  Router router;
  router.parts_ = std::move(parts);
  return router;
}

Router Router::extended(MatrixView<float> queries, MatrixView<Id> lists, std::size_t n,
                        const Execution& run) const {
  require(!empty(), "an empty router cannot be extended");
  require(queries.cols == parts_.query_map.cols(), "queries have dimension {}, the router has {}",
          queries.cols, parts_.query_map.cols());
  require(lists.rows == queries.rows, "lists has {} rows, queries {}", lists.rows, queries.rows);
  require_lists(lists, n);

  std::vector<std::size_t> rows(queries.rows);
  std::iota(rows.begin(), rows.end(), std::size_t{0});
  const Matrix<float> projected = projected_rows(queries, rows, parts_.query_map.view(), run);
  std::vector<std::uint32_t> cluster(queries.rows);
  RouteScratch scratch;
  for (std::size_t i = 0; i < queries.rows; ++i) {
    encode_projected(projected.view().slice(i, 1), scratch.encoded);
    score_centroids(1, scratch);
    cluster[i] = id_of(nearest_clusters(0, 1, scratch)[0]);
  }
  const NewQueries fresh = encode_queries(projected, std::move(cluster), lists, rows);

  std::vector<Member> members = members_of(parts_);
  add_members(fresh.cluster, fresh.codes, fresh.scales, fresh.list_offsets, fresh.gaps, members);
  Router router;
  router.parts_ = parts_;
  place(std::move(members), clusters(), router.parts_);
  return router;
}

Router Router::truncated(std::size_t n) const {
  if (empty()) return {};
  std::vector<Member> members = members_of(parts_);
  for (Member& member : members) member.gaps = gaps_below(member.gaps, n);
  const auto is_idle = [](const Member& member) { return member.gaps.empty(); };
  // Without a query there is no router; one that finds nothing does no harm.
  if (!std::all_of(members.begin(), members.end(), is_idle)) std::erase_if(members, is_idle);
  Router router;
  router.parts_ = parts_;
  place(std::move(members), clusters(), router.parts_);
  return router;
}

void Router::score_centroids(std::size_t group, RouteScratch& s) const {
  while (s.rows.size() < clusters()) s.rows.push_back(static_cast<Id>(s.rows.size()));
  s.centroid_scores.resize(group * clusters());
  for (std::size_t g = 0; g < group; g += CodeTile::kMaxTile) {
    kernels().score_codes(
        {parts_.centroids.data(), parts_.centroid_scales.data(), s.rows.data(), clusters()},
        tile_of(s.encoded, g, std::min(CodeTile::kMaxTile, group - g)),
        {s.centroid_scores.data() + g * clusters(), clusters()});
  }
}

std::span<const std::uint64_t> Router::nearest_clusters(std::size_t g, std::size_t probes,
                                                        RouteScratch& s) const {
  best_of(s.centroid_scores.data() + g * clusters(), clusters(), probes, s.ranked);
  return s.ranked;
}

std::span<const std::uint32_t> Router::nearest(MatrixView<float> queries, std::size_t probes,
                                               std::size_t count, RouteScratch& s) const {
  require(!empty(), "the router is empty: build one first");
  require(queries.cols == parts_.query_map.cols(), "queries have dimension {}, the router has {}",
          queries.cols, parts_.query_map.cols());
  require(probes >= 1, "probes is 0");
  require(count >= 1, "count is 0");
  const std::size_t group = queries.rows;
  s.projected.resize(group * dim());
  s.scores.resize(group * dim());
  project(queries, parts_.query_map.view(), s.projected.data(), s.scores.data());
  encode_projected({s.projected.data(), group, dim()}, s.encoded);
  score_centroids(group, s);
  s.near.assign(group * count, kNoId);
  s.similarity.resize(group);
  for (std::size_t g = 0; g < group; ++g) {
    s.members.clear();
    for (const Ranked c : nearest_clusters(g, probes, s)) {
      const std::uint32_t first = parts_.cluster_offsets[id_of(c)],
                          last = parts_.cluster_offsets[id_of(c) + 1];
      for (std::uint32_t i = first; i < last; ++i) s.members.push_back(i);
    }
    s.scores.resize(s.members.size());
    kernels().score_codes(
        {parts_.codes.data(), parts_.scales.data(), s.members.data(), s.members.size()},
        tile_of(s.encoded, g, 1), {s.scores.data(), s.members.size()});
    best_of(s.scores.data(), s.members.size(), count, s.ranked);
    s.similarity[g] = similarity(s.ranked, s.projected.data() + g * dim(), dim());
    for (std::size_t i = 0; i < s.ranked.size(); ++i)
      s.near[g * count + i] = s.members[id_of(s.ranked[i])];
  }
  return s.near;
}

void Router::prefetch_list(std::uint32_t query) const noexcept {
  constexpr std::uint32_t kPerLine = 64 / sizeof(std::uint16_t);
  for (std::uint32_t i = parts_.list_offsets[query]; i < parts_.list_offsets[query + 1];
       i += kPerLine) {
    __builtin_prefetch(&parts_.gaps[i]);
  }
}

void Router::append_list(std::uint32_t query, std::vector<Id>& out) const {
  const std::uint32_t first = parts_.list_offsets[query], last = parts_.list_offsets[query + 1];
  const std::size_t before = out.size();
  out.resize(before + last - first);
  Id* next = out.data() + before;
  Id id = 0;
  for (std::uint32_t i = first; i < last; ++i) {
    const std::uint16_t gap = parts_.gaps[i];
    id += gap;
    *next = id;
    next += gap != kFullGap ? 1 : 0;
  }
  out.resize(static_cast<std::size_t>(next - out.data()));
}

std::size_t Router::bytes() const noexcept {
  return parts_.query_map.bytes() + parts_.centroids.bytes() + parts_.centroid_scales.bytes() +
         parts_.cluster_offsets.bytes() + parts_.codes.bytes() + parts_.scales.bytes() +
         parts_.list_offsets.bytes() + parts_.gaps.bytes();
}

Router Router::from_parts(Parts parts, std::size_t n) {
  const std::size_t cols = code_cols(parts.query_map.rows());
  const std::size_t queries = parts.scales.size();
  const std::size_t clusters = parts.centroid_scales.size();
  check(parts.query_map.dtype() == Dtype::f16 && parts.query_map.rows() > 0,
        "the query map is wrong");
  check(clusters > 0 && queries > 0, "no queries");
  check(parts.centroids.size() == clusters * cols, "centroids do not match the query map");
  check(parts.codes.size() == queries * cols, "codes do not match the query map");
  check_offsets(parts.cluster_offsets, clusters, queries);
  check_offsets(parts.list_offsets, queries, parts.gaps.size());
  check_scales(parts.centroid_scales);
  check_scales(parts.scales);
  Router router;
  router.parts_ = std::move(parts);
  std::vector<Id> list;
  for (std::size_t q = 0; q < queries; ++q) {
    list.clear();
    router.append_list(static_cast<std::uint32_t>(q), list);
    for (const Id id : list) check(id < n, "a list names a key out of range");
  }
  return router;
}

}  // namespace keyseek
