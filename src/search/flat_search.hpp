/// Search of every key by its codes.
#pragma once

#include "keyseek/key_store.hpp"
#include "keyseek/search.hpp"

namespace keyseek {

/// Searches a step that begin_step began. `store` is in blocks; `largest_scale` is of its codes.
void search_flat(const KeyStore& store, float largest_scale, MatrixView<float> queries,
                 const SearchParams& params, SearchScratch::State& scratch, Hits& hits);

}  // namespace keyseek
