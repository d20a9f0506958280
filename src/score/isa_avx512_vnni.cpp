/// Compiles the kernels for AVX-512 with the 8-bit dot product (VNNI).
#include <immintrin.h>

#include <xsimd/xsimd.hpp>

#include "score/kernels.hpp"

namespace keyseek {

using Arch = xsimd::avx512bw;

namespace {

inline __m512i dot4(__m512i sums, __m512i u8, __m512i s8) {
  return _mm512_dpbusd_epi32(sums, u8, s8);
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

constinit const Kernels kAvx512VnniKernels = table_of(Isa::avx512_vnni);

}  // namespace keyseek
