/// Attention over the union of disjoint sets of tokens, from the attention over each.
///
/// A thread takes 4 components of one query through all parts, in order: no part waits for another
/// thread, and the result does not depend on how threads are run.
#pragma once

#include "arguments.hpp"
#include "device.cuh"

namespace keyseek::cuda {

constexpr unsigned kMergeThreads = 128;
constexpr unsigned kMergedAtOnce = 4;

template <class Out>
__global__ void __launch_bounds__(kMergeThreads) merge(MergeArgs a) {
  const unsigned per_query = a.parts.dim / kMergedAtOnce;
  const unsigned index = blockIdx.x * kMergeThreads + threadIdx.x;
  const unsigned query = index / per_query, column = index % per_query * kMergedAtOnce;
  if (query >= a.parts.queries) return;

  float top = -INFINITY;
  for (unsigned p = 0; p < a.count; ++p) top = fmaxf(top, a.parts.lse(p, query));
  float sum = 0.0F, out[kMergedAtOnce] = {};
  for (unsigned p = 0; top > -INFINITY && p < a.count; ++p) {
    const float weight = expf(a.parts.lse(p, query) - top);
    const Pack pack = load(a.parts.out(p, query) + column);
    sum += weight;
#pragma unroll
    for (unsigned i = 0; i < kMergedAtOnce; ++i) out[i] += weight * as_float(pack.words[i]);
  }

  Out* to = static_cast<Out*>(a.out) + std::size_t{query} * a.parts.dim + column;
#pragma unroll
  for (unsigned i = 0; i < kMergedAtOnce; ++i) narrow(sum > 0.0F ? out[i] / sum : 0.0F, to[i]);
  if (a.lse != nullptr && column == 0) a.lse[query] = top + logf(sum);
}

}  // namespace keyseek::cuda
