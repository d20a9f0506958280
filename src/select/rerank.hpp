/// Exact scores of a query's candidates, in stored precision.
#pragma once

#include <cstddef>
#include <vector>

#include "keyseek/key_store.hpp"
#include "select/ranked.hpp"

namespace keyseek {

/// Memory a rerank works in.
struct RerankScratch {
  std::vector<Id> ids;
  std::vector<float> scores;
};

/// Replaces the approximate scores of `items` by exact inner products with `query` [d],
/// and keeps the `k` best of them in order.
void rerank(AnyMatrixView keys, const float* query, std::size_t k, std::vector<Ranked>& items,
            RerankScratch& scratch);

/// Keeps the `k` best of `items`, which are distinct, in order.
void keep_best(std::vector<Ranked>& items, std::size_t k);

}  // namespace keyseek
