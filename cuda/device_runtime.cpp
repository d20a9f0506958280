// The Runtime of a real device: each call is the CUDA call of that name, checked.
#include <cuda_runtime_api.h>

#include "base/fail.hpp"
#include "cuda/launch.hpp"
#include "cuda/runtime.hpp"

namespace keyseek::cuda {
namespace {

DeviceFault fault_of(cudaError_t status) {
  switch (status) {
    case cudaErrorNoDevice:
    case cudaErrorInvalidDevice:
    case cudaErrorInsufficientDriver:
    case cudaErrorInitializationError:
    case cudaErrorSystemDriverMismatch:
    case cudaErrorCompatNotSupportedOnDevice:
    case cudaErrorStubLibrary:
    case cudaErrorNoKernelImageForDevice:
      return DeviceFault::absent;
    case cudaErrorMemoryAllocation:
      return DeviceFault::out_of_memory;
    case cudaErrorIllegalAddress:
    case cudaErrorLaunchFailure:
    case cudaErrorLaunchTimeout:
    case cudaErrorMisalignedAddress:
    case cudaErrorInvalidAddressSpace:
    case cudaErrorInvalidPc:
    case cudaErrorIllegalInstruction:
    case cudaErrorHardwareStackError:
    case cudaErrorAssert:
    case cudaErrorECCUncorrectable:
    case cudaErrorDevicesUnavailable:
    case cudaErrorContextIsDestroyed:
    case cudaErrorUnknown:
      return DeviceFault::lost;
    default:
      return DeviceFault::refused;
  }
}

[[noreturn]] void throw_fault(cudaError_t status, const std::string& what) {
  throw DeviceError(fault_of(status),
                    fmt::format("CUDA could not {}: {} ({})", what, cudaGetErrorString(status),
                                cudaGetErrorName(status)));
}

void check(cudaError_t status, const char* what) {
  if (status == cudaSuccess) return;
  cudaGetLastError();  // an error that is not sticky is told once
  throw_fault(status, what);
}

cudaStream_t stream_of(Stream stream) { return static_cast<cudaStream_t>(stream); }
cudaEvent_t event_of(Event event) { return static_cast<cudaEvent_t>(event); }
cudaGraphExec_t graph_of(Graph graph) { return static_cast<cudaGraphExec_t>(graph); }

/// Makes a device the thread's current one while it lives; the caller's own work may use another.
class CurrentDevice {
 public:
  explicit CurrentDevice(int number) {
    check(cudaGetDevice(&before_), "ask for the current device");
    if (number != before_) check(cudaSetDevice(number), "use the device");
  }
  ~CurrentDevice() { cudaSetDevice(before_); }
  CurrentDevice(const CurrentDevice&) = delete;
  CurrentDevice& operator=(const CurrentDevice&) = delete;

 private:
  int before_ = 0;
};

class DeviceRuntime final : public Runtime {
 public:
  explicit DeviceRuntime(int number) : number_(number) {}

  void* allocate_device(std::size_t bytes) override {
    const CurrentDevice current(number_);
    void* memory = nullptr;
    const cudaError_t status = cudaMalloc(&memory, bytes);
    if (status != cudaSuccess) {
      cudaGetLastError();
      throw_fault(status, fmt::format("allocate {} bytes on device {}", bytes, number_));
    }
    return memory;
  }
  void* allocate_pinned(std::size_t bytes) override {
    const CurrentDevice current(number_);
    void* memory = nullptr;
    const cudaError_t status = cudaMallocHost(&memory, bytes);
    if (status != cudaSuccess) {
      cudaGetLastError();
      throw_fault(status, fmt::format("allocate {} bytes of pinned memory", bytes));
    }
    return memory;
  }
  void free_device(void* memory) noexcept override { cudaFree(memory); }
  void free_pinned(void* memory) noexcept override { cudaFreeHost(memory); }

  Stream make_stream() override {
    const CurrentDevice current(number_);
    cudaStream_t stream = nullptr;
    check(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "make a stream");
    return stream;
  }
  void free_stream(Stream stream) noexcept override { cudaStreamDestroy(stream_of(stream)); }
  Event make_event() override {
    const CurrentDevice current(number_);
    cudaEvent_t event = nullptr;
    check(cudaEventCreateWithFlags(&event, cudaEventDisableTiming), "make an event");
    return event;
  }
  void free_event(Event event) noexcept override { cudaEventDestroy(event_of(event)); }

  void record(Event event, Stream stream) override {
    const CurrentDevice current(number_);
    check(cudaEventRecord(event_of(event), stream_of(stream)), "record an event");
  }
  void record_for_host(Event event, Stream stream) override {
    const CurrentDevice current(number_);
    // In a graph an event is the graph's own, unless it is declared external.
    cudaStreamCaptureStatus capturing = cudaStreamCaptureStatusNone;
    check(cudaStreamIsCapturing(stream_of(stream), &capturing), "ask a stream for its capture");
    const unsigned flags = capturing == cudaStreamCaptureStatusActive ? cudaEventRecordExternal
                                                                      : cudaEventRecordDefault;
    check(cudaEventRecordWithFlags(event_of(event), stream_of(stream), flags), "record an event");
  }
  void wait(Stream stream, Event event) override {
    const CurrentDevice current(number_);
    check(cudaStreamWaitEvent(stream_of(stream), event_of(event), 0), "make a stream wait");
  }
  void synchronize(Event event) override {
    const CurrentDevice current(number_);
    check(cudaEventSynchronize(event_of(event)), "wait for an event");
  }

  void copy(void* to, const void* from, std::size_t bytes, Stream stream) override {
    const CurrentDevice current(number_);
    check(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDefault, stream_of(stream)), "copy");
  }
  void copy_pieces(void* to, std::size_t to_pitch, const void* from, std::size_t from_pitch,
                   std::size_t bytes, std::size_t count, Stream stream) override {
    const CurrentDevice current(number_);
    check(cudaMemcpy2DAsync(to, to_pitch, from, from_pitch, bytes, count, cudaMemcpyDefault,
                            stream_of(stream)),
          "copy pieces");
  }
  void append(const AppendArgs& args, Stream stream) override {
    const CurrentDevice current(number_);
    check(launch_append(args, stream_of(stream)), "launch append");
  }
  void attend(Dtype dtype, const AttendArgs& args, Stream stream) override {
    const CurrentDevice current(number_);
    check(launch_attend(dtype, args, stream_of(stream)), "launch attend");
  }
  void merge(Dtype out, const MergeArgs& args, Stream stream) override {
    const CurrentDevice current(number_);
    check(launch_merge(out, args, stream_of(stream)), "launch merge");
  }

  void begin_capture(Stream stream) override {
    const CurrentDevice current(number_);
    check(cudaStreamBeginCapture(stream_of(stream), cudaStreamCaptureModeThreadLocal),
          "begin to capture a graph");
  }
  Graph end_capture(Stream stream) override {
    const CurrentDevice current(number_);
    cudaGraph_t graph = nullptr;
    check(cudaStreamEndCapture(stream_of(stream), &graph), "capture a graph");
    cudaGraphExec_t ready = nullptr;
    const cudaError_t status = cudaGraphInstantiate(&ready, graph, 0);
    cudaGraphDestroy(graph);
    check(status, "make a captured graph ready");
    return ready;
  }
  void abandon_capture(Stream stream) noexcept override {
    cudaGraph_t graph = nullptr;
    cudaStreamEndCapture(stream_of(stream), &graph);
    if (graph != nullptr) cudaGraphDestroy(graph);
    cudaGetLastError();
  }
  void launch(Graph graph, Stream stream) override {
    const CurrentDevice current(number_);
    check(cudaGraphLaunch(graph_of(graph), stream_of(stream)), "launch a graph");
  }
  void free_graph(Graph graph) noexcept override { cudaGraphExecDestroy(graph_of(graph)); }

 private:
  int number_;
};

}  // namespace

std::shared_ptr<Runtime> open_device(int number) {
  int count = 0;
  const cudaError_t status = cudaGetDeviceCount(&count);
  if (status != cudaSuccess) {
    cudaGetLastError();
    throw DeviceError(DeviceFault::absent,
                      fmt::format("no CUDA device: {}", cudaGetErrorString(status)));
  }
  if (number < 0 || number >= count) {
    throw DeviceError(DeviceFault::absent,
                      fmt::format("number is {}, but there are {} CUDA devices", number, count));
  }
  return std::make_shared<DeviceRuntime>(number);
}

}  // namespace keyseek::cuda
