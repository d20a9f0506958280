/// Runs decode steps of a layer's heads on a device while the CPU attends to the rest.
#include <algorithm>
#include <cmath>
#include <utility>

#include "base/fail.hpp"
#include "cuda/buffers.hpp"

namespace keyseek::cuda {

void SessionShape::validate() const {
  require(heads >= 1 && heads <= 65535, "heads is {}, must be 1 to 65535", heads);
  require(group >= 1 && group <= kMostGroup, "group is {}, must be 1 to {}", group, kMostGroup);
  require(dim == 64 || dim == 96 || dim == 128 || dim == 256,
          "dim is {}, must be 64, 96, 128 or 256", dim);
  require(dtype == Dtype::f16 || dtype == Dtype::bf16, "dtype is {}, must be f16 or bf16",
          to_string(dtype));
  require(window >= 1, "window is {}, must be at least 1", window);
  // More would be a mistake, and beyond the 32 bits that kernels count rows in.
  constexpr std::size_t kMost = std::size_t{1} << 24U;
  require(sink <= kMost, "sink is {}, must be at most {}", sink, kMost);
  require(window <= kMost, "window is {}, must be at most {}", window, kMost);
  require(splits <= 65535, "splits is {}, must be at most 65535", splits);
  require(std::isfinite(scale) && scale > 0.0F, "scale is {}, must be above 0", scale);
}

DecodeSession::DecodeSession(const std::shared_ptr<Runtime>& runtime, const SessionShape& shape,
                             Stream stream)
    : shape_(shape) {
  require(runtime != nullptr, "runtime is null, must be a device that was opened");
  shape.validate();
  buffers_ = std::make_unique<SessionBuffers>(runtime, shape, stream);
  cpu_.part.reset(shape.queries(), shape.dim);
}

DecodeSession::DecodeSession(DecodeSession&&) noexcept = default;
DecodeSession& DecodeSession::operator=(DecodeSession&&) noexcept = default;

DecodeSession::~DecodeSession() = default;

void DecodeSession::load(const void* keys, const void* values, std::size_t tokens) {
  require(tokens <= shape_.capacity(), "tokens is {}, sink and window hold {}", tokens,
          shape_.capacity());
  require(tokens == 0 || (keys != nullptr && values != nullptr),
          "keys or values is null, but tokens is {}", tokens);
  stage_ = Stage::broken;
  SessionBuffers& b = *buffers_;
  // An earlier load may still be reading this memory; what it copies, this one copies over.
  const Ring ring{static_cast<std::uint32_t>(tokens), 0};
  std::fill_n(static_cast<Ring*>(b.rings.get()), shape_.heads, ring);
  b.runtime->copy(b.at(b.layout.rings), b.rings.get(), shape_.heads * sizeof(Ring), b.stream);
  if (tokens > 0) {
    const std::size_t row = shape_.dim * size_of(shape_.dtype);
    const std::size_t to = shape_.capacity() * row, from = tokens * row;
    b.runtime->copy_pieces(b.at(b.layout.keys), to, keys, from, from, shape_.heads, b.stream);
    b.runtime->copy_pieces(b.at(b.layout.values), to, values, from, from, shape_.heads, b.stream);
  }
  rows_ = tokens;
  stage_ = Stage::ready;
}

void DecodeSession::capture() {
  require_stage(Stage::ready, "capture");
  SessionBuffers& b = *buffers_;
  require(b.stream != nullptr, "stream is the default stream, which cannot be captured");
  for (std::size_t turn = 0; turn < 2; ++turn) {
    b.runtime->begin_capture(b.stream);
    try {
      enqueue(turn);
    } catch (const DeviceError&) {
      b.runtime->abandon_capture(b.stream);
      throw;
    }
    b.graphs[turn] = {b.runtime, b.runtime->end_capture(b.stream)};
  }
}

TokenInputs DecodeSession::inputs() const noexcept {
  const DeviceLayout& at = buffers_->layout;
  return {buffers_->at(at.queries), buffers_->at(at.key), buffers_->at(at.value)};
}

const void* DecodeSession::output() const noexcept { return buffers_->at(buffers_->layout.output); }

void DecodeSession::begin() {
  require_stage(Stage::ready, "begin");
  stage_ = Stage::broken;
  turn_ = 1 - turn_;
  if (buffers_->graphs[turn_].get() != nullptr) {
    buffers_->runtime->launch(buffers_->graphs[turn_].get(), buffers_->stream);
  } else {
    enqueue(turn_);
  }
  rows_ = std::min(rows_ + 1, shape_.capacity());
  stage_ = Stage::begun;
}

/// The device's part of a step. The copy down has a stream of its own: the CPU is waiting for it
/// and must not wait for the attention as well.
void DecodeSession::enqueue(std::size_t turn) {
  SessionBuffers& b = *buffers_;
  Stream copies = b.copies.get();
  b.runtime->record(b.forked.get(), b.stream);
  b.runtime->wait(copies, b.forked.get());
  b.runtime->copy(b.down[turn].get(), b.at(b.layout.queries), b.layout.down_bytes(), copies);
  b.runtime->record_for_host(b.arrived[turn].get(), copies);
  b.runtime->record(b.joined.get(), copies);
  b.runtime->append(b.append_args(shape_), b.stream);
  b.runtime->attend(shape_.dtype, b.attend_args(shape_), b.stream);
  b.runtime->wait(b.stream, b.joined.get());
}

CpuStep DecodeSession::wait() {
  require_stage(Stage::begun, "wait");
  stage_ = Stage::broken;
  buffers_->runtime->synchronize(buffers_->arrived[turn_].get());
  const auto* sent = static_cast<const std::byte*>(buffers_->down[turn_].get());
  const DeviceLayout& at = buffers_->layout;
  const auto view = [&](std::size_t offset, std::size_t rows) {
    return AnyMatrixView{sent + (offset - at.queries), shape_.dtype, rows, shape_.dim, shape_.dim};
  };
  stage_ = Stage::waiting;
  return {view(at.queries, shape_.queries()), view(at.key, shape_.heads),
          view(at.value, shape_.heads)};
}

void DecodeSession::finish(const Partial& cpu_part) {
  require_stage(Stage::waiting, "finish");
  require(cpu_part.lse.size() == shape_.queries() && cpu_part.out.rows() == shape_.queries(),
          "cpu_part has {} queries, must have {}", cpu_part.lse.size(), shape_.queries());
  require(cpu_part.out.cols() == shape_.dim, "cpu_part has dimension {}, must have {}",
          cpu_part.out.cols(), shape_.dim);
  stage_ = Stage::broken;
  SessionBuffers& b = *buffers_;
  // Free again: this step's queries arrived after all that the stream did in earlier steps.
  auto* sent = static_cast<float*>(b.up[turn_].get());
  const std::size_t outputs = shape_.queries() * shape_.dim;
  std::copy_n(cpu_part.out.data(), outputs, sent);
  std::copy_n(cpu_part.lse.data(), shape_.queries(), sent + outputs);
  const Parts parts = b.parts(shape_);
  b.runtime->copy(parts.out(b.layout.splits, 0), sent, bytes_up(), b.stream);
  b.runtime->merge(shape_.dtype, b.merge_args(shape_), b.stream);
  stage_ = Stage::ready;
}

void DecodeSession::step(const CpuPart& cpu_part) {
  begin();
  const CpuStep sent = wait();
  cpu_.part.reset(shape_.queries(), shape_.dim);
  stage_ = Stage::broken;  // should the CPU's part fail
  cpu_part(sent, cpu_.part);
  stage_ = Stage::waiting;
  finish(cpu_.part);
}

std::size_t DecodeSession::bytes_down() const noexcept { return buffers_->layout.down_bytes(); }

std::size_t DecodeSession::bytes_up() const noexcept {
  return buffers_->parts(shape_).part_size() * sizeof(float);
}

void DecodeSession::require_stage(Stage wanted, const char* call) const {
  if (stage_ == wanted) return;
  if (stage_ == Stage::broken) {
    fail(ErrorCode::invalid_argument,
         "{} needs the tokens of a load; none was made, or a call failed since", call);
  }
  fail(ErrorCode::invalid_argument, "{} is out of turn; a step is begin, wait, finish", call);
}

}  // namespace keyseek::cuda
