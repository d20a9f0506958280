#include "decode/head_index.hpp"

#include "base/fail.hpp"

namespace keyseek {
namespace {

/// A caller's search is not ours: what it gives is checked before anything is read by it.
void require_hits(const Hits& hits, std::size_t group, std::size_t k) {
  require(hits.group == group, "the caller's search gave hits of {} queries, asked were {}",
          hits.group, group);
  require(hits.ids.size() == group * hits.k && hits.scores.size() == group * hits.k &&
              hits.count.size() == group,
          "the caller's search gave {} ids, {} scores and {} counts for {} queries of k = {}",
          hits.ids.size(), hits.scores.size(), hits.count.size(), group, hits.k);
  for (const std::size_t count : hits.count)
    require(count <= hits.k && count <= k, "the caller's search gave {} keys, asked were {}", count,
            k);
}

}  // namespace

void search_index(const HeadIndex& index, const HeadPlan& plan, MatrixView<float> queries,
                  bool scan_novel, const Hits* previous, SearchScratch& scratch, Hits& hits) {
  if (plan.retriever == Retriever::custom) {
    hits.stats = {};
    index.custom(queries, plan.stop.k, hits);
    require_hits(hits, queries.rows, plan.stop.k);
    return;
  }
  SearchParams params = {.k = plan.stop.k, .scan_novel = scan_novel, .previous = previous};
  if (plan.retriever == Retriever::flat) {
    index.flat->search(queries, params, scratch, hits);
    return;
  }
  if (plan.retriever == Retriever::sketch) {
    index.sketch->search(queries, params, scratch, hits);
    return;
  }
  params.target_recall = plan.target_recall;
  index.projection->search(queries, params, scratch, hits);
}

}  // namespace keyseek
