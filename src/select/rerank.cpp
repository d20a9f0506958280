/// Scores candidates exactly and puts the best of them in order.
#include "select/rerank.hpp"

#include <algorithm>
#include <functional>

#include "score/rows.hpp"

namespace keyseek {

void keep_best(std::vector<Ranked>& items, std::size_t k) {
  constexpr std::size_t kShort = 256;  // up to here counting beats sorting
  if (items.size() > k && k > 0) {
    Ranked bar = 0;
    items.resize(kernels().keep_top(items.data(), items.size(), k, k + k / 16, &bar));
  }
  const std::size_t n = items.size();
  if (n <= kShort) {
    std::uint32_t rank[kShort];
    Ranked sorted[kShort];
    kernels().rank_descending(items.data(), n, rank);
    for (std::size_t i = 0; i < n; ++i) sorted[rank[i]] = items[i];
    items.assign(sorted, sorted + std::min(n, k));
    return;
  }
  std::sort(items.begin(), items.end(), std::greater<>());
  items.resize(std::min(n, k));
}

void rerank(AnyMatrixView keys, const float* query, std::size_t k, std::vector<Ranked>& items,
            RerankScratch& scratch) {
  scratch.ids.resize(items.size());
  scratch.scores.resize(items.size());
  for (std::size_t i = 0; i < items.size(); ++i) scratch.ids[i] = id_of(items[i]);
  score_rows(rows_of(keys, scratch.ids), {query, 1, keys.cols}, scratch.scores.data());
  for (std::size_t i = 0; i < items.size(); ++i)
    items[i] = ranked(scratch.scores[i], scratch.ids[i]);
  keep_best(items, k);
}

}  // namespace keyseek
