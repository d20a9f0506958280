/// Softmax attention over some tokens while it is being computed.
#pragma once

#include <cmath>

#include "device.cuh"

namespace keyseek::cuda {

/// N components of sum(w * value) and sum(w), with w = exp2(logit - top). So logits are scaled by
/// log2(e) beforehand: one multiplication per query instead of one per token. Of no token it is
/// zero with top = -infinity.
template <unsigned N>
struct State {
  float top, sum;
  float out[N];

  __device__ void reset() {
    top = -INFINITY;
    sum = 0.0F;
#pragma unroll
    for (unsigned i = 0; i < N; ++i) out[i] = 0.0F;
  }

  __device__ void add(float logit, const float (&value)[N]) {
    const float higher = fmaxf(top, logit);
    const float keep = exp2f(top - higher), weight = exp2f(logit - higher);
    sum = sum * keep + weight;
#pragma unroll
    for (unsigned i = 0; i < N; ++i) out[i] = out[i] * keep + weight * value[i];
    top = higher;
  }

  /// What both saw; their tokens are disjoint.
  __device__ void merge(const State& other) {
    const float higher = fmaxf(top, other.top);
    if (higher == -INFINITY) return;  // neither saw a token, and -infinity has no difference
    const float mine = exp2f(top - higher), theirs = exp2f(other.top - higher);
    sum = sum * mine + other.sum * theirs;
#pragma unroll
    for (unsigned i = 0; i < N; ++i) out[i] = out[i] * mine + other.out[i] * theirs;
    top = higher;
  }

  /// The state of the lane whose number differs in the bits of `mask`.
  __device__ State of_lane_xor(unsigned mask) const {
    State other;
    other.top = __shfl_xor_sync(kWholeWarp, top, mask);
    other.sum = __shfl_xor_sync(kWholeWarp, sum, mask);
#pragma unroll
    for (unsigned i = 0; i < N; ++i) other.out[i] = __shfl_xor_sync(kWholeWarp, out[i], mask);
    return other;
  }
};

}  // namespace keyseek::cuda
