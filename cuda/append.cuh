/// Appends a token to the window of each head, in place of the oldest one once it is full.
///
/// One block for each head; a thread moves 16 bytes of key or value. The row is read from device
/// memory and not an argument, so that a captured graph appends to the right place each time.
#pragma once

#include "arguments.hpp"
#include "device.cuh"

namespace keyseek::cuda {

constexpr unsigned kAppendThreads = 64;  // 2 * 256 / kPacked

__global__ void __launch_bounds__(kAppendThreads) append(AppendArgs a) {
  const unsigned head = blockIdx.x, packs = a.dim / kPacked;
  Ring& ring = a.rings[head];
  const bool is_full = ring.rows == a.capacity;
  const unsigned row = is_full ? a.sink + ring.next : ring.rows;
  const unsigned pack = threadIdx.x % packs;
  const std::size_t place = (std::size_t{head} * a.capacity + row) * packs + pack;
  const std::size_t vector = std::size_t{head} * packs + pack;
  if (threadIdx.x < packs) {
    store(load(static_cast<const Pack*>(a.key) + vector), static_cast<Pack*>(a.keys) + place);
  } else if (threadIdx.x < 2 * packs) {
    store(load(static_cast<const Pack*>(a.value) + vector), static_cast<Pack*>(a.values) + place);
  }
  __syncthreads();  // all have read where the ring stood
  if (threadIdx.x != 0) return;
  if (is_full) {
    ring.next = ring.next + 1 < a.capacity - a.sink ? ring.next + 1 : 0;
  } else {
    ring.rows += 1;
  }
}

}  // namespace keyseek::cuda
