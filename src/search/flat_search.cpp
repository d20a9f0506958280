/// A scan of all codes, with a first threshold from what the previous step found.
#include "search/flat_search.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

#include "score/code_tile.hpp"
#include "score/rows.hpp"
#include "search/block_scan.hpp"
#include "search/pools.hpp"
#include "search/scratch.hpp"
#include "search/step.hpp"

namespace keyseek {
namespace {

constexpr float kNothing = -std::numeric_limits<float>::infinity();

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

/// Scores what the previous step found for all queries, once.
void score_previous(const KeyStore& store, MatrixView<float> queries, SearchScratch::State& s) {
  s.known.ids.reserve(s.previous.size());
  s.members.resize(store.size());
  for (const Id id : s.previous) s.members.add(id);
  s.members.drain(s.known.ids);
  s.known.scores.resize(s.known.ids.size() * queries.rows);
  score_rows(rows_of(store.stored(), s.known.ids), queries, s.known.scores.data());
}

/// A score that at least k keys are known to exceed: the k-th best of the previous step's
/// keys, less what rounding may take from any key's. -infinity without enough of them.
float warm_threshold(const KeyStore& store, float largest_scale, std::size_t g, std::size_t group,
                     std::size_t k, SearchScratch::State& s) {
  const std::size_t n = s.known.ids.size();
  if (n < k) return kNothing;
  s.best.resize(n);
  for (std::size_t i = 0; i < n; ++i)
    s.best[i] = ranked(s.known.scores[i * group + g], s.known.ids[i]);
  Ranked bar = 0;
  s.best.resize(kernels().keep_top(s.best.data(), n, k, k + k / 16, &bar));
  const float least = score_of(*std::min_element(s.best.begin(), s.best.end()));
  s.floor[g] = least;
  constexpr float kDeviations = 4.0F;
  const float margin = kDeviations * rounding_error(store, s.encoded, g, largest_scale);
  // The next smaller number: keys that are exactly as good count.
  return std::nextafter(least - s.encoded.offset[g] - margin, kNothing);
}

}  // namespace

void search_flat(const KeyStore& store, float largest_scale, MatrixView<float> queries,
                 const SearchParams& params, SearchScratch::State& s, Hits& hits) {
  store.encode_queries(s.asked, s.encoded);
  // Scores of queries that were moved would say nothing about those that are asked.
  if (s.asked.data == queries.data) score_previous(store, queries, s);
  s.floor.assign(queries.rows, kNothing);
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
