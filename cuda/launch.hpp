/// Starts kernels on a stream: what host code sees of them.
#pragma once

#include <cuda_runtime_api.h>

#include "cuda/arguments.hpp"

namespace keyseek::cuda {

/// True when `attend` was compiled for these: f16 or bf16, d = 64, 96, 128 or 256, G <= 8.
[[nodiscard]] bool has_kernel(Dtype dtype, std::uint32_t dim, std::uint32_t group);

/// Asynchronous; arguments are right, what they point to is on the device. Returns what the
/// launch returned.
cudaError_t launch_attend(Dtype dtype, const AttendArgs& args, cudaStream_t stream);
cudaError_t launch_merge(Dtype out, const MergeArgs& args, cudaStream_t stream);
cudaError_t launch_append(const AppendArgs& args, cudaStream_t stream);

}  // namespace keyseek::cuda
