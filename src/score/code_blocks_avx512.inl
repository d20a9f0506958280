// Blocks of 8-bit and 4-bit codes on 512-bit registers, for units that define `dot4`.

namespace {

/// The keys of one block that are above their query's limit, into the sink.
class BlockSink {
 public:
  BlockSink(const CodeBlocks& blocks, std::size_t block, const CodeTile& tile, const float* limit,
            const ScanSink& sink)
      : tile_(tile),
        limit_(limit),
        sink_(sink),
        key_scale_(_mm512_loadu_ps(blocks.scales + block * 16)),
        real_(_mm512_cmp_ps_mask(key_scale_, _mm512_setzero_ps(), _CMP_GT_OQ)),
        ids_(_mm512_add_epi32(
            _mm512_set1_epi32(static_cast<int>(block * 16)),
            _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0))) {}

  /// `dots`: of the keys with query g, less the correction.
  void keep(std::size_t g, __m512i dots) const {
    const __m512 score = _mm512_mul_ps(key_scale_, _mm512_cvtepi32_ps(dots));
    const __mmask16 above =
        _mm512_mask_cmp_ps_mask(real_, score, _mm512_set1_ps(limit_[g]), _CMP_GT_OQ);
    if (above == 0) return;
    const std::size_t at = g * sink_.stride + sink_.count[g];
    _mm512_mask_compressstoreu_epi32(sink_.ids + at, above, ids_);
    _mm512_mask_compressstoreu_ps(sink_.scores + at, above,
                                  _mm512_mul_ps(_mm512_set1_ps(tile_.scale[g]), score));
    sink_.count[g] += static_cast<std::size_t>(__builtin_popcount(above));
  }

 private:
  const CodeTile& tile_;
  const float* limit_;
  const ScanSink& sink_;
  __m512 key_scale_;
  __mmask16 real_;
  __m512i ids_;
};

/// Four elements of a query as one number, in every lane.
inline __m512i broadcast_piece(const std::int8_t* elements) {
  std::int32_t piece;
  __builtin_memcpy(&piece, elements, 4);
  return _mm512_set1_epi32(piece);
}

/// Modulo 2^32, as the sums are.
inline __m512i negative(std::int32_t correction) {
  return _mm512_set1_epi32(static_cast<std::int32_t>(0U - static_cast<std::uint32_t>(correction)));
}

/// Codes of 8 bits: a piece has 4 elements of a key.
struct Bytes {
  static constexpr std::size_t kElements = 4;
  template <int G>
  static void add(__m512i (&sums)[G], __m512i piece, const __m512i (&query)[1][G]) {
    for (int g = 0; g < G; ++g) sums[g] = dot4(sums[g], piece, query[0][g]);
  }
};

/// Codes of 4 bits: twice as many.
struct Halves {
  static constexpr std::size_t kElements = 8;
  template <int G>
  static void add(__m512i (&sums)[G], __m512i piece, const __m512i (&query)[2][G]) {
    const __m512i half = _mm512_set1_epi8(0x0f);
    const __m512i low = _mm512_and_si512(piece, half);
    const __m512i high = _mm512_and_si512(_mm512_srli_epi16(piece, 4), half);
    for (int g = 0; g < G; ++g) sums[g] = dot4(sums[g], low, query[0][g]);
    for (int g = 0; g < G; ++g) sums[g] = dot4(sums[g], high, query[1][g]);
  }
};

/// N blocks against G queries, the keys above their limits into the sink.
template <class Codes, int G, int N>
inline void scan_some(const CodeBlocks& blocks, std::size_t block, const CodeTile& tile,
                      const float (&limit)[CodeTile::kMaxTile], const ScanSink& sink) {
  const std::size_t block_bytes = tile.cols / Codes::kElements * 64;
  const std::uint8_t* codes = blocks.codes + block * block_bytes;
  __m512i sums[N][G];
  for (auto& row : sums)
    for (int g = 0; g < G; ++g) row[g] = negative(tile.correction[g]);
  for (std::size_t j = 0; j < tile.cols; j += Codes::kElements, codes += 64) {
    __m512i query[Codes::kElements / 4][G];
    for (std::size_t h = 0; h < Codes::kElements / 4; ++h)
      for (int g = 0; g < G; ++g)
        query[h][g] =
            broadcast_piece(tile.queries + static_cast<std::size_t>(g) * tile.cols + j + 4 * h);
    for (int b = 0; b < N; ++b) {
      const std::uint8_t* piece = codes + static_cast<std::size_t>(b) * block_bytes;
      // The same piece of the next N blocks: hardware prefetchers stop at pages, and blocks
      // are about as long.
      __builtin_prefetch(piece + static_cast<std::size_t>(N) * block_bytes);
      Codes::template add<G>(sums[b], _mm512_loadu_si512(piece), query);
    }
  }
  for (int b = 0; b < N; ++b) {
    const BlockSink kept(blocks, block + static_cast<std::size_t>(b), tile, limit, sink);
    for (int g = 0; g < G; ++g) kept.keep(static_cast<std::size_t>(g), sums[b][g]);
  }
}

template <class Codes, int G>
void scan_group(const CodeBlocks& blocks, const CodeTile& tile, const ScanSink& sink) {
  constexpr int N = G <= 2 ? 8 : G <= 5 ? 4 : 2;  // as many blocks as registers allow
  float limit[CodeTile::kMaxTile];
  begin_scan(tile, sink, limit);
  std::size_t b = blocks.first;
  for (; b + N <= blocks.last; b += N) scan_some<Codes, G, N>(blocks, b, tile, limit, sink);
  for (; b < blocks.last; ++b) scan_some<Codes, G, 1>(blocks, b, tile, limit, sink);
}

template <class Codes>
void scan_blocks(const CodeBlocks& blocks, const CodeTile& tile, const ScanSink& sink) {
  switch (tile.group) {
    case 1:
      return scan_group<Codes, 1>(blocks, tile, sink);
    case 2:
      return scan_group<Codes, 2>(blocks, tile, sink);
    case 3:
      return scan_group<Codes, 3>(blocks, tile, sink);
    case 4:
      return scan_group<Codes, 4>(blocks, tile, sink);
    case 5:
      return scan_group<Codes, 5>(blocks, tile, sink);
    case 6:
      return scan_group<Codes, 6>(blocks, tile, sink);
    case 7:
      return scan_group<Codes, 7>(blocks, tile, sink);
    default:
      return scan_group<Codes, 8>(blocks, tile, sink);
  }
}

}  // namespace
