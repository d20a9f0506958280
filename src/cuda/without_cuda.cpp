/// Refuses to open a device; it is compiled where cuda/device_runtime.cpp is not.
#include "keyseek/cuda.hpp"

namespace keyseek::cuda {

std::shared_ptr<Runtime> open_device(int /*number*/) {
  throw DeviceError(DeviceFault::absent, "no CUDA device: keyseek was built without CUDA");
}

}  // namespace keyseek::cuda
