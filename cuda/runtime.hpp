/// The calls that a session makes to a device, so that its order can be tested without one: the
/// device's runtime is one implementation, the recording one of the tests another.
///
/// Every call throws DeviceError when it fails, but those that free. Work is put on streams and
/// done later, in the order of each stream.
#pragma once

#include "cuda/arguments.hpp"
#include "keyseek/cuda.hpp"

namespace keyseek::cuda {

using Event = void*;
using Graph = void*;

class Runtime {
 public:
  Runtime() = default;
  virtual ~Runtime() = default;
  Runtime(const Runtime&) = delete;
  Runtime& operator=(const Runtime&) = delete;

  [[nodiscard]] virtual void* allocate_device(std::size_t bytes) = 0;
  /// Memory of the host that the device copies from and to without help.
  [[nodiscard]] virtual void* allocate_pinned(std::size_t bytes) = 0;
  virtual void free_device(void* memory) noexcept = 0;
  virtual void free_pinned(void* memory) noexcept = 0;

  [[nodiscard]] virtual Stream make_stream() = 0;
  virtual void free_stream(Stream stream) noexcept = 0;
  [[nodiscard]] virtual Event make_event() = 0;
  virtual void free_event(Event event) noexcept = 0;

  virtual void record(Event event, Stream stream) = 0;
  /// The same for an event that the host waits for, also when `stream` is being captured.
  virtual void record_for_host(Event event, Stream stream) = 0;
  /// What comes later on `stream` waits for what was recorded last.
  virtual void wait(Stream stream, Event event) = 0;
  /// The host waits for what was recorded last.
  virtual void synchronize(Event event) = 0;

  virtual void copy(void* to, const void* from, std::size_t bytes, Stream stream) = 0;
  /// `count` pieces of `bytes`, `to_pitch` and `from_pitch` bytes apart.
  virtual void copy_pieces(void* to, std::size_t to_pitch, const void* from, std::size_t from_pitch,
                           std::size_t bytes, std::size_t count, Stream stream) = 0;
  virtual void append(const AppendArgs& args, Stream stream) = 0;
  virtual void attend(Dtype dtype, const AttendArgs& args, Stream stream) = 0;
  virtual void merge(Dtype out, const MergeArgs& args, Stream stream) = 0;

  /// What is put on `stream`, and on streams that wait for it, becomes a graph.
  virtual void begin_capture(Stream stream) = 0;
  [[nodiscard]] virtual Graph end_capture(Stream stream) = 0;
  virtual void abandon_capture(Stream stream) noexcept = 0;
  virtual void launch(Graph graph, Stream stream) = 0;
  virtual void free_graph(Graph graph) noexcept = 0;
};

}  // namespace keyseek::cuda
