// Selecting and ranking 64-bit numbers on 512-bit registers.

namespace {

std::size_t select_above(const float* scores, std::size_t n, float threshold, std::uint32_t* out) {
  std::size_t count = 0;
  const __m512 bar = _mm512_set1_ps(threshold);
  __m512i index = _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
  for (std::size_t j = 0; j < n; j += 16) {
    const auto valid = static_cast<__mmask16>(n - j >= 16 ? 0xffffU : (1U << (n - j)) - 1);
    const __mmask16 above =
        _mm512_mask_cmp_ps_mask(valid, _mm512_maskz_loadu_ps(valid, scores + j), bar, _CMP_GT_OQ);
    // Compressing in a register and storing whole is faster than a compressing store; the
    // last pieces may not have room for a whole register.
    if (count + 16 <= n) {
      _mm512_storeu_si512(out + count, _mm512_maskz_compress_epi32(above, index));
    } else {
      _mm512_mask_compressstoreu_epi32(out + count, above, index);
    }
    count += static_cast<std::size_t>(__builtin_popcount(above));
    index = _mm512_add_epi32(index, _mm512_set1_epi32(16));
  }
  return count;
}

inline __mmask8 valid_lanes(std::size_t left) {
  return static_cast<__mmask8>(left >= 8 ? 0xffU : (1U << left) - 1);
}

inline void range_of(const std::uint64_t* items, std::size_t n, std::uint64_t* smallest,
                     std::uint64_t* largest) {
  __m512i low = _mm512_set1_epi64(-1), high = _mm512_setzero_si512();
  for (std::size_t i = 0; i < n; i += 8) {
    const __mmask8 valid = valid_lanes(n - i);
    const __m512i some = _mm512_maskz_loadu_epi64(valid, items + i);
    low = _mm512_mask_min_epu64(low, valid, low, some);
    high = _mm512_max_epu64(high, some);
  }
  *smallest = _mm512_reduce_min_epu64(low);
  *largest = _mm512_reduce_max_epu64(high);
}

inline std::size_t count_above(const std::uint64_t* items, std::size_t n, std::uint64_t bar) {
  const __m512i limit = _mm512_set1_epi64(static_cast<long long>(bar));
  std::size_t count = 0;
  std::size_t i = 0;
  for (; i + 32 <= n; i += 32) {
    unsigned above = 0;
    for (std::size_t v = 0; v < 4; ++v) {
      above |= static_cast<unsigned>(
                   _mm512_cmpgt_epu64_mask(_mm512_loadu_si512(items + i + 8 * v), limit))
               << (8 * v);
    }
    count += static_cast<std::size_t>(__builtin_popcount(above));
  }
  for (; i < n; i += 8) {
    const __mmask8 valid = valid_lanes(n - i);
    const __mmask8 above =
        _mm512_mask_cmpgt_epu64_mask(valid, _mm512_maskz_loadu_epi64(valid, items + i), limit);
    count += static_cast<std::size_t>(__builtin_popcount(above));
  }
  return count;
}

inline std::size_t compress_above(std::uint64_t* items, std::size_t n, std::uint64_t bar) {
  const __m512i limit = _mm512_set1_epi64(static_cast<long long>(bar));
  std::size_t count = 0;
  for (std::size_t i = 0; i < n; i += 8) {
    const __mmask8 valid = valid_lanes(n - i);
    const __m512i some = _mm512_maskz_loadu_epi64(valid, items + i);
    const __mmask8 above = _mm512_mask_cmpgt_epu64_mask(valid, some, limit);
    // What is written stands before what is read next: count <= i.
    _mm512_mask_storeu_epi64(items + count,
                             valid_lanes(static_cast<std::size_t>(__builtin_popcount(above))),
                             _mm512_maskz_compress_epi64(above, some));
    count += static_cast<std::size_t>(__builtin_popcount(above));
  }
  return count;
}

void rank_descending(const std::uint64_t* items, std::size_t n, std::uint32_t* rank) {
  constexpr std::size_t kLanes64 = 8, kVectors = 4;
  for (std::size_t i = 0; i < n; i += kLanes64 * kVectors) {
    __m512i mine[kVectors], larger[kVectors];
    __mmask8 valid[kVectors];
    for (std::size_t v = 0; v < kVectors; ++v) {
      const std::size_t at = i + v * kLanes64;
      const std::size_t left = n > at ? n - at : 0;
      valid[v] = static_cast<__mmask8>(left >= kLanes64 ? 0xffU : (1U << left) - 1);
      mine[v] = _mm512_maskz_loadu_epi64(valid[v], items + at);
      larger[v] = _mm512_setzero_si512();
    }
    for (std::size_t j = 0; j < n; ++j) {
      const __m512i other = _mm512_set1_epi64(static_cast<long long>(items[j]));
      for (std::size_t v = 0; v < kVectors; ++v) {
        const __mmask8 above = _mm512_cmpgt_epu64_mask(other, mine[v]);
        larger[v] = _mm512_mask_add_epi64(larger[v], above, larger[v], _mm512_set1_epi64(1));
      }
    }
    for (std::size_t v = 0; v < kVectors; ++v) {
      _mm512_mask_cvtepi64_storeu_epi32(rank + i + v * kLanes64, valid[v], larger[v]);
    }
  }
}

}  // namespace

#include "score/keep_top.inl"
