/// Search of a head's index, whichever it is.
#pragma once

#include "keyseek/decode.hpp"

namespace keyseek {

/// Up to plan.stop.k keys per query; the index that plan.retriever names must be there.
/// `previous` may be null or `hits` itself.
void search_index(const HeadIndex& index, const HeadPlan& plan, MatrixView<float> queries,
                  bool scan_novel, const Hits* previous, SearchScratch& scratch, Hits& hits);

}  // namespace keyseek
