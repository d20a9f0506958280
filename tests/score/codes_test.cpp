// Codes: how vectors are encoded, and the kernels that score them, bit by bit.
#include "score/codes.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <memory>
#include <utility>
#include <vector>

#include "keyseek/key_store.hpp"
#include "score/kernels.hpp"
#include "support/random_data.hpp"

namespace keyseek {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr std::size_t kBlock = KeyStore::kBlock;
constexpr std::size_t kCols[] = {16,  32,  48,  64,  80,  96,  112, 128, 144,
                                 160, 176, 192, 208, 240, 256, 272, 512, 1024};

/// Memory that ends with its last element, for an address sanitizer to watch.
template <class T>
class Exact {
 public:
  explicit Exact(std::size_t n, T value = {}) : data_(new T[n]), size_(n) {
    std::fill_n(data_.get(), n, value);
  }
  [[nodiscard]] T* data() const { return data_.get(); }
  [[nodiscard]] std::size_t size() const { return size_; }
  T& operator[](std::size_t i) const { return data_[i]; }

 private:
  std::unique_ptr<T[]> data_;
  std::size_t size_;
};

/// Random codes of keys, of 8 or 4 bits, and queries, of which every third vector is extreme
/// throughout.
struct Coded {
  std::size_t n, group, cols;
  int zero;  ///< what stands for it in a key's code
  Exact<std::uint8_t> keys;
  Exact<float> scales;
  Exact<std::int8_t> queries;
  Exact<float> query_scales;
  Exact<std::int32_t> corrections;

  Coded(std::size_t n_, std::size_t group_, std::size_t cols_, std::uint64_t seed, int bits = 8)
      : n(n_),
        group(group_),
        cols(cols_),
        zero(1 << (bits - 1)),
        keys(n_ * cols_),
        scales(n_),
        queries(group_ * cols_),
        query_scales(group_),
        corrections(group_) {
    Random random(seed);
    for (std::size_t i = 0; i < n; ++i) {
      for (std::size_t j = 0; j < cols; ++j) {
        const auto largest = static_cast<std::uint64_t>(2 * zero - 1);
        const std::uint64_t x = random.below(largest) + 1;
        keys[i * cols + j] = static_cast<std::uint8_t>(i % 3 != 0 ? x : i % 2 == 0 ? largest : 1);
      }
      scales[i] = static_cast<float>(0.01 + random.uniform());
    }
    for (std::size_t g = 0; g < group; ++g) {
      std::int32_t sum = 0;
      for (std::size_t j = 0; j < cols; ++j) {
        const int x = static_cast<int>(random.below(255)) - 127;
        const int code = g % 3 != 1 ? x : seed % 2 == 0 ? 127 : -127;
        queries[g * cols + j] = static_cast<std::int8_t>(code);
        sum += code;
      }
      corrections[g] = zero * sum;
      query_scales[g] = static_cast<float>(0.001 + random.uniform());
    }
  }

  [[nodiscard]] CodeTile tile() const {
    return {queries.data(), query_scales.data(), corrections.data(), group, cols};
  }
  [[nodiscard]] float dot(std::size_t i, std::size_t g) const {
    std::int32_t sum = 0;
    for (std::size_t j = 0; j < cols; ++j) {
      sum += (int{keys[i * cols + j]} - zero) * int{queries[g * cols + j]};
    }
    return static_cast<float>(sum);
  }
  /// The score by its definition: a sum of whole numbers, then two products of floats.
  [[nodiscard]] float score(std::size_t i, std::size_t g) const {
    const float scale = query_scales[g] * scales[i];
    return scale * dot(i, g);
  }
  /// Of a scan, which multiplies in another order.
  [[nodiscard]] float scanned(std::size_t i, std::size_t g) const {
    return query_scales[g] * (scales[i] * dot(i, g));
  }
};

TEST(ScoreCodes, EveryLevelEqualsTheDefinition) {
  for (const std::size_t cols : kCols) {
    for (std::size_t group = 1; group <= CodeTile::kMaxTile; ++group) {
      const Coded coded(40, group, cols, cols + group);
      Random random(cols);
      for (const std::size_t n : {0U, 1U, 2U, 3U, 4U, 5U, 7U, 8U, 15U, 16U, 17U, 31U, 37U}) {
        const Exact<Id> ids(n);
        for (std::size_t j = 0; j < n; ++j) ids[j] = static_cast<Id>(random.below(coded.n));
        const std::size_t stride = n + 3;
        for (const Isa isa : available_isas()) {
          const Exact<float> out(group * stride, -9.0F);
          kernels_for(isa).score_codes({coded.keys.data(), coded.scales.data(), ids.data(), n},
                                       coded.tile(), {out.data(), stride});
          for (std::size_t g = 0; g < group; ++g) {
            for (std::size_t j = 0; j < stride; ++j) {
              const float expected = j < n ? coded.score(ids[j], g) : -9.0F;
              ASSERT_EQ(out[g * stride + j], expected)
                  << to_string(isa) << " cols " << cols << " G " << group << " n " << n << " j "
                  << j;
            }
          }
        }
      }
    }
  }
}

/// The keys of `coded` in blocks; the last one is filled up with zero vectors of scale 0.
struct Blocks {
  std::size_t count;
  Exact<std::uint8_t> codes;
  Exact<float> scales;
  Scan Kernels::*scan;

  explicit Blocks(const Coded& coded)
      : count((coded.n + kBlock - 1) / kBlock),
        codes(coded.zero == 128 ? bytes(coded) : halves(coded)),
        scales(count * kBlock, 0.0F),
        scan(coded.zero == 128 ? &Kernels::scan_blocks : &Kernels::scan_half_blocks) {
    std::copy_n(coded.scales.data(), coded.n, scales.data());
  }

  [[nodiscard]] Exact<std::uint8_t> bytes(const Coded& coded) const {
    Exact<std::uint8_t> all(count * kBlock * coded.cols, 128);
    for (std::size_t i = 0; i < coded.n; ++i)
      for (std::size_t j = 0; j < coded.cols; ++j) {
        const std::size_t piece = i / kBlock * coded.cols / 4 + j / 4;
        all[piece * 4 * kBlock + i % kBlock * 4 + j % 4] = coded.keys[i * coded.cols + j];
      }
    return all;
  }
  [[nodiscard]] Exact<std::uint8_t> halves(const Coded& coded) const {
    Exact<std::uint8_t> all(count * kBlock * coded.cols / 2, 0x88);
    for (std::size_t i = 0; i < coded.n; ++i)
      for (std::size_t j = 0; j < coded.cols; ++j) {
        const std::size_t piece = i / kBlock * coded.cols / 8 + j / 8;
        const int shift = j % 8 < 4 ? 0 : 4;
        std::uint8_t& byte = all[piece * 4 * kBlock + i % kBlock * 4 + j % 4];
        byte = static_cast<std::uint8_t>((byte & (0xf0 >> shift)) |
                                         (int{coded.keys[i * coded.cols + j]} << shift));
      }
    return all;
  }
};

/// Scans blocks [first, last) at every level and compares with the definition.
void check_scan(const Coded& coded, const Blocks& blocks, std::size_t first, std::size_t last,
                const std::vector<float>& thresholds) {
  for (const Isa isa : available_isas()) {
    const std::size_t room = kBlock * (last - first);
    const Exact<Id> ids(coded.group * room, kNoId);
    const Exact<float> scores(coded.group * room, -9.0F);
    const Exact<std::size_t> counts(coded.group, 77);
    (kernels_for(isa).*blocks.scan)(
        {blocks.codes.data(), blocks.scales.data(), first, last}, coded.tile(),
        {ids.data(), scores.data(), room, thresholds.data(), counts.data()});
    for (std::size_t g = 0; g < coded.group; ++g) {
      std::vector<std::pair<Id, float>> expected, found;
      const float limit = thresholds[g] / coded.query_scales[g];
      for (std::size_t i = first * kBlock; i < std::min(coded.n, last * kBlock); ++i) {
        if (coded.scales[i] * coded.dot(i, g) > limit)
          expected.emplace_back(static_cast<Id>(i), coded.scanned(i, g));
      }
      ASSERT_EQ(counts[g], expected.size()) << to_string(isa) << " n " << coded.n << " query " << g;
      for (std::size_t i = g * room; i < g * room + counts[g]; ++i) {
        found.emplace_back(ids[i], scores[i]);
      }
      ASSERT_EQ(found, expected) << to_string(isa) << " n " << coded.n << " query " << g;
    }
  }
}

TEST(ScanBlocks, EveryLevelEqualsTheDefinition) {
  for (const std::size_t cols : kCols) {
    for (std::size_t group = 1; group <= CodeTile::kMaxTile; ++group) {
      for (const int bits : {8, 4}) {
        const Coded coded(16 * 9 + 5, group, cols, cols + group + 1, bits);
        const Blocks blocks(coded);
        const std::vector<float> open(group, -kInfinity);
        check_scan(coded, blocks, 0, blocks.count, open);
        check_scan(coded, blocks, 2, blocks.count - 1, open);
      }
    }
  }
}

TEST(ScanBlocks, NoBlocksHoldNothing) {
  const Coded coded(16, 4, 32, 1);
  for (const Isa isa : available_isas()) {
    const std::vector<float> open(4, -kInfinity);
    std::vector<std::size_t> counts(4, 77);
    for (const Scan scan : {kernels_for(isa).scan_blocks, kernels_for(isa).scan_half_blocks}) {
      scan({nullptr, nullptr, 4, 4}, coded.tile(),
           {nullptr, nullptr, 0, open.data(), counts.data()});
      EXPECT_EQ(counts, std::vector<std::size_t>(4, 0));
      counts.assign(4, 77);
    }
  }
}

TEST(ScanBlocks, PaddingIsNeverReturned) {
  for (std::size_t n = 1; n <= 200; n += n < 40 ? 1 : 13) {
    for (const int bits : {8, 4}) {
      const Coded coded(n, 4, 32, n, bits);
      const Blocks blocks(coded);
      // The padding's score is 0: above a negative threshold.
      check_scan(coded, blocks, 0, blocks.count, {-kInfinity, -1e30F, -1.0F, 0.0F});
    }
  }
}

TEST(ScanBlocks, OnlyScoresAboveTheThresholdAreKept) {
  for (const std::size_t group : {4U, 7U})
    for (const int bits : {8, 4}) {
      const Coded coded(16 * 5 + 3, group, 64, 3, bits);
      const Blocks blocks(coded);
      check_scan(coded, blocks, 0, blocks.count, std::vector<float>(group, kInfinity));
      for (std::size_t i = 0; i < coded.n; i += 5) {
        std::vector<float> ties(group);
        for (std::size_t g = 0; g < group; ++g) ties[g] = coded.scanned((i + g) % coded.n, g);
        check_scan(coded, blocks, 0, blocks.count, ties);
      }
    }
}

TEST(PlaceInHalfBlock, IsWhatTheKernelsRead) {
  const Coded coded(16 * 3 + 5, 1, 48, 5, 4);
  const Blocks blocks(coded);
  Exact<std::uint8_t> placed(blocks.codes.size(), 0x88);
  for (std::size_t i = 0; i < coded.n; ++i)
    place_in_half_block(coded.keys.data() + i * coded.cols, coded.cols, i, placed.data());
  for (std::size_t i = 0; i < placed.size(); ++i) ASSERT_EQ(placed[i], blocks.codes[i]);
}

TEST(EncodeKeyIn4Bits, LosesAboutAHundredthOfTheRow) {
  for (const std::size_t d : {16U, 17U, 64U, 200U}) {
    const Matrix<float> row = test::normal_matrix(1, d, d);
    std::vector<std::uint8_t> code(code_cols(d), 77);
    const float scale = encode_key_in_4_bits(row.row(0), d, code.data());
    double lost = 0, all = 0;
    for (std::size_t j = 0; j < code.size(); ++j) {
      ASSERT_LE(code[j], 15);
      const float x = j < d ? row.row(0)[j] : 0.0F;
      lost += std::pow(double{x} - double{scale} * (int{code[j]} - 8), 2);
      all += std::pow(double{x}, 2);
    }
    EXPECT_LT(lost, 0.02 * all) << d;
  }
}

TEST(EncodeKeyIn4Bits, TakesNumbersOfAnySize) {
  for (const float size : {0.0F, 1e-42F, 1e-36F, 1e37F}) {
    const std::vector<float> row = {size, -size, size / 2, 0.0F};
    std::vector<std::uint8_t> code(code_cols(row.size()));
    const float scale = encode_key_in_4_bits(row.data(), row.size(), code.data());
    ASSERT_TRUE(std::isnormal(scale) && scale > 0.0F) << size;
    if (size < 1e-38F) continue;
    for (std::size_t j = 0; j < row.size(); ++j)
      EXPECT_NEAR(scale * static_cast<float>(int{code[j]} - 8), row[j], 0.1F * size) << size;
  }
}

TEST(EncodeKey, RoundsToTheNearestStep) {
  for (const std::size_t d : {1U, 2U, 15U, 16U, 17U, 100U}) {
    const Matrix<float> row = test::normal_matrix(1, d, d);
    std::vector<std::uint8_t> code(code_cols(d), 7);
    const float scale = encode_key(row.row(0), d, code.data());
    float largest = 0;
    for (std::size_t j = 0; j < d; ++j) largest = std::max(largest, std::fabs(row.row(0)[j]));
    EXPECT_FLOAT_EQ(scale, largest / 127.0F);
    for (std::size_t j = 0; j < d; ++j) {
      const float decoded = scale * static_cast<float>(int{code[j]} - 128);
      EXPECT_NEAR(decoded, row.row(0)[j], 0.5001F * scale);
    }
    for (std::size_t j = d; j < code.size(); ++j) EXPECT_EQ(code[j], 128);
  }
}

TEST(EncodeKey, NoCodeLeavesItsRange) {
  const std::vector<std::vector<float>> rows = {{0, 0, 0},          {1e-45F, -1e-45F, 0},
                                                {3e38F, -3e38F, 1}, {1e-38F, 0, -0.0F},
                                                {-1, -1, -1},       {2e-36F, 1e-38F, 0}};
  for (const auto& row : rows) {
    std::uint8_t code[16];
    std::int8_t query[16];
    const float scale = encode_key(row.data(), 3, code);
    const QueryCode encoded = encode_query(row.data(), 3, query);
    EXPECT_TRUE(std::isnormal(scale) && scale > 0.0F);
    EXPECT_EQ(encoded.scale, scale);
    std::int32_t sum = 0;
    for (std::size_t j = 0; j < 16; ++j) {
      EXPECT_GE(code[j], 1);
      EXPECT_EQ(int{query[j]}, int{code[j]} - 128);
      sum += query[j];
    }
    EXPECT_EQ(encoded.correction, 128 * sum);
    for (std::size_t j = 0; j < 3; ++j) {
      // A row too small for a scale of its own is a zero row.
      EXPECT_NEAR(scale * static_cast<float>(query[j]), row[j], 0.5001F * std::fmin(scale, 1e38F));
    }
  }
}

}  // namespace
}  // namespace keyseek
