/// CUDA's words for host C++: kernels compiled with this header run in the emulation of block.hpp.
/// Included by cuda/device.cuh; it uses the types that stand there above the #include.
#pragma once

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>

#include "cuda/emulation/block.hpp"

#define __global__ inline
#define __device__
#define __launch_bounds__(threads)
#define KEYSEEK_SHARED(Type, name) Type& name = ::keyseek::cuda::emulation::shared<Type>()

namespace keyseek::cuda {

using emulation::blockIdx;
using emulation::gridDim;
using emulation::threadIdx;

inline void __syncthreads() { emulation::barrier(); }

inline float __shfl_xor_sync(unsigned lanes, float mine, unsigned mask) {
  return emulation::shuffle_xor(lanes, mine, mask);
}

inline Pack load(const void* from) {
  Pack pack;
  emulation::read(from, &pack, sizeof pack);
  return pack;
}
inline void store(const Pack& pack, void* to) { emulation::write(&pack, to, sizeof pack); }

inline float as_float(std::uint32_t bits) { return std::bit_cast<float>(bits); }
inline float widen(Half h) { return to_float(h); }
inline float widen(BFloat16 b) { return to_float(b); }
inline void narrow(float x, Half& to) { to = to_half(x); }
inline void narrow(float x, BFloat16& to) { to = to_bfloat16(x); }
inline void narrow(float x, float& to) { to = x; }

}  // namespace keyseek::cuda
