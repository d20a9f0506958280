/// Compiles the portable sources for AArch64 with NEON and its half-precision conversions.
#if defined(__aarch64__)
#include <arm_neon.h>

#include <xsimd/xsimd.hpp>

#include "score/kernels.hpp"

namespace keyseek {

using Arch = xsimd::neon64;

namespace {

inline xsimd::batch<float, Arch> load_f16(const std::uint16_t* p) {
  return vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(p)));
}
inline xsimd::batch<float, Arch> load_bf16(const std::uint16_t* p) {
  return vreinterpretq_f32_u32(vshll_n_u16(vld1_u16(p), 16));
}
inline xsimd::batch<float, Arch> load_i8(const std::int8_t* p) {
  std::int32_t packed;
  __builtin_memcpy(&packed, p, 4);
  const int16x8_t wide = vmovl_s8(vreinterpret_s8_s32(vdup_n_s32(packed)));
  return vcvtq_f32_s32(vmovl_s16(vget_low_s16(wide)));
}

}  // namespace

// In this order: each piece uses the ones before it.
// clang-format off
#include "score/float_rows.inl"
#include "score/attend_rows.inl"
#include "score/rank_portable.inl"
#include "score/scan_limits.inl"
#include "score/code_rows_portable.inl"
#include "score/table.inl"
// clang-format on

constinit const Kernels kNeonKernels = table_of(Isa::neon);

}  // namespace keyseek
#endif
