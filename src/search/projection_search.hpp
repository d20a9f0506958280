/// Joint best-first search over key store, graph and router.
#pragma once

#include "keyseek/graph.hpp"
#include "keyseek/key_store.hpp"
#include "keyseek/router.hpp"
#include "keyseek/search.hpp"

namespace keyseek {

/// The parts of an index that a search reads.
struct SearchSpace {
  const KeyStore& store;  ///< in rows
  const Graph& graph;
  const Router& router;  ///< may be empty
};

/// Searches a step that begin_step began, with the given dials. At least `least` keys are scanned,
/// where max_scanned allows it: tuning sees what the dials alone find.
void search_projection(const SearchSpace& space, MatrixView<float> queries,
                       const SearchParams& params, const Dials& dials,
                       SearchScratch::State& scratch, Hits& hits, std::size_t least);

}  // namespace keyseek
