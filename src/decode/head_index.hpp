/// Search of a head's index, whichever it is.
#pragma once

#include "keyseek/decode.hpp"

namespace keyseek {

/// The kind of index that a plan with this retriever searches, if any.
[[nodiscard]] std::optional<IndexKind> index_kind_of(Retriever retriever) noexcept;

/// Up to plan.stop.k keys per query; the index that plan.retriever names must be there.
/// `previous` may be null or `hits` itself.
void search_index(const HeadIndex& index, const HeadPlan& plan, MatrixView<float> queries,
                  bool scan_novel, const Hits* previous, SearchScratch& scratch, Hits& hits);

}  // namespace keyseek
