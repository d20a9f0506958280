/// Decode attention of the G queries of a KV head over the rows it has on the device.
///
/// The rows are split over blocks (gridDim.x), heads over gridDim.y, and a group of more than 8
/// queries over gridDim.z, in tiles of 8. In a block, teams of lanes take rows in turn: a lane
/// holds 8 components of a row and of all queries of the tile, so a row is read once by each tile,
/// 16 bytes at a time, and scored against all of its queries. Every team keeps a running softmax
/// (FlashDecoding's split; the state as in arXiv 2205.14135); states are merged within warps, then
/// across them, and the block writes its part. A split without rows writes the empty part.
#pragma once

#include "arguments.hpp"
#include "state.cuh"

namespace keyseek::cuda {

constexpr unsigned kAttendThreads = 128;
constexpr unsigned kAttendWarps = kAttendThreads / kWarp;
constexpr float kLog2E = 1.4426950408889634F;

/// Lanes that share a row: a power of two, for d = 96 some of them have nothing to do.
template <unsigned d>
constexpr unsigned kTeam = std::bit_ceil(d / kPacked);

/// What the warps of a block leave for each other.
template <unsigned d, unsigned G>
struct AttendShared {
  float out[kAttendWarps][G][d];
  float top[kAttendWarps][G];
  float sum[kAttendWarps][G];
};

template <unsigned lanes>
__device__ float sum_over_team(float x) {
#pragma unroll
  for (unsigned mask = lanes / 2; mask > 0; mask /= 2) x += __shfl_xor_sync(kWholeWarp, x, mask);
  return x;
}

__device__ inline float dot(const float (&a)[kPacked], const float (&b)[kPacked]) {
  float sum = 0.0F;
#pragma unroll
  for (unsigned i = 0; i < kPacked; ++i) sum += a[i] * b[i];
  return sum;
}

/// The queries of a block: from `first` on, of all heads counted.
struct Tile {
  unsigned first, count;
};

template <unsigned G>
__device__ Tile tile_of_block(const AttendArgs& a) {
  const unsigned before = blockIdx.z * G, left = a.group - before;
  return {blockIdx.y * a.group + before, left < G ? left : G};
}

/// This lane's components of the tile's queries, scaled for exp2; zero beyond the group.
template <class T, unsigned d, unsigned G>
__device__ void load_queries(const AttendArgs& a, const Tile& tile, unsigned part,
                             float (&queries)[G][kPacked]) {
  const T* from = static_cast<const T*>(a.queries) + std::size_t{tile.first} * d;
#pragma unroll
  for (unsigned g = 0; g < G; ++g) {
    Pack pack{};
    if (g < tile.count && part < d) pack = load(from + g * d + part);
    unpack<T>(pack, queries[g]);
#pragma unroll
    for (unsigned i = 0; i < kPacked; ++i) queries[g][i] *= a.scale * kLog2E;
  }
}

/// One part from the states of all warps.
template <unsigned d, unsigned G>
__device__ void write_part(const AttendArgs& a, const Tile& tile,
                           const AttendShared<d, G>& shared) {
  for (unsigned i = threadIdx.x; i < tile.count * d; i += kAttendThreads) {
    const unsigned g = i / d, column = i % d;
    State<1> all;
    all.reset();
    for (unsigned warp = 0; warp < kAttendWarps; ++warp) {
      all.merge({shared.top[warp][g], shared.sum[warp][g], {shared.out[warp][g][column]}});
    }
    const unsigned query = tile.first + g;
    a.parts.out(blockIdx.x, query)[column] = all.sum > 0.0F ? all.out[0] / all.sum : 0.0F;
    if (column == 0) a.parts.lse(blockIdx.x, query) = (all.top + log2f(all.sum)) / kLog2E;
  }
}

/// Leaves one state of each warp in shared memory, that of all its teams.
template <unsigned d, unsigned G>
__device__ void share_states(State<kPacked> (&states)[G], unsigned part,
                             AttendShared<d, G>& shared) {
  const unsigned warp = threadIdx.x / kWarp;
#pragma unroll
  for (unsigned g = 0; g < G; ++g) {
#pragma unroll
    for (unsigned mask = kTeam<d>; mask < kWarp; mask *= 2) {
      states[g].merge(states[g].of_lane_xor(mask));
    }
    if (threadIdx.x % kWarp < kTeam<d> && part < d) {
#pragma unroll
      for (unsigned i = 0; i < kPacked; ++i) shared.out[warp][g][part + i] = states[g].out[i];
    }
    if (threadIdx.x % kWarp == 0) {
      shared.top[warp][g] = states[g].top;
      shared.sum[warp][g] = states[g].sum;
    }
  }
}

template <class T, unsigned d, unsigned G>
__global__ void __launch_bounds__(kAttendThreads) attend(AttendArgs a) {
  constexpr unsigned kTeams = kAttendThreads / kTeam<d>;
  constexpr unsigned kAtOnce = 2;  // rows of a team whose loads are under way together
  using Shared = AttendShared<d, G>;
  KEYSEEK_SHARED(Shared, shared);

  const unsigned team = threadIdx.x / kTeam<d>;
  const unsigned part = threadIdx.x % kTeam<d> * kPacked;  // first component of this lane
  const Tile tile = tile_of_block<G>(a);
  float queries[G][kPacked];
  load_queries<T, d>(a, tile, part, queries);
  State<kPacked> states[G];
#pragma unroll
  for (unsigned g = 0; g < G; ++g) states[g].reset();

  const unsigned rows = a.rings[blockIdx.y].rows;
  const unsigned share = (rows + gridDim.x - 1) / gridDim.x;
  const unsigned first = blockIdx.x * share;
  const unsigned last = first + share < rows ? first + share : rows;
  const std::size_t head = std::size_t{blockIdx.y} * a.capacity * d;
  const T* head_keys = static_cast<const T*>(a.keys) + head;
  const T* head_values = static_cast<const T*>(a.values) + head;

  for (unsigned base = first; base < last; base += kTeams * kAtOnce) {
    Pack keys[kAtOnce] = {}, values[kAtOnce] = {};
#pragma unroll
    for (unsigned u = 0; u < kAtOnce; ++u) {
      const unsigned row = base + u * kTeams + team;
      if (row < last && part < d) {
        keys[u] = load(head_keys + std::size_t{row} * d + part);
        values[u] = load(head_values + std::size_t{row} * d + part);
      }
    }
#pragma unroll
    for (unsigned u = 0; u < kAtOnce; ++u) {
      const bool is_row = base + u * kTeams + team < last;
      float key[kPacked], value[kPacked];
      unpack<T>(keys[u], key);
      unpack<T>(values[u], value);
#pragma unroll
      for (unsigned g = 0; g < G; ++g) {
        const float logit = sum_over_team<kTeam<d>>(dot(queries[g], key));
        if (is_row) states[g].add(logit, value);
      }
    }
  }

  share_states<d, G>(states, part, shared);
  __syncthreads();
  write_part<d, G>(a, tile, shared);
}

}  // namespace keyseek::cuda
