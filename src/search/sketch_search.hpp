/// Search of every key by its sketch, and of the best of these by their codes.
#pragma once

#include "keyseek/key_store.hpp"
#include "keyseek/search.hpp"
#include "keyseek/sketch.hpp"

namespace keyseek {

/// Searches a step that begin_step began. `store` is in rows.
void search_sketch(const KeyStore& store, const Sketch& sketch, MatrixView<float> queries,
                   const SearchParams& params, SearchScratch::State& scratch, Hits& hits);

}  // namespace keyseek
