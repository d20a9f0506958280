/// Compiles the kernels for AVX2 with FMA and F16C.
#include <immintrin.h>

#include <xsimd/xsimd.hpp>

#include "score/kernels.hpp"

namespace keyseek {

using Arch = xsimd::fma3<xsimd::avx2>;

namespace {

inline xsimd::batch<float, Arch> load_f16(const std::uint16_t* p) {
  return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
}
inline xsimd::batch<float, Arch> load_bf16(const std::uint16_t* p) {
  const __m256i wide = _mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
  return _mm256_castsi256_ps(_mm256_slli_epi32(wide, 16));
}
inline xsimd::batch<float, Arch> load_i8(const std::int8_t* p) {
  return _mm256_cvtepi32_ps(
      _mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p))));
}

}  // namespace

// In this order: each piece uses the ones before it.
// clang-format off
#include "score/float_rows.inl"
#include "score/attend_rows.inl"
#include "score/rank_portable.inl"
#include "score/scan_limits.inl"
#include "score/code_rows_avx2.inl"
#include "score/table.inl"
// clang-format on

constinit const Kernels kAvx2Kernels = table_of(Isa::avx2);

}  // namespace keyseek
