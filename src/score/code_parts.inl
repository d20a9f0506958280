// Codes of rows for a whole tile, over the including unit's `score_codes_of_four`: more queries at
// once have more sums than there are registers.

namespace {

/// Queries [first, first + count) of a tile.
inline CodeTile part_of(const CodeTile& tile, std::size_t first, std::size_t count) {
  return {tile.queries + first * tile.cols, tile.scale + first, tile.correction + first, count,
          tile.cols};
}

void score_codes(const CodeRows& keys, const CodeTile& tile, const CodeScores& out) {
  constexpr std::size_t kFour = 4;
  if (tile.group <= kFour) return score_codes_of_four(keys, tile, out);
  // Rows that were read for four queries are in the cache for the others.
  score_codes_of_four(keys, part_of(tile, 0, kFour), out);
  score_codes_of_four(keys, part_of(tile, kFour, tile.group - kFour),
                      {out.data + kFour * out.stride, out.stride});
}

}  // namespace
