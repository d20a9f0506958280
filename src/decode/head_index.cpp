#include "decode/head_index.hpp"

namespace keyseek {
void search_index(const HeadIndex& index, const HeadPlan& plan, MatrixView<float> queries,
                  bool scan_novel, const Hits* previous, SearchScratch& scratch, Hits& hits) {
  if (plan.retriever == Retriever::custom) {
    hits = {};
    index.custom(queries, plan.stop.k, hits);
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
