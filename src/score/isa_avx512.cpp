/// Compiles the kernels for AVX-512 F, BW, DQ and VL, where bytes are widened to 16 bits in pairs,
/// since there is no 8-bit dot product.
#include <immintrin.h>

#include <xsimd/xsimd.hpp>

#include "score/kernels.hpp"

namespace keyseek {

using Arch = xsimd::avx512bw;

namespace {

inline __m512i dot4(__m512i sums, __m512i u8, __m512i s8) {
  const __m512i even = _mm512_madd_epi16(_mm512_and_si512(u8, _mm512_set1_epi16(0x00ff)),
                                         _mm512_srai_epi16(_mm512_slli_epi16(s8, 8), 8));
  const __m512i odd = _mm512_madd_epi16(_mm512_srli_epi16(u8, 8), _mm512_srai_epi16(s8, 8));
  return _mm512_add_epi32(sums, _mm512_add_epi32(even, odd));
}

}  // namespace

// In this order: each piece uses the ones before it.
// clang-format off
#include "score/load_avx512.inl"
#include "score/float_rows.inl"
#include "score/attend_rows.inl"
#include "score/rank_avx512.inl"
#include "score/scan_limits.inl"
#include "score/code_rows_avx512.inl"
#include "score/code_blocks_avx512.inl"
#include "score/table.inl"
// clang-format on

constinit const Kernels kAvx512Kernels = table_of(Isa::avx512);

}  // namespace keyseek
