/// What kernels are given, and how it lies in device memory. Plain structs of pointers, for
/// kernels, for the host code that fills them in, and for tests.
#pragma once

#include <cstddef>
#include <cstdint>

#include "keyseek/matrix.hpp"

#if defined(__CUDACC__)
#define KEYSEEK_BOTH __host__ __device__
#else
#define KEYSEEK_BOTH
#endif

namespace keyseek::cuda {

/// Queries of one KV head that a kernel holds at once, so that each key is read once for all of
/// these: a tile of the group.
constexpr unsigned kMostQueries = 8;
constexpr unsigned kMostGroup = 64;

/// How far the rows of one KV head are filled. Rows [0, sink) stay; the others are a ring, and
/// since attention does not ask for the order of tokens, all filled rows are simply the first.
struct Ring {
  std::uint32_t rows;  ///< filled, sink and window
  std::uint32_t next;  ///< row of the window, counted from the sink, that is replaced next
};

/// Partial attention of the same queries over several sets of tokens. A part is contiguous, so
/// that one copy brings it: [queries, dim] outputs, then [queries] lse, natural, -infinity over
/// no token. Parts start at multiples of 16 bytes.
struct Parts {
  float* data;
  std::uint32_t queries;  ///< of all heads
  std::uint32_t dim;

  [[nodiscard]] KEYSEEK_BOTH std::size_t part_size() const {
    return std::size_t{queries} * (dim + 1);
  }
  [[nodiscard]] KEYSEEK_BOTH std::size_t stride() const { return (part_size() + 3) / 4 * 4; }
  [[nodiscard]] KEYSEEK_BOTH float* out(std::size_t part, std::size_t query) const {
    return data + part * stride() + query * dim;
  }
  [[nodiscard]] KEYSEEK_BOTH float& lse(std::size_t part, std::size_t query) const {
    return data[part * stride() + std::size_t{queries} * dim + query];
  }
};

/// attend: queries of each head over the filled rows of that head, split into `splits` parts.
struct AttendArgs {
  const void* queries;  ///< [heads, group, dim]
  const void* keys;     ///< [heads, capacity, dim]
  const void* values;   ///< [heads, capacity, dim]
  const Ring* rings;    ///< [heads]
  Parts parts;          ///< the first `splits` are written
  std::uint32_t heads, group, capacity, splits;
  float scale;  ///< of the softmax
};

/// merge: attention over the union of the first `count` parts.
struct MergeArgs {
  Parts parts;
  std::uint32_t count;
  void* out;   ///< [queries, dim]
  float* lse;  ///< [queries], or null
};

/// append: a token to the window of each head.
struct AppendArgs {
  const void* key;    ///< [heads, dim]
  const void* value;  ///< [heads, dim]
  void* keys;         ///< [heads, capacity, dim]
  void* values;       ///< [heads, capacity, dim]
  Ring* rings;        ///< [heads]
  std::uint32_t heads, dim, sink, capacity;
};

}  // namespace keyseek::cuda
