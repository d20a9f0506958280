/// What a session holds of a device: memory, a stream for copies, events, graphs.
#pragma once

#include <array>
#include <cstddef>
#include <memory>
#include <utility>

#include "cuda/runtime.hpp"

namespace keyseek::cuda {

/// A handle that goes back to the runtime it came from; `Free` says how.
template <void (Runtime::*Free)(void*) noexcept>
class Owned {
 public:
  Owned() = default;
  Owned(std::shared_ptr<Runtime> runtime, void* handle)
      : runtime_(std::move(runtime)), handle_(handle) {}
  Owned(Owned&& other) noexcept
      : runtime_(std::move(other.runtime_)), handle_(std::exchange(other.handle_, nullptr)) {}
  Owned& operator=(Owned&& other) noexcept {
    std::swap(runtime_, other.runtime_);
    std::swap(handle_, other.handle_);
    return *this;
  }
  ~Owned() {
    if (handle_ != nullptr) (runtime_.get()->*Free)(handle_);
  }
  [[nodiscard]] void* get() const noexcept { return handle_; }

 private:
  std::shared_ptr<Runtime> runtime_;
  void* handle_ = nullptr;
};

/// Bytes of everything, and where it begins in the one piece of memory on the device.
struct DeviceLayout {
  explicit DeviceLayout(const SessionShape& shape);

  std::size_t splits;
  std::size_t token_bytes;  ///< of one key or value of all heads
  std::size_t query_bytes;
  std::size_t row_bytes;  ///< keys or values of all heads
  std::size_t keys, values, rings;
  /// The inputs, which go down in one copy.
  std::size_t queries, key, value;
  std::size_t parts, output;
  std::size_t bytes;

  [[nodiscard]] std::size_t down_bytes() const noexcept { return query_bytes + 2 * token_bytes; }
};

struct SessionBuffers {
  SessionBuffers(const std::shared_ptr<Runtime>& from, const SessionShape& shape, Stream on);
  ~SessionBuffers();
  SessionBuffers(const SessionBuffers&) = delete;
  SessionBuffers& operator=(const SessionBuffers&) = delete;

  /// Waits for all work that uses memory of the session or of its caller.
  void settle() const noexcept;
  [[nodiscard]] std::byte* at(std::size_t offset) const noexcept {
    return static_cast<std::byte*>(device.get()) + offset;
  }
  [[nodiscard]] Parts parts(const SessionShape& shape) const;
  [[nodiscard]] AppendArgs append_args(const SessionShape& shape) const;
  [[nodiscard]] AttendArgs attend_args(const SessionShape& shape) const;
  [[nodiscard]] MergeArgs merge_args(const SessionShape& shape) const;

  std::shared_ptr<Runtime> runtime;
  Stream stream;  ///< the caller's
  DeviceLayout layout;
  Owned<&Runtime::free_device> device;
  Owned<&Runtime::free_pinned> rings;  ///< their state after load, until it is copied
  std::array<Owned<&Runtime::free_pinned>, 2> down, up;
  Owned<&Runtime::free_stream> copies;
  Owned<&Runtime::free_event> forked, joined, finished;
  std::array<Owned<&Runtime::free_event>, 2> arrived;
  std::array<Owned<&Runtime::free_graph>, 2> graphs;
};

}  // namespace keyseek::cuda
