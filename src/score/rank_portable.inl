// Selecting and ranking 64-bit numbers, in plain loops.

namespace {

std::size_t select_above(const float* scores, std::size_t n, float threshold, std::uint32_t* out) {
  std::size_t count = 0;
  for (std::size_t j = 0; j < n; ++j) {
    out[count] = static_cast<std::uint32_t>(j);
    count += scores[j] > threshold ? 1U : 0U;
  }
  return count;
}

inline void range_of(const std::uint64_t* items, std::size_t n, std::uint64_t* smallest,
                     std::uint64_t* largest) {
  *smallest = *largest = items[0];
  for (std::size_t i = 1; i < n; ++i) {
    *smallest = items[i] < *smallest ? items[i] : *smallest;
    *largest = items[i] > *largest ? items[i] : *largest;
  }
}

inline std::size_t count_above(const std::uint64_t* items, std::size_t n, std::uint64_t bar) {
  std::size_t count = 0;
  for (std::size_t i = 0; i < n; ++i) count += items[i] > bar ? 1U : 0U;
  return count;
}

inline std::size_t compress_above(std::uint64_t* items, std::size_t n, std::uint64_t bar) {
  std::size_t count = 0;
  for (std::size_t i = 0; i < n; ++i) {
    const std::uint64_t item = items[i];
    items[count] = item;
    count += item > bar ? 1U : 0U;
  }
  return count;
}

void rank_descending(const std::uint64_t* items, std::size_t n, std::uint32_t* rank) {
  for (std::size_t i = 0; i < n; ++i) {
    std::uint32_t larger = 0;
    for (std::size_t j = 0; j < n; ++j) larger += items[j] > items[i] ? 1U : 0U;
    rank[i] = larger;
  }
}

}  // namespace

#include "score/keep_top.inl"
