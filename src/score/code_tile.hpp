/// Rows of encoded queries as the kernels' tiles of at most four.
#pragma once

#include <algorithm>
#include <cstddef>

#include "keyseek/key_store.hpp"
#include "score/kernels.hpp"

namespace keyseek {

/// Rows [first, first + count) of encoded queries.
[[nodiscard]] inline CodeTile tile_of(const EncodedQueries& queries, std::size_t first,
                                      std::size_t count) noexcept {
  return {queries.codes.row(first), queries.scale.data() + first, queries.correction.data() + first,
          count, queries.codes.cols()};
}

/// visit(first, count) for tile after tile of `group` queries.
template <class Visit>
void each_tile(std::size_t group, const Visit& visit) {
  for (std::size_t first = 0; first < group; first += CodeTile::kMaxTile)
    visit(first, std::min(CodeTile::kMaxTile, group - first));
}

}  // namespace keyseek
