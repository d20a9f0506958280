/// The GPU side of decoding: sink and window of a layer's KV heads lie on the device, all other
/// tokens stay with the CPU, and both are attended at the same time.
///
/// A step sends the queries and the new token to the CPU, appends the token to the window, and
/// attends to sink and window on the device while the CPU searches. Then the CPU's partial
/// attention goes up and is merged with the device's. The CPU has every token: what the window
/// loses need not be sent, and a cache can go on without the device. A session allocates nothing in
/// a step and nothing waits for the whole device. (The split of arXiv 2409.10516.)
///
/// A session owns its memory on the device and uses one stream, the caller's; it is for one thread
/// at a time. Addresses on the device are `void*`. Without a device, or in a build without CUDA,
/// `open_device` throws: then the CPU decodes alone (`HeadCache`).
///
///     const auto shape = keyseek::cuda::session_shape(heads);  // HeadCaches of a layer, planned
///     keyseek::cuda::DecodeSession session(keyseek::cuda::open_device(), shape, stream);
///     session.load(heads);               // sink and window
///     write_token(session.inputs());     // the model, on the same stream
///     session.step(heads, pool);         // device and CPU
///     read_attention(session.output());  // again on the stream
#pragma once

#include <cstddef>
#include <functional>
#include <memory>
#include <span>
#include <string>

#include "keyseek/attention.hpp"
#include "keyseek/decode_pool.hpp"
#include "keyseek/error.hpp"
#include "keyseek/matrix.hpp"

namespace keyseek::cuda {

enum class DeviceFault {
  absent,         ///< no driver, no such device, or a build without CUDA
  out_of_memory,  ///< on the device, or of memory the device can copy from
  lost,           ///< the device's context is unusable, and stays so
  refused,        ///< anything else that a call returned
};

class DeviceError : public Error {
 public:
  DeviceError(DeviceFault fault, const std::string& sentence)
      : Error(ErrorCode::unsupported, sentence), fault_(fault) {}
  [[nodiscard]] DeviceFault fault() const noexcept { return fault_; }

 private:
  DeviceFault fault_;
};

/// A device and the calls that a session makes; defined in cuda/runtime.hpp.
class Runtime;
/// A cudaStream_t; null is the default stream.
using Stream = void*;
struct SessionBuffers;

/// Throws DeviceError(absent) when there is no device `number`.
[[nodiscard]] std::shared_ptr<Runtime> open_device(int number = 0);

/// What a session is made for. Queries, keys, values and outputs have the same element type.
struct SessionShape {
  std::size_t heads = 0;     ///< KV heads of a layer, of all sequences that step together
  std::size_t group = 1;     ///< G <= 64; every 8 of them read sink and window once
  std::size_t dim = 0;       ///< 64, 96, 128 or 256, of keys and values
  std::size_t sink = 128;    ///< first tokens, which stay
  std::size_t window = 512;  ///< newest tokens, >= 1
  Dtype dtype = Dtype::f16;  ///< or bf16
  float scale = 0;           ///< of the softmax
  /// Blocks that share the rows of a head; 0: one for 64 rows.
  std::size_t splits = 0;

  void validate() const;  ///< throws Error(invalid_argument)
  [[nodiscard]] std::size_t capacity() const noexcept { return sink + window; }
  [[nodiscard]] std::size_t queries() const noexcept { return heads * group; }
};

/// Where a model writes its next token: device addresses, the same for every step.
struct TokenInputs {
  void* queries;  ///< [heads * group, dim]
  void* key;      ///< [heads, dim]
  void* value;    ///< [heads, dim]
};

/// For caches that step together, all KV heads of all sequences of a layer: what they have in
/// common. Throws Error when they differ, or when no session can be made for them.
[[nodiscard]] SessionShape session_shape(std::span<HeadCache* const> heads);

/// What the CPU gets from a step, in memory of the session. The views stay as they are until the
/// step after the next begins.
struct CpuStep {
  AnyMatrixView queries;       ///< [heads * group, dim]
  AnyMatrixView keys, values;  ///< [heads, dim] of the new token, for when the window loses it
};

/// Attends to the tokens that the device has not: [heads * group, dim], `out` has that shape
/// already.
using CpuPart = std::function<void(const CpuStep& step, Partial& out)>;

class DecodeSession {
 public:
  /// Allocates all it needs. Throws Error for a shape that cannot be, DeviceError when the device
  /// does not have the memory.
  DecodeSession(const std::shared_ptr<Runtime>& runtime, const SessionShape& shape, Stream stream);
  ~DecodeSession();
  DecodeSession(DecodeSession&&) noexcept;
  DecodeSession& operator=(DecodeSession&&) noexcept;

  /// Replaces what the device holds by `tokens` tokens, at most sink + window: the sink, then the
  /// window from old to new. `keys` and `values` [heads, tokens, dim] may lie on the device or on
  /// the host and must stay until the stream has passed this call.
  void load(const void* keys, const void* values, std::size_t tokens);

  /// The same of the static parts of `heads`, in their order. Returns when the device has them.
  void load(std::span<HeadCache* const> heads);

  /// From now on `begin` replays a CUDA graph. Call it once, after `load`; not on the default
  /// stream, which cannot be captured.
  void capture();

  [[nodiscard]] TokenInputs inputs() const noexcept;
  [[nodiscard]] const void* output() const noexcept;  ///< [heads * group, dim]

  /// The three parts of a step. `begin` returns at once, and later work of the stream may
  /// overwrite the inputs; `wait` returns when the CPU can start, `finish` at once. After an error
  /// in them the window is in doubt: the session refuses further steps until the next `load`.
  void begin();
  [[nodiscard]] CpuStep wait();
  void finish(const Partial& cpu_part);
  /// All three.
  void step(const CpuPart& cpu_part);
  /// The same, where the CPU's part is that of the caches that were loaded.
  void step(std::span<HeadCache* const> heads, DecodePool& pool);

  [[nodiscard]] const SessionShape& shape() const noexcept { return shape_; }
  [[nodiscard]] std::size_t rows() const noexcept { return rows_; }  ///< on the device, per head
  /// Bytes that a step copies to the host and to the device.
  [[nodiscard]] std::size_t bytes_down() const noexcept;
  [[nodiscard]] std::size_t bytes_up() const noexcept;

 private:
  enum class Stage { broken, ready, begun, waiting };
  struct CpuMemory {
    Matrix<float> queries, keys, values;
    Partial part;
  };

  void require_stage(Stage wanted, const char* call) const;
  void enqueue(std::size_t turn);

  SessionShape shape_;
  std::unique_ptr<SessionBuffers> buffers_;
  CpuMemory cpu_;
  std::size_t rows_ = 0;
  std::size_t turn_ = 0;  ///< which of two buffers on the host this step uses
  Stage stage_ = Stage::broken;
};

}  // namespace keyseek::cuda
