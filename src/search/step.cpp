/// What a step checks and prepares before it searches, and how it ends in exact scores.
#include "search/step.hpp"

#include <limits>
#include <numeric>

#include "base/fail.hpp"
#include "score/kernels.hpp"
#include "score/range.hpp"
#include "search/scratch.hpp"

namespace keyseek {

void require_step(MatrixView<float> queries, const SearchParams& params, const KeyStore& store) {
  params.validate();
  require(queries.rows >= 1 && queries.rows <= kMaxGroup,
          "queries has {} rows, a step holds 1 to {}", queries.rows, kMaxGroup);
  require(queries.cols == store.dim(), "queries have dimension {}, the index has {}", queries.cols,
          store.dim());
  require(params.k <= store.size(), "k is {}, but there are only {} keys", params.k, store.size());
  require_range(AnyMatrixView::of(queries), "queries");
  require_products(queries, store.longest(), "queries");
}

void begin_step(const KeyStore& store, MatrixView<float> queries, const SearchParams& params,
                SearchScratch::State& scratch, Hits& hits) {
  const std::size_t n = store.size(), group = queries.rows, k = params.k;
  hits.ids.reserve(group * k);
  hits.scores.reserve(group * k);
  hits.count.reserve(group);
  scratch.previous.clear();
  scratch.asked = in_range(queries, store.longest(), scratch.moved);
  for (std::size_t g = 0; g < group && scratch.previous.empty(); ++g) {
    if (largest_magnitude(AnyMatrixView::of(queries.slice(g, 1))) > 0.0F) continue;
    // A zero query sees all keys alike, so its best are the first: every index meets them.
    scratch.previous.resize(params.k);
    std::iota(scratch.previous.begin(), scratch.previous.end(), Id{0});
  }
  if (params.previous != nullptr) {
    for (std::size_t g = 0; g < params.previous->group; ++g) {
      for (const Id key : params.previous->row_ids(g)) {
        // The hits may come from an index that held more keys.
        if (key < n) scratch.previous.push_back(key);
      }
    }
  }
  if (scratch.pools.size() < group) scratch.pools.resize(group);
  // From here on nothing throws: hits that are half made would crash who starts from them.
  hits.group = group;
  hits.k = k;
  hits.ids.assign(group * k, kNoId);
  hits.scores.assign(group * k, -std::numeric_limits<float>::infinity());
  hits.count.assign(group, 0);
  hits.stats = {};
}

void finish_step(AnyMatrixView keys, MatrixView<float> queries, const SearchParams& params,
                 SearchScratch::State& scratch, Hits& hits) {
  for (std::size_t g = 0; g < queries.rows; ++g) {
    Pool& pool = scratch.pools[g];
    pool.shrink();
    std::vector<Ranked>& best = pool.items();
    hits.stats.reranked += best.size();
    rerank(keys, queries.row(g), params.k, best, scratch.rerank);
    std::size_t count = 0;
    for (const Ranked item : best) {
      if (params.beta && score_of(item) < score_of(best.front()) - *params.beta) break;
      hits.ids[g * hits.k + count] = id_of(item);
      hits.scores[g * hits.k + count] = score_of(item);
      ++count;
    }
    hits.count[g] = count;
  }
}

}  // namespace keyseek
