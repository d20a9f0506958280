/// The beginning and the end that the steps of all kinds of search have in common.
#pragma once

#include "keyseek/key_store.hpp"
#include "keyseek/search.hpp"

namespace keyseek {

/// Throws Error(invalid_argument) unless a step of these queries can be searched.
void require_step(MatrixView<float> queries, const SearchParams& params, const KeyStore& store);

/// Takes the keys to start from, the previous hits', into the scratch, and the queries as codes are
/// to see them; then makes `hits` (which may be the previous ones) [G, k] with nothing found.
void begin_step(const KeyStore& store, MatrixView<float> queries, const SearchParams& params,
                SearchScratch::State& scratch, Hits& hits);

/// Scores what is in the pools of the scratch again, in stored precision, and fills `hits` with the
/// k best of each query, dropping what `beta` excludes.
void finish_step(AnyMatrixView keys, MatrixView<float> queries, const SearchParams& params,
                 SearchScratch::State& scratch, Hits& hits);

}  // namespace keyseek
