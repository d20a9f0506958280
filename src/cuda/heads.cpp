// HeadCaches beside a session: what it is made for, what it loads, and the CPU's part of a step.
#include <cstring>
#include <functional>

#include "base/fail.hpp"
#include "cuda/buffers.hpp"

namespace keyseek::cuda {
namespace {

void require_heads(std::span<HeadCache* const> heads) {
  require(!heads.empty(), "heads is empty");
  for (const HeadCache* head : heads) require(head != nullptr, "a head is null");
}

/// The rows of `matrix` in f32; memory is reused.
void widen(AnyMatrixView rows, Matrix<float>& matrix) {
  if (matrix.rows() != rows.rows || matrix.cols() != rows.cols)
    matrix = Matrix<float>(rows.rows, rows.cols);
  for (std::size_t i = 0; i < rows.rows; ++i) rows.copy_row(i, matrix.row(i));
}

/// The rows of `first`, then those of `second`; returns where they end.
std::byte* put(AnyMatrixView first, AnyMatrixView second, std::byte* to) {
  for (const AnyMatrixView rows : {first, second}) {
    const std::size_t bytes = rows.rows * rows.cols * size_of(rows.dtype);
    if (bytes > 0) std::memcpy(to, rows.data, bytes);
    to += bytes;
  }
  return to;
}

}  // namespace

SessionShape session_shape(std::span<HeadCache* const> heads) {
  require_heads(heads);
  const HeadCache& first = *heads[0];
  const Dtype dtype = first.static_part().window_keys.dtype;
  const DecodeParams& params = first.params();
  const SessionShape shape{.heads = heads.size(),
                           .group = first.group(),
                           .dim = first.dim(),
                           .sink = params.sink,
                           .window = params.window,
                           .dtype = dtype,
                           .scale = params.scale};
  for (const HeadCache* head : heads) {
    const StaticPart part = head->static_part();
    require(head->dim() == shape.dim && head->value_dim() == shape.dim,
            "a head has keys of dimension {} and values of {}, must have {} of both", head->dim(),
            head->value_dim(), shape.dim);
    require(part.window_keys.dtype == dtype && part.window_values.dtype == dtype,
            "a head has keys of {} and values of {}, must have both of {}",
            to_string(part.window_keys.dtype), to_string(part.window_values.dtype),
            to_string(dtype));
    require(head->group() == shape.group && head->params().sink == shape.sink &&
                head->params().window == shape.window && head->params().scale == shape.scale,
            "heads differ in group, sink, window or scale");
    if (head->params().softcap > 0.0F)
      fail(ErrorCode::unsupported,
           "a head has softcap {}: a device attends to logits that are not capped; let the CPU "
           "decode alone",
           head->params().softcap);
  }
  shape.validate();
  return shape;
}

void DecodeSession::load(std::span<HeadCache* const> heads) {
  const SessionShape shape = session_shape(heads);
  require(shape.heads == shape_.heads && shape.group == shape_.group && shape.dim == shape_.dim &&
              shape.sink == shape_.sink && shape.window == shape_.window &&
              shape.dtype == shape_.dtype && shape.scale == shape_.scale,
          "heads are not those that the session was made for");
  const std::size_t window = heads[0]->static_part().window_keys.rows;
  const std::size_t tokens = shape.sink + window;
  const std::size_t bytes = shape.heads * tokens * shape.dim * size_of(shape.dtype);
  AlignedVector<std::byte> keys(bytes), values(bytes);
  std::byte *to_keys = keys.data(), *to_values = values.data();
  for (const HeadCache* head : heads) {
    const StaticPart part = head->static_part();
    require(part.window_keys.rows == window, "a head has {} tokens in its window, another {}",
            part.window_keys.rows, window);
    to_keys = put(part.sink_keys, part.window_keys, to_keys);
    to_values = put(part.sink_values, part.window_values, to_values);
  }
  try {
    load(keys.data(), values.data(), tokens);
    stage_ = Stage::broken;
    buffers_->runtime->record(buffers_->finished.get(), buffers_->stream);
    buffers_->runtime->synchronize(buffers_->finished.get());
    stage_ = Stage::ready;
  } catch (const DeviceError&) {
    buffers_->settle();  // copies that are under way read what ends with this call
    throw;
  }
}

void DecodeSession::step(std::span<HeadCache* const> heads, DecodePool& pool) {
  require(heads.size() == shape_.heads, "there are {} heads, the session has {}", heads.size(),
          shape_.heads);
  const auto attend_rest = [&](const CpuStep& sent, Partial& part) {
    widen(sent.queries, cpu_.queries);
    widen(sent.keys, cpu_.keys);
    widen(sent.values, cpu_.values);
    step_heads_beside_static(heads, cpu_.queries, cpu_.keys, cpu_.values, pool, part.out.data(),
                             part.lse.data());
  };
  step(CpuPart(std::ref(attend_rest)));  // by reference: a step allocates nothing
}

}  // namespace keyseek::cuda
