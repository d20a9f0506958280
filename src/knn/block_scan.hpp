/// Scan of all 8-bit codes for a tile of queries: what FlatIndex, SketchIndex and exact_knn share.
#pragma once

#include <cstddef>
#include <vector>

#include "keyseek/key_store.hpp"
#include "score/kernels.hpp"
#include "select/pool.hpp"

namespace keyseek {

/// Keys reranked per query so that the k best are among them: k + 30, as measured on
/// attention keys at d = 256 (recall 1.0), and a little more at small d, where the codes
/// of a key carry less.
[[nodiscard]] std::size_t rerank_pool(std::size_t k, std::size_t d) noexcept;

/// Likewise where the codes were made for the queries: few more than k.
[[nodiscard]] std::size_t trained_rerank_pool(std::size_t k, std::size_t d) noexcept;

/// Rows [first, first + count) of encoded queries as a kernel's tile.
[[nodiscard]] CodeTile tile_of(const EncodedQueries& queries, std::size_t first,
                               std::size_t count) noexcept;

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
