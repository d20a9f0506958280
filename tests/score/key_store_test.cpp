#include "keyseek/key_store.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "file/temporary_directory.hpp"
#include "score/codes.hpp"
#include "support/random_data.hpp"
#include "support/reference.hpp"

namespace keyseek {
namespace {

using test::any;
using test::elements;
using test::expect_error;
using test::normal_matrix;

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();

/// Code j of key i, less the 128, wherever the layout keeps it.
int code_of(const KeyStore& store, std::size_t i, std::size_t j) {
  const std::size_t cols = store.code_cols(), block = KeyStore::kBlock;
  const std::size_t at = store.layout() == CodeLayout::rows
                             ? i * cols + j
                             : (i / block * cols / 4 + j / 4) * 4 * block + i % block * 4 + j % 4;
  return int{store.codes()[at]} - 128;
}

/// Every element is reproduced within half a step of its channel.
void expect_reproduced(const KeyStore& store) {
  const KeyStore::Parts parts = store.parts();
  std::vector<float> key(store.dim());
  for (std::size_t i = 0; i < store.size(); ++i) {
    store.stored().copy_row(i, key.data());
    for (std::size_t j = 0; j < store.dim(); ++j) {
      const double step = double{store.scales()[i]} * double{parts.channel[j]};
      const double decoded = double{parts.mean[j]} + step * code_of(store, i, j);
      const double rounding = 1e-6 * (std::fabs(key[j]) + std::fabs(parts.mean[j]));
      ASSERT_NEAR(decoded, key[j], 0.5001 * step + rounding) << "key " << i << " channel " << j;
    }
    for (std::size_t j = store.dim(); j < store.code_cols(); ++j)
      ASSERT_EQ(code_of(store, i, j), 0);
  }
}

/// Keys with a mean, and channels of very different sizes.
Matrix<float> uneven_keys(std::size_t n, std::size_t d, std::uint64_t seed) {
  Matrix<float> keys = normal_matrix(n, d, seed);
  for (std::size_t i = 0; i < n; ++i) {
    for (std::size_t j = 0; j < d; ++j) {
      const float size = std::ldexp(1.0F, static_cast<int>(j % 7) - 3);
      keys.row(i)[j] = size * (keys.row(i)[j] + 3.0F);
    }
  }
  return keys;
}

TEST(KeyStore, CodesReproduceKeys) {
  for (const std::size_t d : {1U, 2U, 15U, 16U, 17U, 64U, 100U}) {
    const Matrix<float> keys = uneven_keys(45, d, d), queries = normal_matrix(9, d, d + 1);
    for (const Dtype dtype : {Dtype::f32, Dtype::f16, Dtype::bf16, Dtype::i8}) {
      for (const CodeLayout layout : {CodeLayout::rows, CodeLayout::blocks}) {
        const AnyMatrix stored = test::stored_as(keys, dtype);
        const KeyStore store = KeyStore::encode(stored.view(), queries, layout);
        ASSERT_EQ(store.size(), 45U);
        ASSERT_EQ(store.dim(), d);
        ASSERT_EQ(store.code_cols() % 16, 0U);
        ASSERT_EQ(store.stored().dtype, dtype);
        expect_reproduced(store);
      }
    }
  }
}

TEST(KeyStore, KeepsTheKeysAsGiven) {
  const Matrix<float> wide = normal_matrix(5, 9, 1);
  const MatrixView<float> narrow(wide.data() + 2, 5, 4, 9);  // gaps between the rows
  const KeyStore store = KeyStore::encode(any(narrow), {});
  for (std::size_t i = 0; i < 5; ++i) {
    std::vector<float> key(4);
    store.stored().copy_row(i, key.data());
    EXPECT_EQ(key, std::vector<float>(narrow.row(i), narrow.row(i) + 4));
  }
  EXPECT_EQ(store.code_bytes(), 5 * 16 + 5 * sizeof(float) + 2 * 4 * sizeof(float));
}

TEST(KeyStore, BothLayoutsHoldTheSameCodes) {
  for (const std::size_t n : {1U, 15U, 16U, 17U, 50U}) {
    const Matrix<float> keys = uneven_keys(n, 20, n);
    const KeyStore rows = KeyStore::encode(any(keys), {}, CodeLayout::rows);
    const KeyStore blocks = KeyStore::encode(any(keys), {}, CodeLayout::blocks);
    for (std::size_t i = 0; i < n; ++i) {
      EXPECT_EQ(rows.scales()[i], blocks.scales()[i]);
      for (std::size_t j = 0; j < 32; ++j) ASSERT_EQ(code_of(rows, i, j), code_of(blocks, i, j));
    }
    const auto scales = elements(blocks.parts().scales);
    EXPECT_EQ(scales.size(), (n + 15) / 16 * 16);
    for (std::size_t i = n; i < scales.size(); ++i) EXPECT_EQ(scales[i], 0.0F);
  }
}

TEST(KeyStore, ChannelsBalanceKeysAndQueries) {
  // Keys vary by 4 and 1, queries by 1 and 4; the mean is 10 and 0.
  Matrix<float> keys(2, 2), queries(2, 2);
  std::copy_n(std::vector<float>{14, -1, 6, 1}.data(), 4, keys.data());
  std::copy_n(std::vector<float>{1, 4, -1, 4}.data(), 4, queries.data());
  const KeyStore store = KeyStore::encode(any(keys), queries);
  EXPECT_EQ(elements(store.parts().mean), (std::vector<float>{10, 0}));
  EXPECT_EQ(elements(store.parts().channel), (std::vector<float>{2, 0.5}));
  const KeyStore alone = KeyStore::encode(any(keys), {});
  EXPECT_EQ(elements(alone.parts().channel), (std::vector<float>{2, 1}));
}

TEST(KeyStore, StrangeKeysWork) {
  Matrix<float> keys = normal_matrix(40, 12, 2);
  std::fill_n(keys.row(3), 12, 0.0F);
  std::copy_n(keys.row(5), 12, keys.row(30));
  for (std::size_t i = 0; i < 40; ++i) keys.row(i)[7] = 2.5F;  // never varies
  const KeyStore store = KeyStore::encode(any(keys), {});
  expect_reproduced(store);
  EXPECT_EQ(store.parts().channel[7], 1.0F);
  for (std::size_t j = 0; j < 16; ++j) EXPECT_EQ(code_of(store, 5, j), code_of(store, 30, j));

  Matrix<float> tiny(3, 4);
  for (std::size_t i = 0; i < 12; ++i) tiny.data()[i] = 1e-42F * static_cast<float>(i);
  expect_reproduced(KeyStore::encode(any(tiny), {}));
  expect_reproduced(KeyStore::encode(any(Matrix<float>(3, 4)), {}));  // zero vectors only
  expect_reproduced(KeyStore::encode(any(keys.view().slice(0, 1)), {}));
}

/// The approximate score of key i for query g.
double score_of_codes(const KeyStore& store, const EncodedQueries& q, std::size_t i,
                      std::size_t g) {
  int dot = 0;
  for (std::size_t j = 0; j < store.code_cols(); ++j)
    dot += code_of(store, i, j) * q.codes.row(g)[j];
  return double{q.scale[g]} * double{store.scales()[i]} * dot + double{q.offset[g]};
}

TEST(KeyStore, ScoresOfCodesAreNearTheTruth) {
  constexpr std::size_t kDim = 40;
  const Matrix<float> keys = uneven_keys(60, kDim, 3), queries = normal_matrix(5, kDim, 4);
  const KeyStore store = KeyStore::encode(any(keys), queries);
  const EncodedQueries encoded = store.encode_queries(queries);
  for (std::size_t g = 0; g < 5; ++g) {
    int sum = 0;
    for (std::size_t j = 0; j < store.code_cols(); ++j) sum += encoded.codes.row(g)[j];
    EXPECT_EQ(encoded.correction[g], 128 * sum);
    for (std::size_t i = 0; i < 60; ++i) {
      // Both sides are rounded by up to half a step, against at most 127 steps of the other.
      const double bound = double{encoded.scale[g]} * double{store.scales()[i]} * 127.5 * kDim;
      ASSERT_NEAR(score_of_codes(store, encoded, i, g),
                  test::product(any(keys), i, queries.row(g)).value, bound / 4);
    }
  }
}

TEST(KeyStore, EncodedQueriesMayBeReusedForAnyStore) {
  EncodedQueries reused;
  for (const std::size_t d : {60U, 64U, 3U, 61U, 200U, 193U}) {
    for (const std::size_t group : {4U, 1U, 7U}) {
      const KeyStore store = KeyStore::encode(any(normal_matrix(20, d, d)), {});
      const Matrix<float> queries = normal_matrix(group, d, d + group);
      store.encode_queries(queries, reused);
      const EncodedQueries fresh = store.encode_queries(queries);
      ASSERT_EQ(elements(reused.codes), elements(fresh.codes));
      ASSERT_TRUE(std::equal(fresh.scale.begin(), fresh.scale.end(), reused.scale.begin()));
      ASSERT_TRUE(std::equal(fresh.offset.begin(), fresh.offset.end(), reused.offset.begin()));
      ASSERT_TRUE(
          std::equal(fresh.correction.begin(), fresh.correction.end(), reused.correction.begin()));
    }
  }
}

TEST(KeyStore, AppendedKeysAreEncodedAlike) {
  const Matrix<float> all = uneven_keys(70, 21, 5);
  for (const CodeLayout layout : {CodeLayout::rows, CodeLayout::blocks}) {
    const KeyStore old = KeyStore::encode(any(all.view().slice(0, 20)), {}, layout);
    const auto before = elements(old.parts().codes);
    const KeyStore more =
        old.appended(any(all.view().slice(20, 3))).appended(any(all.view().slice(23, 47)));
    ASSERT_EQ(more.size(), 70U);
    const KeyStore::Parts parts = more.parts();
    EXPECT_EQ(elements(parts.mean), elements(old.parts().mean));
    EXPECT_EQ(elements(parts.channel), elements(old.parts().channel));
    for (std::size_t i = 0; i < 70; ++i) {
      std::vector<float> key(21), row(21);
      more.stored().copy_row(i, key.data());
      EXPECT_EQ(key, std::vector<float>(all.row(i), all.row(i) + 21));
      for (std::size_t j = 0; j < 21; ++j) row[j] = (key[j] - parts.mean[j]) / parts.channel[j];
      std::vector<std::uint8_t> code(32);
      EXPECT_EQ(more.scales()[i], encode_key(row.data(), 21, code.data()));
      for (std::size_t j = 0; j < 32; ++j) ASSERT_EQ(code_of(more, i, j), int{code[j]} - 128) << i;
    }
    EXPECT_EQ(parts.scales.size(), layout == CodeLayout::rows ? 70U : 80U);
    EXPECT_EQ(old.size(), 20U);
    EXPECT_EQ(elements(old.parts().codes), before);
    EXPECT_EQ(old.appended(any(all.view().slice(0, 0))).size(), 20U);
  }
}

TEST(KeyStore, WithoutCodesItKnowsItsLongestKey) {
  Matrix<float> keys = uneven_keys(40, 5, 2);
  for (std::size_t j = 0; j < 5; ++j) keys.row(30)[j] = j == 2 ? -300.0F : 0.0F;
  const auto of = [&](std::size_t first, std::size_t count) {
    return KeyStore::encode(any(keys.view().slice(first, count)), {}, CodeLayout::none);
  };
  const KeyStore all = of(0, 40), some = of(0, 20);
  EXPECT_EQ(all.code_bytes(), 0U);
  EXPECT_EQ(all.longest(), 300.0);
  EXPECT_LT(some.longest(), 300.0);
  EXPECT_EQ(some.appended(any(keys.view().slice(20, 20))).longest(), 300.0);
  EXPECT_EQ(all.truncated(31).longest(), 300.0);
  EXPECT_EQ(all.truncated(20).longest(), some.longest());
  KeyStore::Parts parts = all.parts();
  EXPECT_EQ(KeyStore::from_parts(parts).longest(), 300.0);
  for (const double wrong : {-1.0, std::numeric_limits<double>::infinity()}) {
    parts.longest = wrong;
    expect_error(ErrorCode::corrupt, {"length"}, [&] { (void)KeyStore::from_parts(parts); });
  }
}

TEST(KeyStore, TheSameAtAnyThreadCount) {
  const Matrix<float> keys = uneven_keys(5000, 17, 6), queries = normal_matrix(3000, 17, 7);
  const auto bytes = [&](int threads) {
    const KeyStore::Parts parts =
        KeyStore::encode(any(keys), queries, CodeLayout::rows, {.threads = threads}).parts();
    return std::tuple(elements(parts.codes), elements(parts.scales), elements(parts.mean),
                      elements(parts.channel));
  };
  const auto one = bytes(1);
  EXPECT_EQ(bytes(2), one);
  EXPECT_EQ(bytes(5), one);
}

TEST(KeyStore, RefusesWhatCannotBeEncoded) {
  Matrix<float> keys = normal_matrix(4, 3, 8), queries = normal_matrix(2, 3, 9);
  const Matrix<float> other = normal_matrix(2, 4, 9);
  const auto invalid = ErrorCode::invalid_argument;
  expect_error(invalid, {"keys is empty"}, [] { (void)KeyStore::encode(AnyMatrixView(), {}); });
  expect_error(invalid, {"dimension 0"}, [&] {
    (void)KeyStore::encode({keys.data(), Dtype::f32, 4, 0, 0}, {});
  });
  expect_error(invalid, {"queries have dimension 4", "keys have 3"},
               [&] { (void)KeyStore::encode(any(keys), other); });
  expect_error(invalid, {"threads is -1"},
               [&] { (void)KeyStore::encode(any(keys), {}, {}, {.threads = -1}); });
  const KeyStore store = KeyStore::encode(any(keys), {});
  expect_error(invalid, {"dimension 4", "3"}, [&] { (void)store.encode_queries(other); });
  expect_error(invalid, {"dimension 4", "3"}, [&] { (void)store.appended(any(other)); });
  expect_error(invalid, {"f16", "f32"},
               [&] { (void)store.appended(test::stored_as(keys, Dtype::f16).view()); });
  expect_error(invalid, {"empty"}, [&] { (void)KeyStore().appended(any(keys)); });
  queries.row(1)[2] = -kInfinity;
  expect_error(ErrorCode::not_finite, {"queries row 1"},
               [&] { (void)KeyStore::encode(any(keys), queries); });
  keys.row(2)[0] = kNaN;
  expect_error(ErrorCode::not_finite, {"keys row 2"},
               [&] { (void)KeyStore::encode(any(keys), {}); });
  expect_error(ErrorCode::not_finite, {"keys row 2"}, [&] { (void)store.appended(any(keys)); });
}

template <class T>
SharedArray<T> changed(const SharedArray<T>& array, std::size_t i, T value) {
  AlignedVector<T> values(array.begin(), array.end());
  values[i] = value;
  return SharedArray<T>(std::move(values));
}
template <class T>
SharedArray<T> shorter(const SharedArray<T>& array) {
  return SharedArray<T>(AlignedVector<T>(array.begin(), array.end() - 1));
}

TEST(KeyStore, PartsMustAgree) {
  for (const CodeLayout layout : {CodeLayout::rows, CodeLayout::blocks}) {
    const KeyStore::Parts right =
        KeyStore::encode(any(normal_matrix(20, 6, 10)), {}, layout).parts();
    EXPECT_EQ(elements(KeyStore::from_parts(right).parts().codes), elements(right.codes));
    const auto refused = [&](auto change) {
      KeyStore::Parts parts = right;
      change(parts);
      expect_error(ErrorCode::corrupt, {"key store"}, [&] { (void)KeyStore::from_parts(parts); });
    };
    refused([](auto& p) { p.keys = {}; });
    refused([](auto& p) { p.codes = shorter(p.codes); });
    refused([](auto& p) { p.scales = shorter(p.scales); });
    refused([](auto& p) { p.mean = shorter(p.mean); });
    refused([](auto& p) { p.channel = shorter(p.channel); });
    refused([](auto& p) { p.scales = changed(p.scales, 3, 0.0F); });
    refused([](auto& p) { p.scales = changed(p.scales, 19, -1.0F); });
    refused([](auto& p) { p.scales = changed(p.scales, 0, kInfinity); });
    refused([](auto& p) { p.mean = changed(p.mean, 5, kNaN); });
    refused([](auto& p) { p.channel = changed(p.channel, 0, 0.0F); });
    refused([](auto& p) { p.channel = changed(p.channel, 0, kInfinity); });
    if (layout == CodeLayout::blocks) {
      refused([](auto& p) { p.scales = changed(p.scales, 31, 1.0F); });  // of the padding
      refused([](auto& p) { p.layout = CodeLayout::rows; });
    }
  }
}

}  // namespace
}  // namespace keyseek
