/// Encodes single vectors in 8 bits and puts codes into blocks.
#include "score/codes.hpp"

#include <algorithm>
#include <bit>
#include <cmath>

#include "keyseek/key_store.hpp"

namespace keyseek {
namespace {

float scale_of(const float* row, std::size_t d) {
  float largest = 0.0F;
  for (std::size_t j = 0; j < d; ++j) largest = std::max(largest, std::fabs(row[j]));
  const float scale = largest / 127.0F;
  return std::isnormal(scale) ? scale : 1.0F;
}

/// x * inverse, rounded to the nearest integer (even when halfway) within [-127, 127].
/// Adding 1.5 * 2^23 leaves the integer in the low bits, which vectorises everywhere.
std::int32_t nearest_code(float x, float inverse) {
  const float wanted = x * inverse;
  // Written so that NaN, which products of huge numbers can become, is -127.
  const float above = wanted > -127.0F ? wanted : -127.0F;
  const float clamped = above < 127.0F ? above : 127.0F;
  return std::bit_cast<std::int32_t>(clamped + 0x1.8p23F) - std::bit_cast<std::int32_t>(0x1.8p23F);
}

}  // namespace

float encode_key(const float* row, std::size_t d, std::uint8_t* code) {
  const float scale = scale_of(row, d);
  const float inverse = 1.0F / scale;
  for (std::size_t j = 0; j < d; ++j)
    code[j] = static_cast<std::uint8_t>(nearest_code(row[j], inverse) + 128);
  std::fill(code + d, code + code_cols(d), std::uint8_t{128});
  return scale;
}

QueryCode encode_query(const float* row, std::size_t d, std::int8_t* code) {
  const float scale = scale_of(row, d);
  const float inverse = 1.0F / scale;
  std::int32_t sum = 0;
  for (std::size_t j = 0; j < d; ++j) {
    const std::int32_t value = nearest_code(row[j], inverse);
    code[j] = static_cast<std::int8_t>(value);
    sum += value;
  }
  std::fill(code + d, code + code_cols(d), std::int8_t{0});
  // Modulo 2^32, like the sums it is taken from: only their difference is a number of its own.
  return {scale, static_cast<std::int32_t>(128U * static_cast<std::uint32_t>(sum))};
}

std::size_t blocked_rows(std::size_t n) noexcept {
  return (n + KeyStore::kBlock - 1) / KeyStore::kBlock * KeyStore::kBlock;
}

void place_in_block(const std::uint8_t* code, std::size_t cols, std::size_t i,
                    std::uint8_t* codes) noexcept {
  constexpr std::size_t kPiece = 4;
  std::uint8_t* lane =
      codes + i / KeyStore::kBlock * KeyStore::kBlock * cols + i % KeyStore::kBlock * kPiece;
  for (std::size_t j = 0; j < cols; j += kPiece)
    std::copy_n(code + j, kPiece, lane + j * KeyStore::kBlock);
}

void truncate_blocks(std::size_t count, std::size_t cols, AlignedVector<std::uint8_t>& codes,
                     AlignedVector<float>& scales) {
  const std::size_t rows = blocked_rows(count);
  const std::vector<std::uint8_t> padding(cols, 128);
  codes.resize(rows * cols);
  scales.resize(rows);
  for (std::size_t i = count; i < rows; ++i) {
    place_in_block(padding.data(), cols, i, codes.data());
    scales[i] = 0.0F;
  }
}

}  // namespace keyseek
