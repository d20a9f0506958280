/// What kernels use beyond arithmetic. Compiled by nvcc it is CUDA; tests compile the same kernels
/// as host C++ and bring `cuda/emulation/device.hpp`, which has the same names.
#pragma once

#include <bit>
#include <cstdint>

#include "keyseek/matrix.hpp"

namespace keyseek::cuda {

constexpr unsigned kWarp = 32;
constexpr unsigned kWholeWarp = 0xffffffffU;

/// 16 bytes: what one lane loads at once.
struct alignas(16) Pack {
  std::uint32_t words[4];
};
/// Elements of 16 bits in a Pack.
constexpr unsigned kPacked = 8;

}  // namespace keyseek::cuda

#if defined(__CUDACC__)

#include <cuda_bf16.h>
#include <cuda_fp16.h>

/// A variable of the block. `Type` has no constructor that does anything.
#define KEYSEEK_SHARED(Type, name) __shared__ Type name

namespace keyseek::cuda {

/// Loads from memory that no thread writes while the kernel runs.
__device__ inline Pack load(const void* from) {
  const uint4 words = __ldg(static_cast<const uint4*>(from));
  return {{words.x, words.y, words.z, words.w}};
}
__device__ inline void store(const Pack& pack, void* to) { *static_cast<Pack*>(to) = pack; }

__device__ inline float as_float(std::uint32_t bits) { return __uint_as_float(bits); }
__device__ inline float widen(Half h) { return __half2float(__ushort_as_half(h.bits)); }
__device__ inline float widen(BFloat16 b) { return __bfloat162float(__ushort_as_bfloat16(b.bits)); }
__device__ inline void narrow(float x, Half& to) { to.bits = __half_as_ushort(__float2half_rn(x)); }
__device__ inline void narrow(float x, BFloat16& to) {
  to.bits = __bfloat16_as_ushort(__float2bfloat16_rn(x));
}
__device__ inline void narrow(float x, float& to) { to = x; }

}  // namespace keyseek::cuda

#else
#include "cuda/emulation/device.hpp"
#endif

namespace keyseek::cuda {

template <class T>
__device__ void unpack(const Pack& pack, float (&out)[kPacked]) {
#pragma unroll
  for (unsigned i = 0; i < kPacked; ++i) {
    const std::uint32_t word = pack.words[i / 2];
    out[i] = widen(T{static_cast<std::uint16_t>(i % 2 == 0 ? word & 0xffffU : word >> 16U)});
  }
}

}  // namespace keyseek::cuda
