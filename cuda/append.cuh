/// Appends a token to the window of each head and hands over the one that it replaces.
///
/// One block for each head; a thread moves 16 bytes of key or value. The row is read from device
/// memory and not an argument, so that a captured graph appends to the right place each time.
#pragma once

#include "arguments.hpp"
#include "device.cuh"

namespace keyseek::cuda {

constexpr unsigned kAppendThreads = 64;  // 2 * 256 / kPacked

__device__ inline void move_pack(const void* fresh, void* rows, void* evicted, std::size_t row,
                                 std::size_t vector, bool evicts) {
  const Pack* from = static_cast<const Pack*>(fresh) + vector;
  Pack* place = static_cast<Pack*>(rows) + row;
  if (evicts) store(load_written(place), static_cast<Pack*>(evicted) + vector);
  store(load(from), place);
}

__global__ void __launch_bounds__(kAppendThreads) append(AppendArgs a) {
  const unsigned head = blockIdx.x, packs = a.dim / kPacked;
  Ring& ring = a.rings[head];
  const bool evicts = ring.rows == a.capacity;
  const unsigned row = evicts ? a.sink + ring.next : ring.rows;
  const unsigned pack = threadIdx.x % packs;
  const std::size_t place = (std::size_t{head} * a.capacity + row) * packs + pack;
  const std::size_t vector = std::size_t{head} * packs + pack;
  if (threadIdx.x < packs) {
    move_pack(a.key, a.keys, a.evicted_key, place, vector, evicts);
  } else if (threadIdx.x < 2 * packs) {
    move_pack(a.value, a.values, a.evicted_value, place, vector, evicts);
  }
  __syncthreads();  // all have read where the ring stood
  if (threadIdx.x != 0) return;
  if (evicts) {
    ring.next = ring.next + 1 < a.capacity - a.sink ? ring.next + 1 : 0;
  } else {
    ring.rows += 1;
  }
}

}  // namespace keyseek::cuda
