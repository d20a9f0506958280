/// Exact lists of training queries: rows of ids, best first, padded with kNoId.
#pragma once

#include <algorithm>
#include <cstddef>
#include <span>

#include "base/fail.hpp"
#include "keyseek/matrix.hpp"

namespace keyseek {

/// The first `most` keys of query q's list.
[[nodiscard]] inline std::span<const Id> list_of(MatrixView<Id> lists, std::size_t q,
                                                 std::size_t most = SIZE_MAX) {
  const Id* begin = lists.row(q);
  const Id* end = begin + std::min(most, lists.cols);
  return {begin, std::find(begin, end, kNoId)};
}

/// Throws Error(invalid_argument) on a key that is not below n.
inline void require_lists(MatrixView<Id> lists, std::size_t n) {
  for (std::size_t q = 0; q < lists.rows; ++q) {
    for (const Id id : list_of(lists, q)) {
      require(id < n, "lists row {} names key {}, but there are {} keys", q, id, n);
    }
  }
}

}  // namespace keyseek
