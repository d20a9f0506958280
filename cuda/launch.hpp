/// Starts kernels on a stream: what host code sees of them.
#pragma once

#include <cuda_runtime_api.h>

#include "cuda/arguments.hpp"

namespace keyseek::cuda {

/// Asynchronous. Arguments are those of a valid SessionShape, and what they point to is on the
/// device. Returns what the launch returned.
cudaError_t launch_attend(Dtype dtype, const AttendArgs& args, cudaStream_t stream);
cudaError_t launch_merge(Dtype out, const MergeArgs& args, cudaStream_t stream);
cudaError_t launch_append(const AppendArgs& args, cudaStream_t stream);

}  // namespace keyseek::cuda
