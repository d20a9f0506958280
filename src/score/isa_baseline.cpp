/// Compiles the kernels for whatever every CPU of this architecture runs.
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
#include "score/scan_limits.inl"
#include "score/code_rows_portable.inl"
#include "score/table.inl"
// clang-format on

constinit const Kernels kBaselineKernels = table_of(Isa::baseline);

}  // namespace keyseek
