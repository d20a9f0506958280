/// The scratch memory of searches from Python: one per thread, kept for the next search.
#pragma once

#include <nanobind/nanobind.h>

#include "gil.hpp"
#include "keyseek/search.hpp"

namespace nb = nanobind;

namespace keyseek::python {

[[nodiscard]] inline SearchScratch& thread_scratch() {
  thread_local SearchScratch scratch;
  return scratch;
}

/// Searches one step with the GIL released; the caller has borrowed `queries`.
template <class Index>
[[nodiscard]] Hits search_step(const Index& index, MatrixView<float> queries,
                               const SearchParams& params) {
  Hits hits;
  const GilReleased released;
  index.search(queries, params, thread_scratch(), hits);
  return hits;
}

}  // namespace keyseek::python
