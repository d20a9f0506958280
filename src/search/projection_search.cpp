/// Seeds, links in rounds, exact scores: the search of a projection index.
#include "search/projection_search.hpp"

#include <algorithm>
#include <functional>
#include <numeric>

#include "score/code_tile.hpp"
#include "score/kernels.hpp"
#include "search/pools.hpp"
#include "search/scratch.hpp"
#include "search/step.hpp"

namespace keyseek {
namespace {

// Keys scored at once: enough to hide memory latency, few enough that the thresholds they
// raise spare the next batch.
constexpr std::size_t kBatch = 256;

/// One search: what it reads, what it works in, what it counts.
class ProjectionSearch {
 public:
  ProjectionSearch(const SearchSpace& space, MatrixView<float> queries, const SearchParams& params,
                   const Dials& dials, const ProjectionSearchParams& options,
                   SearchScratch::State& scratch, Hits& hits)
      : space_(space),
        queries_(queries),
        params_(params),
        dials_(dials),
        scan_novel_(options.scan_novel),
        s_(scratch),
        hits_(hits),
        group_(queries.rows),
        top_count_(scratch.top_count) {
    const std::size_t n = space.store.size();
    budget_ = std::min(options.max_scanned, n);
    s_.novel.assign(group_, 0);
    pool_ = std::min(n, std::max(params.k, projection_pool(params.k, space.store.dim(), dials)));
    s_.visited.resize(n);
    s_.expanded.resize(n);
    if (s_.top.size() < group_) s_.top.resize(group_);
    s_.top_count.resize(group_);
    s_.top_threshold.resize(group_);
    for (std::size_t g = 0; g < group_; ++g) {
      s_.pools[g].reset(pool_, kNothing, s_.allowed);
      s_.top_count[g] = 0;
      s_.top_threshold[g] = kNothing;
    }
    space.store.encode_queries(s_.asked, s_.encoded);
  }

  /// The scratch is left clean, also by a search that fails.
  ~ProjectionSearch() {
    s_.visited.clear({s_.scanned.data(), scanned_});
    s_.expanded.clear({s_.expansions.data(), expanded_});
  }
  ProjectionSearch(const ProjectionSearch&) = delete;
  ProjectionSearch& operator=(const ProjectionSearch&) = delete;

  void run(std::size_t least) {
    seed_from_previous();
    seed_from_router();
    if (scanned_ == 0) visit(space_.graph.entry_points());
    find_novel();
    if (novel_ < group_) follow();
    if (novel_ > 0) scan_for_novel();
    if (novel_ < group_ && found_too_few(least)) scan_more(least);
    finish();
  }

 private:
  /// Marks keys as visited and queues the fresh ones for scoring.
  void visit(std::span<const Id> keys) {
    if (s_.scanned.size() < scanned_ + keys.size()) s_.scanned.resize(2 * (scanned_ + keys.size()));
    Id* fresh = s_.scanned.data() + scanned_;
    const std::size_t added = s_.visited.add(keys, fresh);
    const std::size_t allowed = std::min(added, budget_ - scanned_);
    if (allowed < added) s_.visited.clear({fresh + allowed, added - allowed});
    scanned_ += allowed;
  }

  void seed_from_previous() { visit(s_.previous); }

  void seed_from_router() {
    const Router& router = space_.router;
    if (dials_.lists == 0 || router.empty()) return;
    // Dials of a file or a caller may ask for more than there is.
    const std::size_t lists = std::min<std::size_t>(dials_.lists, router.queries());
    const auto near = router.nearest(s_.asked, dials_.probes, lists, s_.route);
    for (const std::uint32_t query : near) {
      if (query != kNoId) router.prefetch_list(query);
    }
    for (const std::uint32_t query : near) {
      if (query == kNoId) continue;
      s_.list.clear();
      router.append_list(query, s_.list);
      hits_.stats.bytes_read += router.list_bytes(query);
      visit(s_.list);
    }
  }

  /// Queries unlike all training queries: neither lists nor links were made for them.
  void find_novel() {
    if (!scan_novel_ || dials_.lists == 0 || space_.router.empty()) return;
    if (budget_ < space_.store.size()) return;
    for (std::size_t g = 0; g < group_; ++g) {
      s_.novel[g] = s_.route.similarity[g] < dials_.novel ? 1 : 0;
      novel_ += s_.novel[g];
    }
  }

  void follow() {
    score_new();
    while (dials_.expand > 0 && choose_frontier()) {
      follow_links();
      score_new();
    }
  }

  /// All keys, for the novel queries alone: the others have found theirs.
  void scan_for_novel() {
    const std::size_t n = space_.store.size();
    s_.scores.resize(CodeTile::kMaxTile * kBatch);
    s_.selected.resize(kBatch);
    s_.list.resize(kBatch);
    for (std::size_t first = 0; first < n; first += kBatch) {
      const std::size_t count = std::min(kBatch, n - first);
      std::iota(s_.list.begin(), s_.list.end(), static_cast<Id>(first));
      for (std::size_t g = 0; g < group_; ++g) {
        if (s_.novel[g] == 0) continue;
        kernels().score_codes(code_rows(space_.store, {s_.list.data(), count}),
                              tile_of(s_.encoded, g, 1), {s_.scores.data(), kBatch});
        keep(g, s_.list.data(), s_.scores.data(), count);
      }
    }
    hits_.stats.bytes_read += n * (space_.store.code_cols() + sizeof(float));
  }

  [[nodiscard]] bool found_too_few(std::size_t least) const {
    if (s_.allowed == nullptr || least == 0) return scanned_ < std::min(least, budget_);
    const std::size_t wanted = std::min(least, s_.allowed->count());
    return scanned_ < budget_ &&
           std::any_of(s_.pools.begin(), s_.pools.begin() + static_cast<std::ptrdiff_t>(group_),
                       [&](const Pool& pool) { return pool.items().size() < wanted; });
  }

  /// Where lists and links lead to fewer keys than are wanted: any others, so that there are.
  void scan_more(std::size_t least) {
    if (s_.allowed != nullptr) {
      s_.allowed->first(least, s_.list);
    } else {
      s_.list.resize(least);
      std::iota(s_.list.begin(), s_.list.end(), Id{0});
    }
    visit(s_.list);
    score_new();
  }

  /// Scores what was visited since the last call and sorts it into the pools.
  void score_new() {
    s_.scores.resize(CodeTile::kMaxTile * kBatch);
    s_.selected.resize(kBatch);
    while (scored_ < scanned_) {
      const std::size_t count = std::min(kBatch, scanned_ - scored_);
      const Id* ids = s_.scanned.data() + scored_;
      each_tile(group_, [&](std::size_t first, std::size_t tile) {
        kernels().score_codes(code_rows(space_.store, {ids, count}),
                              tile_of(s_.encoded, first, tile), {s_.scores.data(), kBatch});
        for (std::size_t g = 0; g < tile; ++g) {
          if (s_.novel[first + g] == 0) keep(first + g, ids, s_.scores.data() + g * kBatch, count);
        }
      });
      scored_ += count;
    }
  }

  void keep(std::size_t g, const Id* ids, const float* scores, std::size_t count) {
    Pool& pool = s_.pools[g];
    const std::size_t above =
        kernels().select_above(scores, count, pool.threshold(), s_.selected.data());
    if (above == 0) return;
    std::vector<Ranked>& top = s_.top[g];
    top.resize(top_count_[g] + above);
    Ranked* item = pool.add_room(above);
    Ranked* candidate = top.data() + top_count_[g];
    for (std::size_t i = 0; i < above; ++i) {
      const std::uint32_t j = s_.selected[i];
      item[i] = ranked(scores[j], ids[j]);
      *candidate = item[i];
      candidate += scores[j] > s_.top_threshold[g] ? 1 : 0;
    }
    top_count_[g] = static_cast<std::size_t>(candidate - top.data());
    pool.keep_allowed(above);
    pool.settle();
  }

  /// Of every query's best `expand` keys, those not expanded yet, behind s_.expansions.
  bool choose_frontier() {
    followed_ = expanded_;
    for (std::size_t g = 0; g < group_; ++g) {
      std::vector<Ranked>& top = s_.top[g];
      const std::size_t ranks = dials_.expand;
      Ranked bar = 0;
      top_count_[g] =
          kernels().keep_top(top.data(), top_count_[g], ranks, ranks + ranks / 16, &bar);
      if (bar > 0) s_.top_threshold[g] = score_of(bar);
      s_.list.resize(top_count_[g]);
      for (std::size_t i = 0; i < top_count_[g]; ++i) s_.list[i] = id_of(top[i]);
      if (s_.expansions.size() < expanded_ + s_.list.size())
        s_.expansions.resize(2 * (expanded_ + s_.list.size()));
      expanded_ += s_.expanded.add(s_.list, s_.expansions.data() + expanded_);
    }
    return expanded_ > followed_ && scanned_ < budget_;
  }

  void follow_links() {
    // A key's place in the graph, then its links, are asked for before they are read.
    constexpr std::size_t kPlaceAhead = 16, kLinksAhead = 8;
    const Graph& graph = space_.graph;
    for (std::size_t i = followed_; i < std::min(expanded_, followed_ + kPlaceAhead); ++i) {
      graph.prefetch_place(s_.expansions[i]);
    }
    for (std::size_t i = followed_; i < expanded_; ++i) {
      if (i + kPlaceAhead < expanded_) graph.prefetch_place(s_.expansions[i + kPlaceAhead]);
      if (i + kLinksAhead < expanded_) graph.prefetch_links(s_.expansions[i + kLinksAhead]);
      const auto neighbors = graph.neighbors(s_.expansions[i]);
      hits_.stats.bytes_read += neighbors.size_bytes() + 2 * sizeof(std::uint32_t);
      visit(neighbors);
    }
  }

  void finish() {
    const AnyMatrixView keys = space_.store.stored();
    finish_step(keys, queries_, params_, s_, hits_);
    hits_.stats.scanned = novel_ > 0 ? space_.store.size() : scanned_;
    hits_.stats.expanded = followed_;  // the last frontier is left when the budget is spent
    hits_.stats.bytes_read += scored_ * (space_.store.code_cols() + sizeof(float)) +
                              hits_.stats.reranked * keys.row_bytes();
  }

  const SearchSpace& space_;
  MatrixView<float> queries_;
  const SearchParams& params_;
  const Dials& dials_;
  bool scan_novel_;
  SearchScratch::State& s_;
  Hits& hits_;
  std::size_t group_;
  std::size_t budget_ = 0;
  std::size_t pool_ = 0;
  std::size_t scanned_ = 0;   ///< keys in s_.scanned
  std::size_t scored_ = 0;    ///< of them
  std::size_t expanded_ = 0;  ///< keys in s_.expansions
  std::size_t followed_ = 0;  ///< of them
  std::size_t novel_ = 0;     ///< queries
  std::vector<std::size_t>& top_count_;
};

}  // namespace

void search_projection(const SearchSpace& space, MatrixView<float> queries,
                       const SearchParams& params, const Dials& dials,
                       SearchScratch::State& scratch, Hits& hits, std::size_t least) {
  const ProjectionSearchParams options = params.projection.value_or(ProjectionSearchParams{});
  ProjectionSearch search(space, queries, params, dials, options, scratch, hits);
  search.run(least);
}

}  // namespace keyseek
