// Whatever every CPU of this architecture runs.
#include <xsimd/xsimd.hpp>

#include "score/kernels.hpp"

namespace keyseek {

#if defined(__x86_64__)
using Arch = xsimd::sse2;
#elif defined(__aarch64__)
using Arch = xsimd::neon64;
#else
#error "keyseek needs an x86-64 or AArch64 CPU"
#endif

// In this order: each piece uses the ones before it.
// clang-format off
#include "score/load_portable.inl"
#include "score/float_rows.inl"
#include "score/attend_rows.inl"
#include "score/rank_portable.inl"
#include "score/code_rows_portable.inl"
// clang-format on

extern const Kernels kBaselineKernels = {
    Isa::baseline,
    {score_rows<LoadF32>, score_rows<LoadF16>, score_rows<LoadBF16>, score_rows<LoadI8>},
    score_codes,
    scan_blocks,
    select_above,
    keep_top,
    rank_descending,
    softmax_rows,
    cap,
    {add_rows<LoadF32>, add_rows<LoadF16>, add_rows<LoadBF16>, add_rows<LoadI8>}};

}  // namespace keyseek
