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

/// Searches with the given dials; params are valid for the space. At least `least` keys are
/// scanned, where max_scanned allows it: tuning sees what the dials alone find.
void search_projection(const SearchSpace& space, MatrixView<float> queries,
                       const SearchParams& params, const Dials& dials,
                       SearchScratch::State& scratch, Hits& hits, std::size_t least);

/// Takes the keys to start from, the previous hits', into the scratch, and the queries as codes are
/// to see them; then makes `hits` (which may be the previous ones) [G, k] with nothing found.
void begin_step(const KeyStore& store, MatrixView<float> queries, const SearchParams& params,
                SearchScratch::State& scratch, Hits& hits);

/// Scores what is in the pools of the scratch again, in stored precision, and fills `hits` with the
/// k best of each query, dropping what `beta` excludes.
void finish_step(AnyMatrixView keys, MatrixView<float> queries, const SearchParams& params,
                 SearchScratch::State& scratch, Hits& hits);

}  // namespace keyseek
