/// Scan of all 8-bit codes for a tile of queries: what a flat and a sketch search and exact_knn
/// share.
#pragma once

#include <cstddef>
#include <vector>

#include "keyseek/key_store.hpp"
#include "score/kernels.hpp"
#include "select/pool.hpp"

namespace keyseek {

/// Memory a block scan works in.
struct BlockScanScratch {
  std::vector<Id> ids;
  std::vector<float> scores;
};

/// Adds to pools[g] the best of n keys of query g of the tile, whose `codes` and `scales` are in
/// blocks. Pools are reset by the caller (capacity, first threshold). Scores lack the query's
/// constant offset.
void scan_blocks(const std::uint8_t* codes, const float* scales, std::size_t n,
                 const CodeTile& tile, Pool* pools, BlockScanScratch& scratch);

}  // namespace keyseek
