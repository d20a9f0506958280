/// From what is known at run time to the kernel compiled for it.
#pragma once

#include "append.cuh"
#include "attend.cuh"
#include "merge.cuh"

namespace keyseek::cuda {

using AttendKernel = void (*)(AttendArgs);
using MergeKernel = void (*)(MergeArgs);

template <class T, unsigned d>
AttendKernel attend_kernel(unsigned group) {
  if (group == 1) return attend<T, d, 1>;
  if (group == 2) return attend<T, d, 2>;
  if (group <= 4) return attend<T, d, 4>;
  return group <= kMostGroup ? attend<T, d, kMostQueries> : nullptr;
}

template <class T>
AttendKernel attend_kernel(unsigned dim, unsigned group) {
  switch (dim) {
    case 64:
      return attend_kernel<T, 64>(group);
    case 96:
      return attend_kernel<T, 96>(group);
    case 128:
      return attend_kernel<T, 128>(group);
    case 256:
      return attend_kernel<T, 256>(group);
    default:
      return nullptr;
  }
}

/// Null for what no kernel was compiled for.
inline AttendKernel attend_kernel(Dtype dtype, unsigned dim, unsigned group) {
  if (dtype == Dtype::f16) return attend_kernel<Half>(dim, group);
  return dtype == Dtype::bf16 ? attend_kernel<BFloat16>(dim, group) : nullptr;
}

/// Tiles that a group is cut into: gridDim.z of `attend`.
inline unsigned attend_tiles(unsigned group) { return (group + kMostQueries - 1) / kMostQueries; }

/// Picks the kernel by the element type of the merged output.
inline MergeKernel merge_kernel(Dtype dtype) {
  if (dtype == Dtype::f16) return merge<Half>;
  if (dtype == Dtype::bf16) return merge<BFloat16>;
  return dtype == Dtype::f32 ? merge<float> : nullptr;
}

/// Blocks of `merge` for this many queries.
inline unsigned merge_blocks(const Parts& parts) {
  return (parts.queries * (parts.dim / kMergedAtOnce) + kMergeThreads - 1) / kMergeThreads;
}

}  // namespace keyseek::cuda
