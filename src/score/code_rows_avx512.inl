// Rows of 8-bit codes on 512-bit registers, for units that define
// `dot4(sums, u8, s8)`: sums[i] += sum over t < 4 of u8[4 i + t] * s8[4 i + t].

namespace {

/// Sums of the 16 lanes of 4 registers each, four times over: result lane 4 p + r is the
/// total of sums[p][r].
inline __m512i reduce_4x4(const __m512i (&sums)[4][4]) {
  __m512i quads[4];
  for (int p = 0; p < 4; ++p) {
    const __m512i ab = _mm512_add_epi32(_mm512_unpacklo_epi32(sums[p][0], sums[p][1]),
                                        _mm512_unpackhi_epi32(sums[p][0], sums[p][1]));
    const __m512i cd = _mm512_add_epi32(_mm512_unpacklo_epi32(sums[p][2], sums[p][3]),
                                        _mm512_unpackhi_epi32(sums[p][2], sums[p][3]));
    quads[p] = _mm512_add_epi32(_mm512_unpacklo_epi64(ab, cd), _mm512_unpackhi_epi64(ab, cd));
  }
  const __m512i low = _mm512_add_epi32(_mm512_shuffle_i32x4(quads[0], quads[1], 0x88),
                                       _mm512_shuffle_i32x4(quads[0], quads[1], 0xdd));
  const __m512i high = _mm512_add_epi32(_mm512_shuffle_i32x4(quads[2], quads[3], 0x88),
                                        _mm512_shuffle_i32x4(quads[2], quads[3], 0xdd));
  return _mm512_add_epi32(_mm512_shuffle_i32x4(low, high, 0x88),
                          _mm512_shuffle_i32x4(low, high, 0xdd));
}

inline __m512i broadcast_quads(const __m128i (&quads)[4]) {
  __m512i all = _mm512_castsi128_si512(quads[0]);
  all = _mm512_inserti32x4(all, quads[1], 1);
  all = _mm512_inserti32x4(all, quads[2], 2);
  return _mm512_inserti32x4(all, quads[3], 3);
}

/// What each of the 16 lanes of a result needs: lane 4 p + r belongs to query p / P.
template <int G, int P>
struct LaneConstants {
  __m512 scale;
  __m512i correction;
  explicit LaneConstants(const CodeTile& tile) {
    alignas(64) float scales[16] = {};
    alignas(64) std::int32_t corrections[16] = {};
    for (int p = 0; p < G * P; ++p) {
      for (int r = 0; r < 4; ++r) {
        scales[4 * p + r] = tile.scale[p / P];
        corrections[4 * p + r] = tile.correction[p / P];
      }
    }
    scale = _mm512_load_ps(scales);
    correction = _mm512_load_si512(corrections);
  }
};

/// 4 P keys against G queries, G * P <= 4.
template <int G, int P>
inline __m512i dot_rows(const std::uint8_t* const (&rows)[4 * P], const CodeTile& tile) {
  __m512i sums[4][4];
  for (auto& quad : sums)
    for (auto& sum : quad) sum = _mm512_setzero_si512();
  const auto step = [&](std::size_t j, __mmask64 mask) {
    for (int p = 0; p < P; ++p) {
      for (int r = 0; r < 4; ++r) {
        const __m512i key = _mm512_maskz_loadu_epi8(mask, rows[4 * p + r] + j);
        for (int g = 0; g < G; ++g) {
          const __m512i query = _mm512_maskz_loadu_epi8(
              mask, tile.queries + static_cast<std::size_t>(g) * tile.cols + j);
          sums[g * P + p][r] = dot4(sums[g * P + p][r], key, query);
        }
      }
    }
  };
  std::size_t j = 0;
  for (; j + 64 <= tile.cols; j += 64) step(j, ~__mmask64{0});
  if (j < tile.cols) step(j, (__mmask64{1} << (tile.cols - j)) - 1);
  return reduce_4x4(sums);
}

// Takes the views apart: plain arguments stay in registers, and a call for one query is 8 % faster.
template <int G>
void score_codes_group(const std::uint8_t* codes, const float* scales, const Id* ids, std::size_t n,
                       const CodeTile& tile, float* out, std::size_t out_stride) {
  constexpr int P = G == 1 ? 4 : G == 2 ? 2 : 1;
  constexpr std::size_t kKeys = 4 * P;
  // Keys asked for ahead of use: far enough to cover a miss, few enough to stay in L1.
  constexpr std::size_t kAhead = 16;
  const LaneConstants<G, P> lanes(tile);
  const auto prefetch = [&](std::size_t j) {
    const std::uint8_t* row = codes + std::size_t{ids[j]} * tile.cols;
    for (std::size_t b = 0; b < tile.cols; b += 64) __builtin_prefetch(row + b);
    __builtin_prefetch(scales + ids[j]);
  };
  for (std::size_t j = 0; j < n && j < kAhead; ++j) prefetch(j);
  for (std::size_t j = 0; j < n; j += kKeys) {
    for (std::size_t a = j + kAhead; a < j + kAhead + kKeys && a < n; ++a) prefetch(a);
    const std::uint8_t* rows[kKeys];
    alignas(16) float key_scales[kKeys];
    for (std::size_t i = 0; i < kKeys; ++i) {
      const Id id = ids[j + i < n ? j + i : n - 1];
      rows[i] = codes + std::size_t{id} * tile.cols;
      key_scales[i] = scales[id];
    }
    const __m512i dots = _mm512_sub_epi32(dot_rows<G, P>(rows, tile), lanes.correction);
    __m128i quads[4];
    for (int q = 0; q < 4; ++q) {
      quads[q] = _mm_castps_si128(_mm_load_ps(key_scales + 4 * (q % P)));
    }
    const __m512 key_scale = _mm512_castsi512_ps(broadcast_quads(quads));
    const __m512 result =
        _mm512_mul_ps(_mm512_mul_ps(lanes.scale, key_scale), _mm512_cvtepi32_ps(dots));
    alignas(64) float scored[16];
    _mm512_store_ps(scored, result);
    const std::size_t left = n - j < kKeys ? n - j : kKeys;
    for (int g = 0; g < G; ++g) {
      float* to = out + static_cast<std::size_t>(g) * out_stride + j;
      const float* from = scored + static_cast<std::size_t>(g) * kKeys;
      const auto mask = static_cast<__mmask16>((1U << left) - 1);
      _mm512_mask_storeu_ps(to, mask, _mm512_maskz_loadu_ps(mask, from));
    }
  }
}

/// For at most four queries.
void score_codes_of_four(const CodeRows& keys, const CodeTile& tile, const CodeScores& out) {
  switch (tile.group) {
    case 1:
      return score_codes_group<1>(keys.codes, keys.scales, keys.ids, keys.count, tile, out.data,
                                  out.stride);
    case 2:
      return score_codes_group<2>(keys.codes, keys.scales, keys.ids, keys.count, tile, out.data,
                                  out.stride);
    case 3:
      return score_codes_group<3>(keys.codes, keys.scales, keys.ids, keys.count, tile, out.data,
                                  out.stride);
    default:
      return score_codes_group<4>(keys.codes, keys.scales, keys.ids, keys.count, tile, out.data,
                                  out.stride);
  }
}

}  // namespace

#include "score/code_parts.inl"
