/// Search of few keys that may be found: each is scored exactly.
#pragma once

#include "keyseek/key_store.hpp"
#include "keyseek/search.hpp"

namespace keyseek {

/// Whether so few keys may be found that scoring each of them costs no more than a search.
[[nodiscard]] bool are_few(const AllowedKeys& allowed, std::size_t keys);

/// Searches a step that begin_step began, whose params.allowed is given, in a store of any layout.
void search_allowed(const KeyStore& store, MatrixView<float> queries, const SearchParams& params,
                    SearchScratch::State& scratch, Hits& hits);

}  // namespace keyseek
