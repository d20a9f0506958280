/// Exact scores of all keys that may be found, where they are few.
#include "search/allowed_search.hpp"

#include "search/known.hpp"
#include "search/scratch.hpp"
#include "search/step.hpp"

namespace keyseek {

bool are_few(const AllowedKeys& allowed, std::size_t keys) {
  // Stored keys are two to four times as large as codes, and are read one here, one there.
  constexpr std::size_t kFew = 8;
  return allowed.count() <= keys / kFew;
}

void search_allowed(const KeyStore& store, MatrixView<float> queries, const SearchParams& params,
                    SearchScratch::State& s, Hits& hits) {
  params.allowed->first(params.allowed->count(), s.known.ids);
  score_known(store, queries, s);
  for (std::size_t g = 0; g < queries.rows; ++g) s.pools[g].reset(0);
  const AnyMatrixView keys = store.stored();
  finish_step(keys, queries, params, s, hits);
  hits.stats.reranked = s.known.ids.size();
  hits.stats.bytes_read = hits.stats.reranked * keys.row_bytes();
}

}  // namespace keyseek
