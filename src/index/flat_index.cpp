#include <algorithm>
#include <cmath>

#include "base/fail.hpp"
#include "index/index_file.hpp"
#include "index/pack.hpp"
#include "index/step.hpp"
#include "keyseek/index.hpp"
#include "knn/block_scan.hpp"
#include "score/kernels.hpp"
#include "search/projection_search.hpp"
#include "search/scratch.hpp"

namespace keyseek {

struct FlatIndex::State {
  KeyStore store;       ///< in blocks
  float largest_scale;  ///< of the keys' codes

  explicit State(KeyStore keys)
      : store(std::move(keys)),
        largest_scale(*std::max_element(store.scales(), store.scales() + store.size())) {}
};

namespace {

constexpr const char* kKind = "flat";

/// Keys reranked per query: half as many again as wanted. The codes know nothing of the
/// queries, so the k best stand a little deeper in their order than in a trained store's.
std::size_t scan_pool(std::size_t k) { return k + std::max<std::size_t>(16, k / 2); }

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
float warm_threshold(const KeyStore& store, float largest_scale, std::size_t g, std::size_t k,
                     SearchScratch::State& s) {
  constexpr float kNothing = -std::numeric_limits<float>::infinity();
  if (s.previous.size() < k) return kNothing;
  std::vector<float>& scores = s.rerank.scores;
  scores.resize(s.previous.size());
  const AnyMatrixView keys = store.stored();
  kernels().score_rows[static_cast<std::size_t>(keys.dtype)](
      keys.data, keys.stride, s.previous.data(), s.previous.size(), s.asked.row(g), keys.cols, 1,
      keys.cols, scores.data());
  const auto kth = scores.begin() + static_cast<std::ptrdiff_t>(k - 1);
  std::nth_element(scores.begin(), kth, scores.end(), std::greater<>());
  constexpr float kDeviations = 4.0F;
  const float margin = kDeviations * rounding_error(store, s.encoded, g, largest_scale);
  // The next smaller number: keys that are exactly as good count.
  return std::nextafter(*kth - s.encoded.offset[g] - margin, kNothing);
}

}  // namespace

FlatIndex::FlatIndex(std::shared_ptr<const State> state) : state_(std::move(state)) {}

std::shared_ptr<const FlatIndex::State> FlatIndex::state() const {
  auto state = state_.get();
  require(state != nullptr, "the FlatIndex is empty: build or load one first");
  return state;
}

FlatIndex FlatIndex::build(AnyMatrixView keys, const Execution& run) {
  KeyStore store = KeyStore::encode(keys, {}, CodeLayout::blocks, run);
  pack(store);
  return FlatIndex(std::make_shared<State>(std::move(store)));
}

std::size_t FlatIndex::size() const { return state()->store.size(); }
std::size_t FlatIndex::dim() const { return state()->store.dim(); }
AnyMatrix FlatIndex::keys() const { return state()->store.parts().keys; }
std::size_t FlatIndex::bytes() const {
  const auto state = this->state();
  const AnyMatrixView keys = state->store.stored();
  return keys.rows * keys.row_bytes() + state->store.code_bytes();
}

void FlatIndex::search(MatrixView<float> queries, const SearchParams& params,
                       SearchScratch& scratch, Hits& hits) const {
  const auto state = this->state();
  const KeyStore& store = state->store;
  require_step(queries, params, store);
  SearchScratch::State& s = scratch.state();
  begin_step(store, queries, params, s, hits);
  std::sort(s.previous.begin(), s.previous.end());
  s.previous.erase(std::unique(s.previous.begin(), s.previous.end()), s.previous.end());
  store.encode_queries(s.asked, s.encoded);
  const std::size_t pool = std::min(store.size(), scan_pool(params.k));
  for (std::size_t g = 0; g < queries.rows; ++g) {
    s.pools[g].reset(pool, warm_threshold(store, state->largest_scale, g, params.k, s));
  }
  for (std::size_t first = 0; first < queries.rows; first += CodeTile::kMaxTile) {
    const std::size_t tile = std::min(CodeTile::kMaxTile, queries.rows - first);
    scan_blocks(store.codes(), store.scales(), store.size(), tile_of(s.encoded, first, tile),
                s.pools.data() + first, s.blocks);
  }
  for (std::size_t g = 0; g < queries.rows; ++g) {
    // Where f32 tells keys from another too badly for a threshold, it hides some of the k best.
    if (s.pools[g].items().size() >= params.k) continue;
    s.pools[g].reset(pool);
    scan_blocks(store.codes(), store.scales(), store.size(), tile_of(s.encoded, g, 1), &s.pools[g],
                s.blocks);
  }
  const AnyMatrixView keys = store.stored();
  finish_step(keys, queries, params, s, hits);
  hits.stats.scanned = store.size();
  hits.stats.bytes_read =
      store.size() * (store.code_cols() + sizeof(float)) +
      (hits.stats.reranked + queries.rows * s.previous.size()) * keys.row_bytes();
}

void FlatIndex::append(AnyMatrixView keys) {
  KeyStore store = state()->store.appended(keys);
  pack(store);
  state_.set(std::make_shared<State>(std::move(store)));
}

void FlatIndex::write(IndexFileWriter& file) const { file.add(state()->store); }

void FlatIndex::save(const std::filesystem::path& path) const {
  IndexFileWriter file(kKind);
  const FlatIndex kept = *this;  // the file looks at its arrays
  kept.write(file);
  file.save(path);
}

std::vector<std::byte> FlatIndex::to_bytes() const {
  IndexFileWriter file(kKind);
  const FlatIndex kept = *this;  // the file looks at its arrays
  kept.write(file);
  return file.bytes();
}

FlatIndex FlatIndex::read(const ContainerReader& file) {
  KeyStore store = read_store(file);
  if (store.layout() != CodeLayout::blocks) {
    fail(ErrorCode::corrupt, "{}: the codes of a flat index are not in blocks",
         file.path().string());
  }
  return FlatIndex(std::make_shared<State>(std::move(store)));
}

FlatIndex FlatIndex::load(const std::filesystem::path& path) {
  return read(ContainerReader::load(path, kKind));
}
FlatIndex FlatIndex::map(const std::filesystem::path& path) {
  return read(ContainerReader::map(path, kKind));
}
FlatIndex FlatIndex::from_bytes(std::span<const std::byte> bytes) {
  return read(ContainerReader::copy_of(bytes, kKind));
}

}  // namespace keyseek
