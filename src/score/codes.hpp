/// Codes of single vectors, in 8 bits (KeyStore, Router) and in 4 (Sketch).
#pragma once

#include <cstddef>
#include <cstdint>

#include "keyseek/matrix.hpp"

namespace keyseek {

/// Bytes of a code row of d elements.
[[nodiscard]] constexpr std::size_t code_cols(std::size_t d) noexcept { return (d + 15) / 16 * 16; }

/// Writes round(row[j] / scale) + 128 for the d elements (zero, 128, behind them) and
/// returns the scale: the largest magnitude / 127, or 1 for a zero row.
float encode_key(const float* row, std::size_t d, std::uint8_t* code);

/// Likewise without the 128, for queries; also 128 times the sum of the code.
struct QueryCode {
  float scale;
  std::int32_t correction;
};
QueryCode encode_query(const float* row, std::size_t d, std::int8_t* code);

/// Writes codes 0 to 15, of which 8 is zero, for the d elements (8 behind them), and returns the
/// scale that brings (code - 8) nearest to the row: of some steps the one that leaves least, which
/// may clip large elements. 1 for a zero row.
float encode_key_in_4_bits(const float* row, std::size_t d, std::uint8_t* code);

/// Rows of codes in blocks of 16 interleaved keys, for n keys.
[[nodiscard]] std::size_t blocked_rows(std::size_t n) noexcept;

/// Puts key i's code of `cols` bytes where blocks keep it.
void place_in_block(const std::uint8_t* code, std::size_t cols, std::size_t i,
                    std::uint8_t* codes) noexcept;

/// Likewise a code of 4 bits, two elements a byte: see CodeBlocks.
void place_in_half_block(const std::uint8_t* code, std::size_t cols, std::size_t i,
                         std::uint8_t* codes) noexcept;

/// Keeps the first `count` keys of codes, of `bytes` a key, and scales in blocks, and pads the last
/// block with codes of zero, whose bytes are all `zero`.
void truncate_blocks(std::size_t count, std::size_t bytes, std::uint8_t zero,
                     AlignedVector<std::uint8_t>& codes, AlignedVector<float>& scales);

}  // namespace keyseek
