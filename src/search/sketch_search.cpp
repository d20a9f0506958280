/// A scan of all sketches, exact scores of the best by them.
#include "search/sketch_search.hpp"

#include <cmath>

#include "score/code_tile.hpp"
#include "score/rows.hpp"
#include "search/block_scan.hpp"
#include "search/known.hpp"
#include "search/scratch.hpp"
#include "search/step.hpp"

namespace keyseek {
namespace {

// Blocks whose keys are scored both ways, to see how far the sketch is off for a query.
constexpr std::size_t kSampledBlocks = 4;
constexpr float kDeviations = 3.0F;

/// Exact scores of the sampled blocks' keys for all queries.
void score_sample(const KeyStore& store, MatrixView<float> queries, SearchScratch::State& s) {
  constexpr std::size_t kBlock = KeyStore::kBlock;
  const std::size_t blocks = (store.size() + kBlock - 1) / kBlock;
  for (std::size_t b = 0; b < kSampledBlocks; ++b) {
    const std::size_t first = b * blocks / kSampledBlocks * kBlock;
    for (std::size_t i = first; i < std::min(first + kBlock, store.size()); ++i)
      s.fresh.ids.push_back(static_cast<Id>(i));
  }
  s.fresh.scores.resize(s.fresh.ids.size() * queries.rows);
  score_rows(rows_of(store.stored(), s.fresh.ids), queries, s.fresh.scores.data());
}

/// Standard deviation of the sketch's scores for query g of `group`, on the sample.
float deviation(const Sketch& sketch, std::size_t g, std::size_t group, SearchScratch::State& s) {
  constexpr std::size_t kBlock = KeyStore::kBlock;
  const float all = kNothing;
  Id ids[kBlock];
  float rough[kBlock];
  double power = 0;
  for (std::size_t at = 0; at < s.fresh.ids.size();) {
    const std::size_t block = s.fresh.ids[at] / kBlock;
    std::size_t count = 0;
    kernels().scan_half_blocks({sketch.codes(), sketch.scales(), block, block + 1},
                               tile_of(s.encoded, g, 1), {ids, rough, kBlock, &all, &count});
    for (std::size_t i = 0; i < count; ++i) {
      const std::size_t row = at + ids[i] - s.fresh.ids[at];
      const double off =
          double{s.fresh.scores[row * group + g]} - double{s.encoded.offset[g]} - double{rough[i]};
      power += off * off;
    }
    at += std::min(kBlock, sketch.size() - block * kBlock);
  }
  return static_cast<float>(std::sqrt(power / static_cast<double>(s.fresh.ids.size())));
}

/// Scores by the sketch that keys better than the k-th best of the previous step's keys will hardly
/// be below; -infinity without enough of them.
void set_thresholds(const KeyStore& store, const Sketch& sketch, MatrixView<float> queries,
                    std::size_t k, SearchScratch::State& s) {
  const std::size_t group = queries.rows, pool = sketch.pool(k);
  const bool warm = s.known.ids.size() >= k;
  s.fresh.ids.clear();
  if (warm) score_sample(store, queries, s);
  for (std::size_t g = 0; g < group; ++g) {
    float threshold = kNothing;
    if (warm) {
      const float least = kth_of_known(g, group, k, s) - s.encoded.offset[g];
      // The next smaller number: keys that are exactly as good count.
      threshold = std::nextafter(least - kDeviations * deviation(sketch, g, group, s), kNothing);
    }
    s.pools[g].reset(pool, threshold, s.allowed);
  }
}

}  // namespace

void search_sketch(const KeyStore& store, const Sketch& sketch, MatrixView<float> queries,
                   const SearchParams& params, SearchScratch::State& s, Hits& hits) {
  sketch.encode_queries(s.asked, s.encoded, s.scores);
  score_previous(store, queries, s);
  set_thresholds(store, sketch, queries, params.k, s);
  const std::size_t sampled = s.fresh.ids.size();
  each_tile(queries.rows, [&](std::size_t first, std::size_t tile) {
    scan_blocks(blocks_of(sketch), tile_of(s.encoded, first, tile), s.pools.data() + first,
                s.blocks);
  });
  const AnyMatrixView keys = store.stored();
  finish_step(keys, queries, params, s, hits);
  hits.stats.sketched = sketch.size();
  hits.stats.reranked += s.known.ids.size();
  hits.stats.bytes_read = sketch.size() * (sketch.code_bytes() + sizeof(float)) +
                          (hits.stats.reranked + sampled) * keys.row_bytes();
}

}  // namespace keyseek
