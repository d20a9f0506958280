/// A scan of all codes, with a first threshold from what the previous step found.
#include "search/flat_search.hpp"

#include <algorithm>
#include <cmath>

#include "score/code_tile.hpp"
#include "search/block_scan.hpp"
#include "search/known.hpp"
#include "search/pools.hpp"
#include "search/scratch.hpp"
#include "search/step.hpp"

namespace keyseek {
namespace {

/// Standard deviation of a score's rounding error for query g: both sides are rounded to
/// steps of one scale, uniformly.
float rounding_error(const KeyStore& store, const EncodedQueries& queries, std::size_t g,
                     float key_scale) {
  std::int64_t power = 0;
  const std::int8_t* codes = queries.codes.row(g);
  for (std::size_t j = 0; j < store.code_cols(); ++j) power += codes[j] * codes[j];
  // The keys' codes are about as large as the query's: both fill the same range.
  return queries.scale[g] * key_scale *
         static_cast<float>(std::sqrt(2.0 * static_cast<double>(power) / 12.0));
}

/// A score that at least k keys are known to exceed: the k-th best of the previous step's
/// keys, less what rounding may take from any key's. -infinity without enough of them.
float warm_threshold(const KeyStore& store, float largest_scale, std::size_t g, std::size_t group,
                     std::size_t k, SearchScratch::State& s) {
  constexpr float kDeviations = 4.0F;
  const float margin = kDeviations * rounding_error(store, s.encoded, g, largest_scale);
  // The next smaller number: keys that are exactly as good count.
  return std::nextafter(kth_of_known(g, group, k, s) - s.encoded.offset[g] - margin, kNothing);
}

}  // namespace

void search_flat(const KeyStore& store, float largest_scale, MatrixView<float> queries,
                 const SearchParams& params, SearchScratch::State& s, Hits& hits) {
  store.encode_queries(s.asked, s.encoded);
  score_previous(store, queries, s);
  const std::size_t pool = std::min(store.size(), untrained_pool(params.k));
  for (std::size_t g = 0; g < queries.rows; ++g) {
    s.pools[g].reset(pool, warm_threshold(store, largest_scale, g, queries.rows, params.k, s),
                     s.allowed);
  }
  each_tile(queries.rows, [&](std::size_t first, std::size_t tile) {
    scan_blocks(blocks_of(store), tile_of(s.encoded, first, tile), s.pools.data() + first,
                s.blocks);
  });
  for (std::size_t g = 0; g < queries.rows; ++g) {
    // Where f32 tells keys from another too badly for a threshold, it hides some of the k best.
    if (s.pools[g].items().size() >= params.k) continue;
    s.pools[g].reset(pool, kNothing, s.allowed);
    scan_blocks(blocks_of(store), tile_of(s.encoded, g, 1), &s.pools[g], s.blocks);
  }
  const AnyMatrixView keys = store.stored();
  finish_step(keys, queries, params, s, hits);
  hits.stats.scanned = store.size();
  hits.stats.reranked += s.known.ids.size();
  hits.stats.bytes_read =
      store.size() * (store.code_cols() + sizeof(float)) + hits.stats.reranked * keys.row_bytes();
}

}  // namespace keyseek
