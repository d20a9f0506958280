// 8-bit codes for instruction sets without an 8-bit dot product. Plain loops over 16
// elements, which compilers turn into widening multiplies.

namespace {

// Sums are modulo 2^32: they may wrap where their difference with the correction does not.

inline std::uint32_t code_dot(const std::uint8_t* key, const std::int8_t* query, std::size_t cols) {
  std::uint32_t sum = 0;
  for (std::size_t j = 0; j < cols; j += 16) {
    for (std::size_t t = 0; t < 16; ++t) {
      sum += static_cast<std::uint32_t>(static_cast<std::int32_t>(key[j + t]) *
                                        static_cast<std::int32_t>(query[j + t]));
    }
  }
  return sum;
}

inline float code_score(std::uint32_t dot, std::size_t g, float key_scale, const CodeTile& tile) {
  const std::uint32_t sum = dot - static_cast<std::uint32_t>(tile.correction[g]);
  return tile.scale[g] * key_scale * static_cast<float>(static_cast<std::int32_t>(sum));
}

void score_codes(const CodeRows& rows, const CodeTile& tile, const CodeScores& out) {
  constexpr std::size_t kAhead = 8;
  const std::uint8_t* codes = rows.codes;
  const float* scales = rows.scales;
  const Id* ids = rows.ids;
  const std::size_t n = rows.count;
  for (std::size_t j = 0; j < n; ++j) {
    if (j + kAhead < n) {
      const std::uint8_t* ahead = codes + ids[j + kAhead] * tile.cols;
      for (std::size_t b = 0; b < tile.cols; b += 64) __builtin_prefetch(ahead + b);
      __builtin_prefetch(scales + ids[j + kAhead]);
    }
    const std::uint8_t* key = codes + ids[j] * tile.cols;
    for (std::size_t g = 0; g < tile.group; ++g) {
      out.data[g * out.stride + j] = code_score(
          code_dot(key, tile.queries + g * tile.cols, tile.cols), g, scales[ids[j]], tile);
    }
  }
}

/// Sums of one block for one query: 16 keys, 4 elements a piece.
inline void block_dots(const std::uint8_t* block, const std::int8_t* query, std::size_t cols,
                       std::uint32_t* dots) {
  for (std::size_t i = 0; i < 16; ++i) dots[i] = 0;
  for (std::size_t j = 0; j < cols; j += 4) {
    const std::uint8_t* piece = block + j * 16;
    for (std::size_t i = 0; i < 16; ++i) {
      for (std::size_t t = 0; t < 4; ++t) {
        dots[i] += static_cast<std::uint32_t>(static_cast<std::int32_t>(piece[i * 4 + t]) *
                                              static_cast<std::int32_t>(query[j + t]));
      }
    }
  }
}

void scan_blocks(const CodeBlocks& blocks, const CodeTile& tile, const ScanSink& sink) {
  for (std::size_t g = 0; g < tile.group; ++g) sink.count[g] = 0;
  for (std::size_t b = blocks.first; b < blocks.last; ++b) {
    const float* scales = blocks.scales + b * 16;
    for (std::size_t g = 0; g < tile.group; ++g) {
      std::uint32_t dots[16];
      block_dots(blocks.codes + b * 16 * tile.cols, tile.queries + g * tile.cols, tile.cols, dots);
      for (std::size_t i = 0; i < 16; ++i) {
        const float score = code_score(dots[i], g, scales[i], tile);
        const std::size_t at = g * sink.stride + sink.count[g];
        sink.ids[at] = static_cast<Id>(b * 16 + i);
        sink.scores[at] = score;
        sink.count[g] += score > sink.threshold[g] && scales[i] > 0.0F ? 1U : 0U;
      }
    }
  }
}

}  // namespace
