/// 8-bit codes of single vectors: what KeyStore and Router encode with.
#pragma once

#include <cstddef>
#include <cstdint>

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

}  // namespace keyseek
