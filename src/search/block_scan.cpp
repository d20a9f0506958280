/// Block after block of codes, with thresholds that rise as the pools fill.
#include "search/block_scan.hpp"

#include <algorithm>

namespace keyseek {
namespace {

// Blocks scanned between two looks at the thresholds: 1,024 keys.
constexpr std::size_t kBlocksAtOnce = 64;

}  // namespace

void scan_blocks(const BlockedCodes& keys, const CodeTile& tile, Pool* pools,
                 BlockScanScratch& scratch) {
  const std::size_t blocks = (keys.n + KeyStore::kBlock - 1) / KeyStore::kBlock;
  constexpr std::size_t kRoom = kBlocksAtOnce * KeyStore::kBlock;
  scratch.ids.resize(CodeTile::kMaxTile * kRoom);
  scratch.scores.resize(CodeTile::kMaxTile * kRoom);
  float thresholds[CodeTile::kMaxTile];
  std::size_t counts[CodeTile::kMaxTile];
  for (std::size_t first = 0; first < blocks; first += kBlocksAtOnce) {
    for (std::size_t g = 0; g < tile.group; ++g) thresholds[g] = pools[g].threshold();
    const std::size_t last = std::min(blocks, first + kBlocksAtOnce);
    keys.scan({keys.codes, keys.scales, first, last}, tile,
              {scratch.ids.data(), scratch.scores.data(), kRoom, thresholds, counts});
    for (std::size_t g = 0; g < tile.group; ++g) {
      pools[g].add({scratch.ids.data() + g * kRoom, counts[g]}, scratch.scores.data() + g * kRoom);
      pools[g].settle();
    }
  }
  for (std::size_t g = 0; g < tile.group; ++g) pools[g].shrink();
}

}  // namespace keyseek
