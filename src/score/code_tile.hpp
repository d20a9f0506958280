/// What the kernels of codes take: rows of encoded queries as tiles of at most eight, keys as rows.
#pragma once

#include <algorithm>
#include <cstddef>
#include <span>

#include "keyseek/key_store.hpp"
#include "score/kernels.hpp"

namespace keyseek {

/// Rows [first, first + count) of encoded queries.
[[nodiscard]] inline CodeTile tile_of(const EncodedQueries& queries, std::size_t first,
                                      std::size_t count) noexcept {
  return {queries.codes.row(first), queries.scale.data() + first, queries.correction.data() + first,
          count, queries.codes.cols()};
}

/// The keys of `store`, in rows, that `ids` names.
[[nodiscard]] inline CodeRows code_rows(const KeyStore& store, std::span<const Id> ids) noexcept {
  return {store.codes(), store.scales(), ids.data(), ids.size()};
}

/// visit(first, count) for tile after tile of `group` queries.
template <class Visit>
void each_tile(std::size_t group, const Visit& visit) {
  for (std::size_t first = 0; first < group; first += CodeTile::kMaxTile)
    visit(first, std::min(CodeTile::kMaxTile, group - first));
}

}  // namespace keyseek
