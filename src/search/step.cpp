/// What a step checks and prepares before it searches, and how it ends in exact scores.
#include "search/step.hpp"

#include <algorithm>
#include <numeric>

#include "base/fail.hpp"
#include "score/kernels.hpp"
#include "score/range.hpp"
#include "score/rows.hpp"
#include "search/scratch.hpp"
#include "select/rerank.hpp"

namespace keyseek {

void require_step(MatrixView<float> queries, const SearchParams& params, const KeyStore& store) {
  params.validate();
  require(queries.rows >= 1 && queries.rows <= kMaxGroup,
          "queries has {} rows, a step holds 1 to {}", queries.rows, kMaxGroup);
  require(queries.cols == store.dim(), "queries have dimension {}, the index has {}", queries.cols,
          store.dim());
  require(params.k <= store.size(), "k is {}, but there are only {} keys", params.k, store.size());
  if (params.allowed != nullptr) {
    require(params.allowed->size() <= store.size(), "allowed is of {} keys, but there are {}",
            params.allowed->size(), store.size());
  }
  require_range(AnyMatrixView::of(queries), "queries");
  require_products(queries, store.longest(), "queries");
}

void begin_step(const KeyStore& store, MatrixView<float> queries, const SearchParams& params,
                SearchScratch::State& scratch, Hits& hits) {
  const std::size_t n = store.size(), group = queries.rows, k = params.k;
  hits.ids.reserve(group * k);
  hits.scores.reserve(group * k);
  hits.count.reserve(group);
  scratch.allowed = params.allowed;
  scratch.previous.clear();
  scratch.known.ids.clear();
  scratch.floor.clear();
  scratch.asked = in_range(queries, store.longest(), scratch.moved);
  for (std::size_t g = 0; g < group && scratch.previous.empty(); ++g) {
    if (largest_magnitude(AnyMatrixView::of(queries.slice(g, 1))) > 0.0F) continue;
    // A zero query sees all keys alike, so its best are the first: every index meets them.
    if (params.allowed != nullptr) {
      params.allowed->first(params.k, scratch.previous);
      break;
    }
    scratch.previous.resize(params.k);
    std::iota(scratch.previous.begin(), scratch.previous.end(), Id{0});
  }
  if (params.previous != nullptr) {
    for (std::size_t g = 0; g < params.previous->group; ++g) {
      for (const Id key : params.previous->row_ids(g)) {
        // The hits may come from an index that held more keys, or from a search for others.
        if (key < n && (params.allowed == nullptr || params.allowed->has(key)))
          scratch.previous.push_back(key);
      }
    }
  }
  if (scratch.pools.size() < group) scratch.pools.resize(group);
  // From here on nothing throws: hits that are half made would crash who starts from them.
  hits.group = group;
  hits.k = k;
  hits.ids.assign(group * k, kNoId);
  hits.scores.assign(group * k, kNothing);
  hits.count.assign(group, 0);
  hits.stats = {};
}

namespace {

// Queries whose candidates are scored together: as many as share the keys of a KV head.
constexpr std::size_t kTogether = 8;
// With fewer queries, and nothing known that need not be scored again, too little is shared to look
// for.
constexpr std::size_t kWorthGathering = 4;

/// The end of a step: what it reads, what it works in, what it fills.
struct Ending {
  AnyMatrixView keys;
  MatrixView<float> queries;
  const SearchParams& params;
  SearchScratch::State& s;
  Hits& hits;

  /// Queries [first, first + count).
  void finish(std::size_t first, std::size_t count) {
    if ((count >= kWorthGathering || !s.known.ids.empty()) && gather(first, count)) {
      s.fresh.scores.resize(s.fresh.ids.size() * count);
      score_rows(rows_of(keys, s.fresh.ids), queries.slice(first, count), s.fresh.scores.data());
      hits.stats.reranked += s.fresh.ids.size();
      for (std::size_t g = 0; g < count; ++g) {
        s.best.clear();
        const float floor = s.floor.empty() ? kNothing : s.floor[first + g];
        take(s.known, first + g, queries.rows, floor);
        take(s.fresh, g, count, floor);
        fill(first + g);
      }
      return;
    }
    for (std::size_t g = first; g < first + count; ++g) finish_alone(g);
  }

 private:
  /// Puts what any of the queries' pools has and is not known into `fresh`; whether they share so
  /// much that each of these keys had better be scored for all of them.
  bool gather(std::size_t first, std::size_t count) {
    std::size_t wanted = 0;
    for (std::size_t g = first; g < first + count; ++g) {
      s.pools[g].shrink();
      wanted += s.pools[g].items().size();
    }
    s.fresh.ids.clear();
    s.fresh.ids.reserve(wanted);
    s.members.resize(keys.rows);  // nothing throws from here to the end of drain()
    for (std::size_t g = first; g < first + count; ++g)
      for (const Ranked item : s.pools[g].items()) s.members.add(id_of(item));
    s.members.remove(s.known.ids);
    s.members.drain(s.fresh.ids);
    return 2 * s.fresh.ids.size() <= wanted;
  }

  /// A query by itself: the keys of its pool are scored for it alone.
  void finish_alone(std::size_t g) {
    Pool& pool = s.pools[g];
    pool.shrink();
    const std::vector<Ranked>& items = pool.items();
    s.fresh.ids.resize(items.size());
    std::transform(items.begin(), items.end(), s.fresh.ids.begin(), id_of);
    s.fresh.scores.resize(items.size());
    score_rows(rows_of(keys, s.fresh.ids), queries.slice(g, 1), s.fresh.scores.data());
    hits.stats.reranked += items.size();
    s.best.clear();
    take(s.fresh, 0, 1, kNothing);
    fill(g);
  }

  /// Adds the keys to the best, with their scores of one query of `count`, but for those below
  /// `floor`. Without branches: which are cannot be predicted.
  void take(const ExactScores& scored, std::size_t query, std::size_t count, float floor) {
    std::size_t taken = s.best.size();
    s.best.resize(taken + scored.ids.size());
    for (std::size_t i = 0; i < scored.ids.size(); ++i) {
      const float score = scored.scores[i * count + query];
      s.best[taken] = ranked(score, scored.ids[i]);
      taken += score >= floor ? 1U : 0U;
    }
    s.best.resize(taken);
  }

  void fill(std::size_t g) {
    keep_best(s.best, params.k);
    std::size_t count = 0;
    for (const Ranked item : s.best) {
      if (params.beta && score_of(item) < score_of(s.best.front()) - *params.beta) break;
      hits.ids[g * hits.k + count] = id_of(item);
      hits.scores[g * hits.k + count] = score_of(item);
      ++count;
    }
    hits.count[g] = count;
  }
};

}  // namespace

void finish_step(AnyMatrixView keys, MatrixView<float> queries, const SearchParams& params,
                 SearchScratch::State& scratch, Hits& hits) {
  Ending ending = {keys, queries, params, scratch, hits};
  for (std::size_t first = 0; first < queries.rows; first += kTogether)
    ending.finish(first, std::min(kTogether, queries.rows - first));
}

}  // namespace keyseek
