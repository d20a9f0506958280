// 8-bit and 4-bit codes on 256-bit registers. Bytes are widened to 16 bits in two halves, since the
// saturating 8-bit multiply of this level would clip products of codes beyond 127.

namespace {

inline __m256i load_bytes(const void* p) {
  return _mm256_loadu_si256(static_cast<const __m256i*>(p));
}

/// sums[i] += sum over t < 4 of u8[4 i + t] * s8[4 i + t].
inline __m256i dot4(__m256i sums, __m256i u8, __m256i s8) {
  const __m256i even = _mm256_madd_epi16(_mm256_and_si256(u8, _mm256_set1_epi16(0x00ff)),
                                         _mm256_srai_epi16(_mm256_slli_epi16(s8, 8), 8));
  const __m256i odd = _mm256_madd_epi16(_mm256_srli_epi16(u8, 8), _mm256_srai_epi16(s8, 8));
  return _mm256_add_epi32(sums, _mm256_add_epi32(even, odd));
}

/// Of all lanes, less the correction: modulo 2^32, since a sum may wrap where the result does not.
inline std::int32_t total(__m256i sums, std::int32_t correction) {
  __m128i x = _mm_add_epi32(_mm256_castsi256_si128(sums), _mm256_extracti128_si256(sums, 1));
  x = _mm_add_epi32(x, _mm_shuffle_epi32(x, 0x4e));
  x = _mm_add_epi32(x, _mm_shuffle_epi32(x, 0xb1));
  return _mm_cvtsi128_si32(_mm_sub_epi32(x, _mm_set1_epi32(correction)));
}

template <int G>
void score_codes_group(const CodeRows keys, const CodeTile& tile, const CodeScores out) {
  const std::uint8_t* codes = keys.codes;
  const float* scales = keys.scales;
  const Id* ids = keys.ids;
  const std::size_t n = keys.count;
  constexpr std::size_t kAhead = 8;
  const auto prefetch = [&](std::size_t j) {
    const std::uint8_t* row = codes + std::size_t{ids[j]} * tile.cols;
    for (std::size_t b = 0; b < tile.cols; b += 64) __builtin_prefetch(row + b);
    __builtin_prefetch(scales + ids[j]);
  };
  for (std::size_t j = 0; j < n && j < kAhead; ++j) prefetch(j);
  for (std::size_t i = 0; i < n; ++i) {
    if (i + kAhead < n) prefetch(i + kAhead);
    const std::uint8_t* row = codes + std::size_t{ids[i]} * tile.cols;
    __m256i sums[G];
    for (auto& sum : sums) sum = _mm256_setzero_si256();
    std::size_t j = 0;
    for (; j + 32 <= tile.cols; j += 32) {
      const __m256i key = load_bytes(row + j);
      for (int g = 0; g < G; ++g) {
        sums[g] = dot4(sums[g], key,
                       load_bytes(tile.queries + static_cast<std::size_t>(g) * tile.cols + j));
      }
    }
    if (j < tile.cols) {  // 16 bytes are left
      const auto half = [](const void* p) {
        return _mm256_zextsi128_si256(_mm_loadu_si128(static_cast<const __m128i*>(p)));
      };
      for (int g = 0; g < G; ++g) {
        sums[g] = dot4(sums[g], half(row + j),
                       half(tile.queries + static_cast<std::size_t>(g) * tile.cols + j));
      }
    }
    const float key_scale = scales[ids[i]];
    for (int g = 0; g < G; ++g) {
      out.data[static_cast<std::size_t>(g) * out.stride + i] =
          tile.scale[g] * key_scale * static_cast<float>(total(sums[g], tile.correction[g]));
    }
  }
}

/// For at most four queries.
void score_codes_of_four(const CodeRows& keys, const CodeTile& tile, const CodeScores& out) {
  switch (tile.group) {
    case 1:
      return score_codes_group<1>(keys, tile, out);
    case 2:
      return score_codes_group<2>(keys, tile, out);
    case 3:
      return score_codes_group<3>(keys, tile, out);
    default:
      return score_codes_group<4>(keys, tile, out);
  }
}

/// Keeps those of 8 keys whose sums, which lack the correction, are above the limit.
inline void keep_above(__m256i sums, std::size_t first, std::size_t g, float limit,
                       const float* key_scales, const CodeTile& tile, const ScanSink& sink) {
  const __m256 key_scale = _mm256_loadu_ps(key_scales + first);
  const __m256i dots = _mm256_sub_epi32(sums, _mm256_set1_epi32(tile.correction[g]));
  const __m256 score = _mm256_mul_ps(key_scale, _mm256_cvtepi32_ps(dots));
  const __m256 above = _mm256_cmp_ps(score, _mm256_set1_ps(limit), _CMP_GT_OQ);
  const __m256 real = _mm256_cmp_ps(key_scale, _mm256_setzero_ps(), _CMP_GT_OQ);
  auto mask = static_cast<unsigned>(_mm256_movemask_ps(_mm256_and_ps(above, real)));
  if (mask == 0) return;
  alignas(32) float scores[8];
  _mm256_store_ps(scores, _mm256_mul_ps(_mm256_set1_ps(tile.scale[g]), score));
  for (; mask != 0; mask &= mask - 1) {
    const auto i = static_cast<std::size_t>(__builtin_ctz(mask));
    const std::size_t at = g * sink.stride + sink.count[g]++;
    sink.ids[at] = static_cast<Id>(first + i);
    sink.scores[at] = scores[i];
  }
}

/// Four elements of a query as one number, in every lane.
inline __m256i broadcast_piece(const std::int8_t* elements) {
  std::int32_t piece;
  __builtin_memcpy(&piece, elements, 4);
  return _mm256_set1_epi32(piece);
}

/// Codes of 8 bits: sums of 8 keys of a block, whose pieces are 64 bytes apart, for G queries.
struct Bytes {
  static constexpr std::size_t kElements = 4;
  template <int G>
  static void sum(const std::uint8_t* pieces, const std::int8_t* queries, std::size_t cols,
                  __m256i (&sums)[G]) {
    for (std::size_t j = 0; j < cols; j += kElements, pieces += 64) {
      const __m256i keys = load_bytes(pieces);
      for (std::size_t g = 0; g < G; ++g)
        sums[g] = dot4(sums[g], keys, broadcast_piece(queries + g * cols + j));
    }
  }
};

/// Codes of 4 bits: two products of a code and a query's element fit 16 bits, and so do the sums of
/// eight such pairs.
struct Halves {
  static constexpr std::size_t kElements = 8;
  template <int G>
  static void sum(const std::uint8_t* pieces, const std::int8_t* queries, std::size_t cols,
                  __m256i (&sums)[G]) {
    constexpr std::size_t kStretch = 4 * kElements;
    const __m256i half = _mm256_set1_epi8(0x0f);
    for (std::size_t first = 0; first < cols; first += kStretch) {
      const std::size_t last = first + kStretch < cols ? first + kStretch : cols;
      __m256i pairs[G];
      for (auto& pair : pairs) pair = _mm256_setzero_si256();
      for (std::size_t j = first; j < last; j += kElements, pieces += 64) {
        const __m256i keys = load_bytes(pieces);
        const __m256i low = _mm256_and_si256(keys, half);
        const __m256i high = _mm256_and_si256(_mm256_srli_epi16(keys, 4), half);
        for (std::size_t g = 0; g < G; ++g) {
          const std::int8_t* query = queries + g * cols + j;
          pairs[g] = _mm256_add_epi16(pairs[g], _mm256_maddubs_epi16(low, broadcast_piece(query)));
          pairs[g] =
              _mm256_add_epi16(pairs[g], _mm256_maddubs_epi16(high, broadcast_piece(query + 4)));
        }
      }
      for (std::size_t g = 0; g < G; ++g)
        sums[g] = _mm256_add_epi32(sums[g], _mm256_madd_epi16(pairs[g], _mm256_set1_epi16(1)));
    }
  }
};

/// One block against queries [first, first + G) of the tile.
template <class Codes, int G>
inline void scan_block(const CodeBlocks& blocks, std::size_t b, const CodeTile& tile,
                       std::size_t first, const float (&limit)[CodeTile::kMaxTile],
                       const ScanSink& sink) {
  const std::uint8_t* codes = blocks.codes + b * (tile.cols / Codes::kElements * 64);
  for (std::size_t half = 0; half < 2; ++half) {
    __m256i sums[G];
    for (auto& sum : sums) sum = _mm256_setzero_si256();
    Codes::template sum<G>(codes + 32 * half, tile.queries + first * tile.cols, tile.cols, sums);
    for (std::size_t g = 0; g < G; ++g)
      keep_above(sums[g], b * 16 + 8 * half, first + g, limit[first + g], blocks.scales, tile,
                 sink);
  }
}

// More than four queries have more sums than there are registers: the others take the block from
// the cache.
template <class Codes, int First, int Others>
void scan_group(const CodeBlocks& blocks, const CodeTile& tile, const ScanSink& sink) {
  float limit[CodeTile::kMaxTile];
  begin_scan(tile, sink, limit);
  for (std::size_t b = blocks.first; b < blocks.last; ++b) {
    scan_block<Codes, First>(blocks, b, tile, 0, limit, sink);
    if constexpr (Others > 0) scan_block<Codes, Others>(blocks, b, tile, First, limit, sink);
  }
}

template <class Codes>
void scan_blocks(const CodeBlocks& blocks, const CodeTile& tile, const ScanSink& sink) {
  switch (tile.group) {
    case 1:
      return scan_group<Codes, 1, 0>(blocks, tile, sink);
    case 2:
      return scan_group<Codes, 2, 0>(blocks, tile, sink);
    case 3:
      return scan_group<Codes, 3, 0>(blocks, tile, sink);
    case 4:
      return scan_group<Codes, 4, 0>(blocks, tile, sink);
    case 5:
      return scan_group<Codes, 4, 1>(blocks, tile, sink);
    case 6:
      return scan_group<Codes, 4, 2>(blocks, tile, sink);
    case 7:
      return scan_group<Codes, 4, 3>(blocks, tile, sink);
    default:
      return scan_group<Codes, 4, 4>(blocks, tile, sink);
  }
}

}  // namespace

#include "score/code_parts.inl"
