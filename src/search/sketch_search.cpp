/// A scan of all sketches, a second look at the best in 8 bits, exact scores of the best of these.
#include "search/sketch_search.hpp"

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>

#include "score/code_tile.hpp"
#include "score/kernels.hpp"
#include "search/block_scan.hpp"
#include "search/pools.hpp"
#include "search/scratch.hpp"
#include "search/step.hpp"

namespace keyseek {
namespace {

constexpr std::size_t kBatch = 256;  // keys scored at once
// Blocks whose keys are scored both ways, to see how far the sketch is off for a query.
constexpr std::size_t kSampledBlocks = 4;
constexpr float kDeviations = 4.0F;
constexpr float kNothing = -std::numeric_limits<float>::infinity();

/// One search: what it reads, what it works in, what it counts.
class SketchSearch {
 public:
  SketchSearch(const KeyStore& store, const Sketch& sketch, MatrixView<float> queries,
               const SearchParams& params, SearchScratch::State& scratch, Hits& hits)
      : store_(store),
        sketch_(sketch),
        queries_(queries),
        params_(params),
        s_(scratch),
        hits_(hits),
        group_(queries.rows),
        pool_(std::max(sketch.pool(params.k), trained_pool(params.k, store.dim()))) {
    store.encode_queries(s_.asked, s_.encoded);
    sketch.encode_queries(s_.asked, s_.sketched, s_.scores);
    const std::size_t pool = std::min(store.size(), trained_pool(params.k, store.dim()));
    for (std::size_t g = 0; g < group_; ++g) s_.pools[g].reset(pool, kNothing, s_.allowed);
    if (s_.candidates.size() < group_) s_.candidates.resize(group_);
    s_.visited.resize(store.size());
    s_.scores.resize(CodeTile::kMaxTile * kBatch);
    s_.selected.resize(kBatch);
  }

  /// The scratch is left clean, also by a search that fails.
  ~SketchSearch() { s_.visited.clear({s_.scanned.data(), scanned_}); }
  SketchSearch(const SketchSearch&) = delete;
  SketchSearch& operator=(const SketchSearch&) = delete;

  void run() {
    take(s_.previous);
    score_new();
    look_at_all();
    score_new();
    finish();
  }

 private:
  /// Queues the keys that are new for scoring.
  void take(std::span<const Id> keys) {
    if (s_.scanned.size() < scanned_ + keys.size()) s_.scanned.resize(2 * (scanned_ + keys.size()));
    scanned_ += s_.visited.add(keys, s_.scanned.data() + scanned_);
  }

  /// Scores what was taken since the last call for all queries, into their pools.
  void score_new() {
    for (; scored_ < scanned_; scored_ += std::min(kBatch, scanned_ - scored_)) {
      const Id* ids = s_.scanned.data() + scored_;
      const std::size_t batch = std::min(kBatch, scanned_ - scored_);
      each_tile(group_, [&](std::size_t first, std::size_t tile) {
        kernels().score_codes(code_rows(store_, {ids, batch}), tile_of(s_.encoded, first, tile),
                              {s_.scores.data(), kBatch});
        for (std::size_t g = 0; g < tile; ++g)
          keep(s_.pools[first + g], ids, s_.scores.data() + g * kBatch, batch);
      });
    }
  }

  void keep(Pool& pool, const Id* ids, const float* scores, std::size_t count) {
    const std::size_t above =
        kernels().select_above(scores, count, pool.threshold(), s_.selected.data());
    for (std::size_t i = 0; i < above; ++i) pool.add(scores[s_.selected[i]], ids[s_.selected[i]]);
    pool.settle();
  }

  /// Takes every query's best keys by the sketch.
  void look_at_all() {
    each_tile(group_, [&](std::size_t first, std::size_t tile) {
      const CodeTile queries = tile_of(s_.sketched, first, tile);
      for (std::size_t g = first; g < first + tile; ++g)
        s_.candidates[g].reset(pool_, threshold(g), s_.allowed);
      scan_blocks(blocks_of(sketch_), queries, s_.candidates.data() + first, s_.blocks);
    });
    for (std::size_t g = 0; g < group_; ++g) {
      const std::vector<Ranked>& items = s_.candidates[g].items();
      s_.list.resize(items.size());
      std::transform(items.begin(), items.end(), s_.list.begin(), id_of);
      take(s_.list);
    }
  }

  /// A score by the sketch that a key better than the k-th best of the previous step's keys will
  /// hardly be below. -infinity without enough of them.
  [[nodiscard]] float threshold(std::size_t g) {
    std::vector<Ranked>& items = s_.pools[g].items();
    if (items.size() < params_.k) return kNothing;
    const auto kth = items.begin() + static_cast<std::ptrdiff_t>(params_.k - 1);
    std::nth_element(items.begin(), kth, items.end(), std::greater<>());
    // The next smaller number: keys that are exactly as good count.
    return std::nextafter(score_of(*kth) - kDeviations * deviation(g), kNothing);
  }

  /// Standard deviation of the sketch's scores for query g, on a sample of the keys.
  [[nodiscard]] float deviation(std::size_t g) {
    constexpr std::size_t kBlock = KeyStore::kBlock;
    const std::size_t blocks = (sketch_.size() + kBlock - 1) / kBlock;
    const float all = -std::numeric_limits<float>::infinity();
    Id ids[kBlock];
    float rough[kBlock], fine[kBlock];
    std::size_t count = 0, keys = 0;
    double power = 0;
    for (std::size_t b = 0; b < kSampledBlocks; ++b) {
      const std::size_t block = b * blocks / kSampledBlocks;
      kernels().scan_half_blocks({sketch_.codes(), sketch_.scales(), block, block + 1},
                                 tile_of(s_.sketched, g, 1), {ids, rough, kBlock, &all, &count});
      count = std::min(count, sketch_.size() - block * kBlock);
      kernels().score_codes(code_rows(store_, {ids, count}), tile_of(s_.encoded, g, 1),
                            {fine, kBlock});
      for (std::size_t i = 0; i < count; ++i) {
        const double off = double{fine[i]} - double{rough[i]};
        power += off * off;
      }
      keys += count;
    }
    hits_.stats.bytes_read += keys * (store_.code_cols() + sizeof(float));
    return static_cast<float>(std::sqrt(power / static_cast<double>(keys)));
  }

  void finish() {
    const AnyMatrixView keys = store_.stored();
    finish_step(keys, queries_, params_, s_, hits_);
    hits_.stats.sketched = sketch_.size();
    hits_.stats.scanned = scanned_;
    hits_.stats.bytes_read += sketch_.size() * (sketch_.code_bytes() + sizeof(float)) +
                              scanned_ * (store_.code_cols() + sizeof(float)) +
                              hits_.stats.reranked * keys.row_bytes();
  }

  const KeyStore& store_;
  const Sketch& sketch_;
  MatrixView<float> queries_;
  const SearchParams& params_;
  SearchScratch::State& s_;
  Hits& hits_;
  std::size_t group_;
  std::size_t pool_;         ///< keys that go on from the sketch, of each query
  std::size_t scanned_ = 0;  ///< keys in s_.scanned
  std::size_t scored_ = 0;   ///< of them
};

}  // namespace

void search_sketch(const KeyStore& store, const Sketch& sketch, MatrixView<float> queries,
                   const SearchParams& params, SearchScratch::State& scratch, Hits& hits) {
  SketchSearch search(store, sketch, queries, params, scratch, hits);
  search.run();
}

}  // namespace keyseek
