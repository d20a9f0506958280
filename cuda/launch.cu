/// Starts the kernels on a device, each with the instance for its types and sizes.
#include "cuda/launch.hpp"

#include "cuda/dispatch.cuh"

namespace keyseek::cuda {
namespace {

template <class Args>
cudaError_t launch(void (*kernel)(Args), dim3 grid, unsigned threads, Args args,
                   cudaStream_t stream) {
  kernel<<<grid, threads, 0, stream>>>(args);
  return cudaGetLastError();
}

}  // namespace

cudaError_t launch_attend(Dtype dtype, const AttendArgs& args, cudaStream_t stream) {
  const AttendKernel kernel = attend_kernel(dtype, args.parts.dim, args.group);
  const dim3 grid{args.splits, args.heads, attend_tiles(args.group)};
  return launch(kernel, grid, kAttendThreads, args, stream);
}

cudaError_t launch_merge(Dtype out, const MergeArgs& args, cudaStream_t stream) {
  return launch(merge_kernel(out), merge_blocks(args.parts), kMergeThreads, args, stream);
}

cudaError_t launch_append(const AppendArgs& args, cudaStream_t stream) {
  return launch(append, args.heads, kAppendThreads, args, stream);
}

}  // namespace keyseek::cuda
