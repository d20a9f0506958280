#include "stub_runtime.hpp"

#include <cstring>
#include <stdexcept>
#include <utility>

#include "cuda/dispatch.cuh"

namespace keyseek::cuda::test {

StubRuntime::~StubRuntime() {
  for (const auto& [memory, bytes] : device_) free_aligned(memory, bytes);
  for (const auto& [memory, bytes] : pinned_) free_aligned(memory, bytes);
}

// --- What may fail

void StubRuntime::count_call(const char* what) {
  if (lost_) throw DeviceError(DeviceFault::lost, "the stub is lost");
  if (calls_++ != options_.failing_call) return;
  lost_ = options_.fault == DeviceFault::lost;
  throw DeviceError(options_.fault, std::string("the stub failed to ") + what);
}

bool StubRuntime::ignores_order() { return orders_++ == options_.ignored_order; }

void StubRuntime::require_capturable(const char* what) const {
  if (recording_ != nullptr) throw std::logic_error(std::string(what) + " while capturing");
}

// --- Memory

void* StubRuntime::allocate(std::size_t bytes, std::map<void*, std::size_t>& in) {
  require_capturable("allocation");
  count_call("allocate memory");
  ++allocations_;
  void* memory = allocate_aligned(bytes);
  std::memset(memory, 0xff, bytes);
  in[memory] = bytes;
  return memory;
}

void* StubRuntime::allocate_device(std::size_t bytes) { return allocate(bytes, device_); }
void* StubRuntime::allocate_pinned(std::size_t bytes) { return allocate(bytes, pinned_); }

void StubRuntime::note_free() noexcept {
  for (const auto& [handle, queue] : streams_)
    freed_too_early_ = freed_too_early_ || !queue->work.empty();
}

void StubRuntime::free_device(void* memory) noexcept {
  note_free();
  free_aligned(memory, device_.at(memory));
  device_.erase(memory);
}
void StubRuntime::free_pinned(void* memory) noexcept {
  note_free();
  free_aligned(memory, pinned_.at(memory));
  pinned_.erase(memory);
}

bool StubRuntime::is_pinned(const void* memory) const {
  const auto* place = static_cast<const std::byte*>(memory);
  for (const auto& [begin, bytes] : pinned_) {
    const auto* first = static_cast<const std::byte*>(begin);
    if (std::less_equal<>()(first, place) && std::less<>()(place, first + bytes)) return true;
  }
  return false;
}

// --- Streams and events

Stream StubRuntime::make_stream() {
  count_call("make a stream");
  const Pace pace = streams_.empty() ? options_.callers_stream : options_.other_streams;
  auto queue = std::make_unique<Queue>(Queue{pace, {}});
  Stream stream = queue.get();
  streams_[stream] = std::move(queue);
  return stream;
}

void StubRuntime::free_stream(Stream stream) noexcept { streams_.erase(stream); }

Event StubRuntime::make_event() {
  count_call("make an event");
  auto mark = std::make_unique<Mark>();
  Event event = mark.get();
  events_[event] = std::move(mark);
  return event;
}

void StubRuntime::free_event(Event event) noexcept { events_.erase(event); }

void StubRuntime::record(Event event, Stream stream) {
  count_call("record an event");
  record_on(event, stream, false);
}

void StubRuntime::record_for_host(Event event, Stream stream) {
  count_call("record an event");
  record_on(event, stream, true);
}

void StubRuntime::record_on(Event event, Stream stream, bool for_host) {
  if (recording_ != nullptr && recording_->streams.contains(stream)) {
    if (!for_host) recording_->marks[event] = stream;
    recording_->calls.emplace_back([=, this] {
      record_on(event, stream, for_host);
      static_cast<Mark*>(event)->within_graph = !for_host;
    });
    return;
  }
  auto* mark = static_cast<Mark*>(event);
  mark->stream = stream;
  mark->within_graph = false;
  const unsigned count = ++mark->recorded;
  put(stream, {[=] { mark->done = count; }});
}

void StubRuntime::wait(Stream stream, Event event) {
  count_call("make a stream wait");
  if (std::exchange(step_is_over_, false)) orders_ = 0;
  if (ignores_order()) return;
  if (recording_ != nullptr && recording_->marks.contains(event)) {
    recording_->streams.insert(stream);
    if (stream != recording_->origin) recording_->unjoined.insert(stream);
    if (stream == recording_->origin) recording_->unjoined.erase(recording_->marks[event]);
  }
  const auto* mark = static_cast<const Mark*>(event);
  put(stream, {[] {}, mark, mark->recorded});
}

void StubRuntime::synchronize(Event event) {
  require_capturable("synchronize");
  count_call("wait for an event");
  if (ignores_order()) return;
  const auto* mark = static_cast<const Mark*>(event);
  if (mark->within_graph) throw std::logic_error("the host waits for an event of a graph");
  run_until_done(*mark, mark->recorded);
}

// --- Work

void StubRuntime::copy(void* to, const void* from, std::size_t bytes, Stream stream) {
  count_call("copy");
  if (is_pinned(to)) bytes_down_ += bytes;
  if (is_pinned(from)) bytes_up_ += bytes;
  put(stream, {[=] { std::memcpy(to, from, bytes); }});
}

void StubRuntime::copy_pieces(void* to, std::size_t to_pitch, const void* from,
                              std::size_t from_pitch, std::size_t bytes, std::size_t count,
                              Stream stream) {
  count_call("copy pieces");
  put(stream, {[=] {
        for (std::size_t i = 0; i < count; ++i) {
          std::memcpy(static_cast<std::byte*>(to) + i * to_pitch,
                      static_cast<const std::byte*>(from) + i * from_pitch, bytes);
        }
      }});
}

void StubRuntime::append(const AppendArgs& args, Stream stream) {
  count_call("launch append");
  put(stream, {[=] {
        emulation::run({{args.heads, 1}, kAppendThreads}, [&] { cuda::append(args); });
      }});
}

void StubRuntime::attend(Dtype dtype, const AttendArgs& args, Stream stream) {
  count_call("launch attend");
  const AttendKernel kernel = attend_kernel(dtype, args.parts.dim, args.group);
  put(stream, {[=] {
        emulation::run({{args.splits, args.heads, attend_tiles(args.group)}, kAttendThreads},
                       [&] { kernel(args); });
      }});
}

void StubRuntime::merge(Dtype out, const MergeArgs& args, Stream stream) {
  count_call("launch merge");
  step_is_over_ = true;
  const MergeKernel kernel = merge_kernel(out);
  put(stream, {[=] {
        emulation::run({{merge_blocks(args.parts), 1}, kMergeThreads}, [&] { kernel(args); });
      }});
}

void StubRuntime::put(Stream stream, Work work) {
  if (recording_ != nullptr && recording_->streams.contains(stream)) {
    recording_->calls.emplace_back([=, this] {
      Work again = work;
      if (again.needs != nullptr) again.count = again.needs->recorded;
      put(stream, again);
    });
    return;
  }
  streams_.at(stream)->work.push_back(std::move(work));
  pump();
}

/// Eager streams do what they may.
void StubRuntime::pump() {
  bool moved = true;
  while (moved) {
    moved = false;
    for (const auto& [handle, queue] : streams_) {
      if (queue->pace == Pace::eager) moved = run_next(*queue) || moved;
    }
  }
}

bool StubRuntime::run_next(Queue& queue) {
  if (queue.work.empty()) return false;
  const Work& next = queue.work.front();
  if (next.needs != nullptr && next.needs->done < next.count) return false;
  const Work work = std::move(queue.work.front());
  queue.work.pop_front();
  work.run();
  return true;
}

void StubRuntime::run_until_done(const Mark& mark, unsigned count) {
  while (mark.done < count) {
    Queue& queue = *streams_.at(mark.stream);
    if (run_next(queue)) continue;
    if (queue.work.empty()) throw std::logic_error("an event that nobody records");
    const Work& stuck = queue.work.front();
    run_until_done(*stuck.needs, stuck.count);
  }
  pump();
}

void StubRuntime::finish_all() {
  for (bool moved = true; moved;) {
    moved = false;
    for (const auto& [handle, queue] : streams_) moved = run_next(*queue) || moved;
  }
}

// --- Graphs: the calls made while capturing, made again at each launch

void StubRuntime::begin_capture(Stream stream) {
  count_call("begin to capture");
  recording_ = std::make_unique<Recording>();
  recording_->origin = stream;
  recording_->streams = {stream};
}

Graph StubRuntime::end_capture(Stream /*stream*/) {
  auto recorded = std::move(recording_);  // the capture is over, also when it fails
  count_call("capture a graph");
  if (!recorded->unjoined.empty()) throw std::logic_error("a captured stream was not joined");
  Graph graph = recorded.get();
  graphs_[graph] = std::move(recorded);
  return graph;
}

void StubRuntime::abandon_capture(Stream /*stream*/) noexcept { recording_.reset(); }

void StubRuntime::launch(Graph graph, Stream stream) {
  count_call("launch a graph");
  orders_ = 2;  // both waits of a step are in the graph
  if (static_cast<Recording*>(graph)->origin != stream)
    throw std::logic_error("the stub launches a graph on the stream it was captured from");
  for (const auto& call : static_cast<Recording*>(graph)->calls) call();
}

void StubRuntime::free_graph(Graph graph) noexcept { graphs_.erase(graph); }

std::size_t StubRuntime::held() const noexcept {
  return device_.size() + pinned_.size() + streams_.size() + events_.size() + graphs_.size();
}

}  // namespace keyseek::cuda::test
