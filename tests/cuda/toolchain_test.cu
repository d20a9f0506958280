/// The CUDA toolchain compiles C++20 device code and keyseek's public headers side by side,
/// and what it compiled runs; exits with kSkip where there is no device.
#include <cuda_runtime.h>

#include <cstdio>

#include "keyseek/matrix.hpp"

namespace {

constexpr int kSkip = 77;

__global__ void inner_product(const float* key, const float* query, int d, float* out) {
  float sum = 0;
  for (int i = 0; i < d; ++i) sum += key[i] * query[i];
  *out = sum;
}

bool succeeded(cudaError_t status) {
  if (status != cudaSuccess) std::fprintf(stderr, "CUDA: %s\n", cudaGetErrorString(status));
  return status == cudaSuccess;
}

}  // namespace

int main() {
  int devices = 0;
  if (cudaGetDeviceCount(&devices) != cudaSuccess || devices == 0) {
    std::puts("no CUDA device: compiled, not run");
    return kSkip;
  }
  constexpr int kDim = 4;
  keyseek::Matrix<float> rows(2, kDim);
  for (int i = 0; i < kDim; ++i) rows.row(0)[i] = rows.row(1)[i] = static_cast<float>(i);

  float* device = nullptr;  // the two rows, then the result
  float result = 0;
  const bool ran =
      succeeded(cudaMalloc(&device, (2 * kDim + 1) * sizeof(float))) &&
      succeeded(
          cudaMemcpy(device, rows.data(), 2 * kDim * sizeof(float), cudaMemcpyHostToDevice)) &&
      (inner_product<<<1, 1>>>(device, device + kDim, kDim, device + 2 * kDim), true) &&
      succeeded(cudaGetLastError()) &&
      succeeded(cudaMemcpy(&result, device + 2 * kDim, sizeof(float), cudaMemcpyDeviceToHost));
  cudaFree(device);
  std::printf("<row 0, row 1> = %g\n", static_cast<double>(result));
  return ran && result == 14.0F ? 0 : 1;
}
