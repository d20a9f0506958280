// Blocks of 8-bit and 4-bit codes by the matrix unit (AMX): 64 elements of 16 keys against all
// queries of a tile in one instruction. Blocks are kept as it wants its right side. For few queries
// the vector units are as fast.

namespace {

constexpr std::size_t kWide = 64;   // elements of a product
constexpr std::size_t kAtOnce = 4;  // blocks, whose products overlap

/// Shapes of the tile registers: 0 to 3 sums, 4 and 5 queries, 6 and 7 keys; those of odd number
/// take what is left when the elements are no multiple of 64.
struct alignas(64) TileShapes {
  std::uint8_t palette = 1, start_row = 0, reserved[14] = {};
  std::uint16_t bytes[16] = {};
  std::uint8_t rows[16] = {};

  explicit TileShapes(const CodeTile& tile) {
    const std::size_t rest = tile.cols % kWide;
    const auto shape = [&](std::size_t i, std::size_t rows_of, std::size_t bytes_of) {
      rows[i] = static_cast<std::uint8_t>(rows_of);
      bytes[i] = static_cast<std::uint16_t>(bytes_of);
    };
    for (std::size_t i = 0; i < kAtOnce; ++i) shape(i, tile.group, 64);
    shape(4, tile.group, kWide);
    shape(6, kWide / 4, 64);
    if (rest == 0) return;
    shape(5, tile.group, rest);
    shape(7, rest / 4, 64);
  }
};

/// Bytes of 16 keys' `elements` as the unit wants them: of 8-bit codes, the pieces.
inline const std::uint8_t* unpack(Bytes /*codes*/, const std::uint8_t* pieces,
                                  std::size_t /*elements*/, std::uint8_t* /*room*/) {
  return pieces;
}

/// Of 4-bit codes, each piece becomes two, in `room`.
inline const std::uint8_t* unpack(Halves /*codes*/, const std::uint8_t* pieces,
                                  std::size_t elements, std::uint8_t* room) {
  const __m512i half = _mm512_set1_epi8(0x0f);
  for (std::size_t j = 0; j < elements; j += Halves::kElements, room += 128, pieces += 64) {
    const __m512i piece = _mm512_loadu_si512(pieces);
    _mm512_store_si512(room, _mm512_and_si512(piece, half));
    _mm512_store_si512(room + 64, _mm512_and_si512(_mm512_srli_epi16(piece, 4), half));
  }
  return room - elements * 16;
}

/// Blocks [block, block + count) against all queries, count at most kAtOnce.
template <class Codes>
inline void multiply(const CodeBlocks& blocks, std::size_t block, std::size_t count,
                     const CodeTile& tile, std::int32_t (&sums)[kAtOnce][CodeTile::kMaxTile][16]) {
  alignas(64) std::uint8_t room[kAtOnce][kWide * 16];
  const std::size_t block_bytes = tile.cols / Codes::kElements * 64;
  const std::uint8_t* codes = blocks.codes + block * block_bytes;
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
  for (std::size_t j = 0; j < tile.cols; j += kWide) {
    const std::size_t elements = tile.cols - j < kWide ? tile.cols - j : kWide;
    const std::uint8_t* keys[kAtOnce];
    for (std::size_t b = 0; b < count; ++b)
      keys[b] =
          unpack(Codes(), codes + b * block_bytes + j / Codes::kElements * 64, elements, room[b]);
    for (std::size_t b = count; b < kAtOnce; ++b) keys[b] = keys[0];
    if (elements == kWide) {
      _tile_loadd(4, tile.queries + j, tile.cols);
      _tile_loadd(6, keys[0], 64);
      _tile_dpbsud(0, 4, 6);
      _tile_loadd(6, keys[1], 64);
      _tile_dpbsud(1, 4, 6);
      _tile_loadd(6, keys[2], 64);
      _tile_dpbsud(2, 4, 6);
      _tile_loadd(6, keys[3], 64);
      _tile_dpbsud(3, 4, 6);
    } else {
      _tile_loadd(5, tile.queries + j, tile.cols);
      _tile_loadd(7, keys[0], 64);
      _tile_dpbsud(0, 5, 7);
      _tile_loadd(7, keys[1], 64);
      _tile_dpbsud(1, 5, 7);
      _tile_loadd(7, keys[2], 64);
      _tile_dpbsud(2, 5, 7);
      _tile_loadd(7, keys[3], 64);
      _tile_dpbsud(3, 5, 7);
    }
  }
  _tile_stored(0, sums[0], 64);
  _tile_stored(1, sums[1], 64);
  _tile_stored(2, sums[2], 64);
  _tile_stored(3, sums[3], 64);
}

template <class Codes>
void scan_by_tiles(const CodeBlocks& blocks, const CodeTile& tile, const ScanSink& sink) {
  constexpr std::size_t kFew = 4;
  if (tile.group <= kFew) return scan_blocks<Codes>(blocks, tile, sink);
  float limit[CodeTile::kMaxTile];
  begin_scan(tile, sink, limit);
  if (blocks.first == blocks.last) return;
  const TileShapes shapes(tile);
  _tile_loadconfig(&shapes);
  __m512i correction[CodeTile::kMaxTile];
  for (std::size_t g = 0; g < tile.group; ++g)
    correction[g] = _mm512_set1_epi32(tile.correction[g]);
  alignas(64) std::int32_t sums[kAtOnce][CodeTile::kMaxTile][16];
  for (std::size_t block = blocks.first; block < blocks.last; block += kAtOnce) {
    const std::size_t count = blocks.last - block < kAtOnce ? blocks.last - block : kAtOnce;
    multiply<Codes>(blocks, block, count, tile, sums);
    for (std::size_t b = 0; b < count; ++b) {
      const BlockSink kept(blocks, block + b, tile, limit, sink);
      for (std::size_t g = 0; g < tile.group; ++g)
        kept.keep(g, _mm512_sub_epi32(_mm512_load_si512(sums[b][g]), correction[g]));
    }
  }
  _tile_release();
}

}  // namespace
