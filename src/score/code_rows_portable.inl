// 8-bit and 4-bit codes for instruction sets without an 8-bit dot product. Plain loops over 16
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

inline float code_sum(std::uint32_t dot, std::size_t g, const CodeTile& tile) {
  return static_cast<float>(
      static_cast<std::int32_t>(dot - static_cast<std::uint32_t>(tile.correction[g])));
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
      out.data[g * out.stride + j] =
          tile.scale[g] * scales[ids[j]] *
          code_sum(code_dot(key, tile.queries + g * tile.cols, tile.cols), g, tile);
    }
  }
}

/// Codes of 8 bits: a piece has 4 elements of a key.
struct Bytes {
  static constexpr std::size_t kElements = 4;
  static void add(const std::uint8_t* piece, const std::int8_t* query, std::uint32_t* dots) {
    for (std::size_t i = 0; i < 16; ++i) {
      for (std::size_t t = 0; t < 4; ++t) {
        dots[i] += static_cast<std::uint32_t>(static_cast<std::int32_t>(piece[i * 4 + t]) *
                                              static_cast<std::int32_t>(query[t]));
      }
    }
  }
};

/// Codes of 4 bits: twice as many.
struct Halves {
  static constexpr std::size_t kElements = 8;
  static void add(const std::uint8_t* piece, const std::int8_t* query, std::uint32_t* dots) {
    std::uint8_t low[64], high[64];
    for (std::size_t i = 0; i < 64; ++i) {
      low[i] = piece[i] & 0x0fU;
      high[i] = static_cast<std::uint8_t>(piece[i] >> 4U);
    }
    Bytes::add(low, query, dots);
    Bytes::add(high, query + 4, dots);
  }
};

template <class Codes>
void scan_blocks(const CodeBlocks& blocks, const CodeTile& tile, const ScanSink& sink) {
  float limit[CodeTile::kMaxTile];
  begin_scan(tile, sink, limit);
  const std::size_t block_bytes = tile.cols / Codes::kElements * 64;
  for (std::size_t b = blocks.first; b < blocks.last; ++b) {
    const float* scales = blocks.scales + b * 16;
    for (std::size_t g = 0; g < tile.group; ++g) {
      std::uint32_t dots[16] = {};
      const std::uint8_t* piece = blocks.codes + b * block_bytes;
      for (std::size_t j = 0; j < tile.cols; j += Codes::kElements, piece += 64)
        Codes::add(piece, tile.queries + g * tile.cols + j, dots);
      for (std::size_t i = 0; i < 16; ++i) {
        const float score = scales[i] * code_sum(dots[i], g, tile);
        const std::size_t at = g * sink.stride + sink.count[g];
        sink.ids[at] = static_cast<Id>(b * 16 + i);
        sink.scores[at] = tile.scale[g] * score;
        sink.count[g] += score > limit[g] && scales[i] > 0.0F ? 1U : 0U;
      }
    }
  }
}

}  // namespace
