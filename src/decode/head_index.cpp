/// Searches a head's indexed keys, by an index or by what the caller brought.
#include "decode/head_index.hpp"

namespace keyseek {

std::optional<IndexKind> index_kind_of(Retriever retriever) noexcept {
  switch (retriever) {
    case Retriever::flat:
      return IndexKind::flat;
    case Retriever::sketch:
      return IndexKind::sketch;
    case Retriever::projection:
      return IndexKind::projection;
    default:
      return {};
  }
}

void search_index(const HeadIndex& index, const HeadPlan& plan, MatrixView<float> queries,
                  bool scan_novel, const Hits* previous, SearchScratch& scratch, Hits& hits) {
  if (plan.retriever == Retriever::custom) {
    hits = {};
    index.custom(queries, plan.stop.k, hits);
    return;
  }
  SearchParams params = {.k = plan.stop.k, .previous = previous};
  if (plan.retriever == Retriever::projection)
    params.projection = {.target_recall = plan.target_recall, .scan_novel = scan_novel};
  index.index.search(queries, params, scratch, hits);
}

}  // namespace keyseek
