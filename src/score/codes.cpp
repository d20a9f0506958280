/// Encodes single vectors in 8 or 4 bits and puts codes into blocks.
#include "score/codes.hpp"

#include <algorithm>
#include <bit>
#include <cmath>

#include "keyseek/key_store.hpp"

namespace keyseek {
namespace {

float largest_of(const float* row, std::size_t d) {
  float largest = 0.0F;
  for (std::size_t j = 0; j < d; ++j) largest = std::max(largest, std::fabs(row[j]));
  return largest;
}

float scale_of(const float* row, std::size_t d) {
  const float scale = largest_of(row, d) / 127.0F;
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

/// Codes of 4 bits, for a step, and what they say about the row.
struct Coded {
  float product = 0;  ///< of code - 8 and row
  std::int32_t power = 0;
};

Coded code_in_4_bits(const float* row, std::size_t d, float step, std::uint8_t* code) {
  const float inverse = 1.0F / step;
  Coded coded;
  for (std::size_t j = 0; j < d; ++j) {
    const std::int32_t value = std::clamp(nearest_code(row[j], inverse), -8, 7);
    code[j] = static_cast<std::uint8_t>(value + 8);
    coded.product += static_cast<float>(value) * row[j];
    coded.power += value * value;
  }
  return coded;
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

float encode_key_in_4_bits(const float* row, std::size_t d, std::uint8_t* code) {
  // The largest element over the step. Few elements are as large: a clipped one costs less than
  // what coarser steps would cost all others.
  constexpr float kLargest[] = {7.5F, 9.0F, 10.5F, 12.0F, 14.0F};
  const float largest = largest_of(row, d);
  float best = 0.0F, chosen = 1.0F;
  for (const float most : kLargest) {
    const float step = largest / most;
    if (!std::isnormal(step)) break;  // a zero row, or next to one
    const Coded coded = code_in_4_bits(row, d, step, code);
    // Of the row's power, what the nearest multiple of the code takes away; in units that cannot
    // overflow.
    const float part = coded.product / largest;
    const float taken = part * part / static_cast<float>(std::max(coded.power, 1));
    if (taken > best) best = taken, chosen = step;
  }
  const Coded coded = code_in_4_bits(row, d, chosen, code);
  std::fill(code + d, code + code_cols(d), std::uint8_t{8});
  const float scale = coded.product / static_cast<float>(std::max(coded.power, 1));
  return std::isnormal(scale) && scale > 0.0F ? scale : 1.0F;
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

void place_in_half_block(const std::uint8_t* code, std::size_t cols, std::size_t i,
                         std::uint8_t* codes) noexcept {
  constexpr std::size_t kPiece = 4;
  const std::size_t first = i / KeyStore::kBlock * KeyStore::kBlock * cols / 2;
  std::uint8_t* lane = codes + first + i % KeyStore::kBlock * kPiece;
  for (std::size_t j = 0; j < cols; j += 2 * kPiece, lane += kPiece * KeyStore::kBlock) {
    for (std::size_t t = 0; t < kPiece; ++t)
      lane[t] = static_cast<std::uint8_t>(code[j + t] | code[j + kPiece + t] << 4U);
  }
}

void truncate_blocks(std::size_t count, std::size_t bytes, std::uint8_t zero,
                     AlignedVector<std::uint8_t>& codes, AlignedVector<float>& scales) {
  const std::size_t rows = blocked_rows(count);
  const std::vector<std::uint8_t> padding(bytes, zero);
  codes.resize(rows * bytes);
  scales.resize(rows);
  for (std::size_t i = count; i < rows; ++i) {
    place_in_block(padding.data(), bytes, i, codes.data());
    scales[i] = 0.0F;
  }
}

}  // namespace keyseek
