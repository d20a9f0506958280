/// Holds a session's memory, stream, events and graphs on a device, and gives them back.
#include "cuda/buffers.hpp"

#include <algorithm>

namespace keyseek::cuda {
namespace {

constexpr std::size_t kRowsOfSplit = 64;
constexpr std::size_t kAlignment = 256;

/// Offsets of pieces, one after the other.
class Pieces {
 public:
  std::size_t add(std::size_t bytes) {
    const std::size_t begin = (end_ + kAlignment - 1) / kAlignment * kAlignment;
    end_ = begin + bytes;
    return begin;
  }
  [[nodiscard]] std::size_t end() const noexcept { return end_; }

 private:
  std::size_t end_ = 0;
};

std::uint32_t narrowed(std::size_t x) { return static_cast<std::uint32_t>(x); }

}  // namespace

DeviceLayout::DeviceLayout(const SessionShape& shape)
    : splits(shape.splits != 0 ? shape.splits
                               : (shape.capacity() + kRowsOfSplit - 1) / kRowsOfSplit),
      token_bytes(shape.heads * shape.dim * size_of(shape.dtype)),
      query_bytes(token_bytes * shape.group),
      row_bytes(token_bytes * shape.capacity()) {
  Pieces pieces;
  keys = pieces.add(row_bytes);
  values = pieces.add(row_bytes);
  rings = pieces.add(shape.heads * sizeof(Ring));
  queries = pieces.add(down_bytes());
  key = queries + query_bytes;
  value = key + token_bytes;
  const Parts sizes{nullptr, narrowed(shape.queries()), narrowed(shape.dim)};
  parts = pieces.add((splits + 1) * sizes.stride() * sizeof(float));
  output = pieces.add(query_bytes);
  bytes = pieces.end();
}

SessionBuffers::SessionBuffers(const std::shared_ptr<Runtime>& from, const SessionShape& shape,
                               Stream on)
    : runtime(from),
      stream(on),
      layout(shape),
      device(runtime, runtime->allocate_device(layout.bytes)),
      rings(runtime, runtime->allocate_pinned(shape.heads * sizeof(Ring))),
      copies(runtime, runtime->make_stream()),
      forked(runtime, runtime->make_event()),
      joined(runtime, runtime->make_event()),
      finished(runtime, runtime->make_event()) {
  const std::size_t up_bytes = parts(shape).part_size() * sizeof(float);
  for (std::size_t turn = 0; turn < 2; ++turn) {
    down[turn] = {runtime, runtime->allocate_pinned(layout.down_bytes())};
    up[turn] = {runtime, runtime->allocate_pinned(up_bytes)};
    arrived[turn] = {runtime, runtime->make_event()};
  }
}

SessionBuffers::~SessionBuffers() { settle(); }

void SessionBuffers::settle() const noexcept {
  try {
    for (Stream used : {stream, copies.get()}) {
      runtime->record(finished.get(), used);
      runtime->synchronize(finished.get());
    }
  } catch (const DeviceError&) {  // a lost device has stopped its work
  }
}

Parts SessionBuffers::parts(const SessionShape& shape) const {
  return {reinterpret_cast<float*>(at(layout.parts)), narrowed(shape.queries()),
          narrowed(shape.dim)};
}

AppendArgs SessionBuffers::append_args(const SessionShape& shape) const {
  return {at(layout.key),
          at(layout.value),
          at(layout.keys),
          at(layout.values),
          reinterpret_cast<Ring*>(at(layout.rings)),
          narrowed(shape.heads),
          narrowed(shape.dim),
          narrowed(shape.sink),
          narrowed(shape.capacity())};
}

AttendArgs SessionBuffers::attend_args(const SessionShape& shape) const {
  return {at(layout.queries),
          at(layout.keys),
          at(layout.values),
          reinterpret_cast<const Ring*>(at(layout.rings)),
          parts(shape),
          narrowed(shape.heads),
          narrowed(shape.group),
          narrowed(shape.capacity()),
          narrowed(layout.splits),
          shape.scale};
}

MergeArgs SessionBuffers::merge_args(const SessionShape& shape) const {
  return {parts(shape), narrowed(layout.splits + 1), at(layout.output), nullptr};
}

}  // namespace keyseek::cuda
