/// A grid of thread blocks on one host thread, to run kernels under tests and sanitizers.
///
/// The threads of a block are fibers. Each runs until it has to wait for others, at a barrier or a
/// shuffle; then the next one in an order of the caller's choice runs. So a thread gets as far
/// ahead of the others as the kernel's own synchronisation lets it, and with ascending and
/// descending order every pair of threads is tried both ways. Shared memory is filled with NaN
/// before each block, reads and writes of 16 bytes must be aligned, and a barrier or shuffle that
/// some threads never reach is an error. One launch at a time.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <new>
#include <vector>

namespace keyseek::cuda::emulation {

struct Index {
  unsigned x = 0, y = 0, z = 0;
};
struct Grid {
  unsigned x = 1, y = 1, z = 1;
};
/// Where the fiber that runs stands in block and grid.
inline Index threadIdx, blockIdx;
inline Grid gridDim;

enum class Order { ascending, descending, shuffled };

struct Launch {
  Grid grid;
  unsigned threads = 0;
  Order order = Order::ascending;
  std::uint64_t seed = 1;    ///< of Order::shuffled
  int skipped_barrier = -1;  ///< a defect to seed: no thread waits at its barrier of this number
};

/// Runs `kernel` in every thread; throws std::runtime_error when threads wait for ever, and what
/// a thread threw.
void run(const Launch& launch, const std::function<void()>& kernel);

/// The fiber waits until all threads of the block have come here.
void barrier();
/// What the lane whose number differs in the bits of `mask` brings; all 32 lanes must come.
float shuffle_xor(unsigned lanes, float mine, unsigned mask);

/// Memory of the block, `bytes` large for all who ask.
void* shared_bytes(std::size_t bytes);
template <class T>
T& shared() {
  return *std::launder(static_cast<T*>(shared_bytes(sizeof(T))));
}

/// Copies 16 bytes from or to device memory; throws when they are not aligned.
void read(const void* from, void* to, std::size_t bytes);
void write(const void* from, void* to, std::size_t bytes);

/// Counts how often each 16 bytes of some memory are read while it lives.
class ReadCounts {
 public:
  ReadCounts(const void* memory, std::size_t bytes);
  ~ReadCounts();
  ReadCounts(const ReadCounts&) = delete;
  ReadCounts& operator=(const ReadCounts&) = delete;

  void count(const void* from);
  [[nodiscard]] const std::vector<unsigned>& counts() const noexcept { return counts_; }

 private:
  const std::byte* memory_;
  std::vector<unsigned> counts_;
};

}  // namespace keyseek::cuda::emulation
