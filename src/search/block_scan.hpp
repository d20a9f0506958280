/// Scan of all codes for a tile of queries: what a flat and a sketch search and exact_knn share.
#pragma once

#include <cstddef>
#include <vector>

#include "keyseek/key_store.hpp"
#include "keyseek/sketch.hpp"
#include "score/kernels.hpp"
#include "select/pool.hpp"

namespace keyseek {

/// Memory a block scan works in.
struct BlockScanScratch {
  std::vector<Id> ids;
  std::vector<float> scores;
};

/// Codes of n keys in blocks, and the kernel that reads them.
struct BlockedCodes {
  const std::uint8_t* codes;
  const float* scales;
  std::size_t n;
  Scan scan;
};

/// Of a store in blocks.
[[nodiscard]] inline BlockedCodes blocks_of(const KeyStore& store) {
  return {store.codes(), store.scales(), store.size(), kernels().scan_blocks};
}
[[nodiscard]] inline BlockedCodes blocks_of(const Sketch& sketch) {
  return {sketch.codes(), sketch.scales(), sketch.size(), kernels().scan_half_blocks};
}

/// Adds to pools[g] the best keys of query g of the tile. Pools are reset by the caller (capacity,
/// first threshold). Scores lack the query's constant offset.
void scan_blocks(const BlockedCodes& keys, const CodeTile& tile, Pool* pools,
                 BlockScanScratch& scratch);

}  // namespace keyseek
