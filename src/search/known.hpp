/// What a step knows before it looks: the exact scores of the keys that the previous step found.
#pragma once

#include "keyseek/key_store.hpp"
#include "search/scratch.hpp"

namespace keyseek {

/// Scores the keys in `known` for all queries.
void score_known(const KeyStore& store, MatrixView<float> queries, SearchScratch::State& s);

/// Scores the previous step's keys for all queries, once, into `known`, and sets every floor to
/// nothing.
void score_previous(const KeyStore& store, MatrixView<float> queries, SearchScratch::State& s);

/// The k-th best score of query g among what is known, which becomes its floor; -infinity where
/// that is fewer than k.
[[nodiscard]] float kth_of_known(std::size_t g, std::size_t group, std::size_t k,
                                 SearchScratch::State& s);

}  // namespace keyseek
