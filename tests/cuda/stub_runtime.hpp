/// A device without a device: streams are queues of work on host memory, kernels run in the
/// emulation, and everything happens as early or as late as the order of streams and events allows.
///
/// An eager stream works as soon as it may, a lazy one only when somebody waits for it. So what is
/// not ordered by an event happens in the wrong order in one of the combinations, and a buffer that
/// is reused too early is still being read. Calls can be made to fail.
#pragma once

#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "cuda/runtime.hpp"

namespace keyseek::cuda::test {

enum class Pace { eager, lazy };

struct StubOptions {
  Pace callers_stream = Pace::eager;  ///< of the stream made first
  Pace other_streams = Pace::eager;
  int failing_call = -1;  ///< this call fails, counted from 0
  DeviceFault fault = DeviceFault::refused;
  /// Of the calls of each step that order work (wait, synchronize), this one does nothing.
  int ignored_order = -1;
};

class StubRuntime final : public Runtime {
 public:
  explicit StubRuntime(const StubOptions& options = {}) : options_(options) {}
  ~StubRuntime() override;

  void* allocate_device(std::size_t bytes) override;
  void* allocate_pinned(std::size_t bytes) override;
  void free_device(void* memory) noexcept override;
  void free_pinned(void* memory) noexcept override;
  Stream make_stream() override;
  void free_stream(Stream stream) noexcept override;
  Event make_event() override;
  void free_event(Event event) noexcept override;
  void record(Event event, Stream stream) override;
  void record_for_host(Event event, Stream stream) override;
  void wait(Stream stream, Event event) override;
  void synchronize(Event event) override;
  void copy(void* to, const void* from, std::size_t bytes, Stream stream) override;
  void copy_pieces(void* to, std::size_t to_pitch, const void* from, std::size_t from_pitch,
                   std::size_t bytes, std::size_t count, Stream stream) override;
  void append(const AppendArgs& args, Stream stream) override;
  void attend(Dtype dtype, const AttendArgs& args, Stream stream) override;
  void merge(Dtype out, const MergeArgs& args, Stream stream) override;
  void begin_capture(Stream stream) override;
  Graph end_capture(Stream stream) override;
  void abandon_capture(Stream stream) noexcept override;
  void launch(Graph graph, Stream stream) override;
  void free_graph(Graph graph) noexcept override;

  /// Does all work there is.
  void finish_all();

  [[nodiscard]] std::size_t held() const noexcept;  ///< memory, streams, events, graphs not freed
  /// True when memory was freed while some stream still had work to do.
  [[nodiscard]] bool freed_too_early() const noexcept { return freed_too_early_; }
  [[nodiscard]] int calls() const noexcept { return calls_; }
  void set_failing_call(int call) noexcept { options_.failing_call = call; }
  [[nodiscard]] int allocations() const noexcept { return allocations_; }
  [[nodiscard]] std::size_t bytes_down() const noexcept { return bytes_down_; }
  [[nodiscard]] std::size_t bytes_up() const noexcept { return bytes_up_; }

 private:
  struct Mark {  // an event
    unsigned recorded = 0, done = 0;
    void* stream = nullptr;  ///< where it was recorded last
    bool within_graph = false;
  };
  struct Work {
    std::function<void()> run;
    const Mark* needs = nullptr;
    unsigned count = 0;  ///< how often `needs` must be done
  };
  struct Queue {
    Pace pace;
    std::deque<Work> work;
  };
  struct Recording {  // a graph
    Stream origin = nullptr;
    std::set<Stream> streams;
    std::set<Stream> unjoined;
    std::map<Event, Stream> marks;
    std::vector<std::function<void()>> calls;
  };

  void count_call(const char* what);
  bool ignores_order();
  void* allocate(std::size_t bytes, std::map<void*, std::size_t>& in);
  void record_on(Event event, Stream stream, bool for_host);
  void note_free() noexcept;
  void put(Stream stream, Work work);
  void pump();
  bool run_next(Queue& queue);
  void run_until_done(const Mark& mark, unsigned count);
  void require_capturable(const char* what) const;
  [[nodiscard]] bool is_pinned(const void* memory) const;

  StubOptions options_;
  std::map<void*, std::size_t> device_, pinned_;
  std::map<void*, std::unique_ptr<Queue>> streams_;
  std::map<void*, std::unique_ptr<Mark>> events_;
  std::map<void*, std::unique_ptr<Recording>> graphs_;
  std::unique_ptr<Recording> recording_;
  bool lost_ = false, freed_too_early_ = false, step_is_over_ = true;
  int calls_ = 0, allocations_ = 0, orders_ = 0;
  std::size_t bytes_down_ = 0, bytes_up_ = 0;
};

}  // namespace keyseek::cuda::test
