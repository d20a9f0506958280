// Many heads of a layer stepped at once.
#include <gtest/gtest.h>

#include "file/temporary_directory.hpp"
#include "keyseek/decode_pool.hpp"
#include "support/random_data.hpp"
#include "support/reference.hpp"

namespace keyseek {
namespace {

using test::any;
using test::normal_matrix;

constexpr std::size_t kHeads = 5, kGroup = 2, kDim = 16;
constexpr ErrorCode kInvalid = ErrorCode::invalid_argument;

HeadCache head(std::size_t n, std::uint64_t seed) {
  const Matrix<float> keys = normal_matrix(n, kDim, seed),
                      values = normal_matrix(n, kDim, seed + 1);
  return HeadCache::prefill(any(keys), any(values), {}, kGroup, {.scale = 0.25F, .shift = false});
}

TEST(StepHeads, EqualsStepsOfEachAtAnyNumberOfThreads) {
  const Matrix<float> queries = normal_matrix(kHeads * kGroup, kDim, 50),
                      keys = normal_matrix(kHeads, kDim, 51),
                      values = normal_matrix(kHeads, kDim, 52);
  Matrix<float> expected(kHeads * kGroup, kDim);
  for (std::size_t i = 0; i < kHeads; ++i) {
    HeadCache alone = head(10 + 30 * i, i);
    DecodeScratch scratch;
    alone.step(queries.view().slice(i * kGroup, kGroup), keys.row(i), values.row(i), scratch,
               expected.row(i * kGroup));
  }
  for (const int threads : {1, 3}) {
    std::vector<HeadCache> heads;
    std::vector<HeadCache*> pointers;
    for (std::size_t i = 0; i < kHeads; ++i) heads.push_back(head(10 + 30 * i, i));
    for (HeadCache& each : heads) pointers.push_back(&each);
    DecodePool pool(threads);
    Matrix<float> out(kHeads * kGroup, kDim);
    step_heads(pointers, queries, keys, values, pool, out.data());
    EXPECT_EQ(test::elements(out), test::elements(expected));
    for (std::size_t i = 0; i < kHeads; ++i) EXPECT_EQ(heads[i].tokens(), 11 + 30 * i);
  }
}

TEST(StepHeads, BadInputIsNamed) {
  HeadCache a = head(10, 1), b = head(10, 2), empty;
  DecodePool pool(2);
  const Matrix<float> four = normal_matrix(4, kDim, 1), two = normal_matrix(2, kDim, 2);
  Matrix<float> out(4, kDim);
  const auto refused = [&](const std::string& fault, std::vector<HeadCache*> heads,
                           MatrixView<float> q, MatrixView<float> k, MatrixView<float> v) {
    test::expect_error(kInvalid, {fault}, [&] { step_heads(heads, q, k, v, pool, out.data()); });
    EXPECT_EQ(a.tokens(), 10U);
  };
  refused("empty", {&a, &empty}, four, two, two);
  refused("empty", {&a, nullptr}, four, two, two);
  refused("queries has 2 rows", {&a, &b}, two, two, two);
  refused("keys has 4 rows", {&a, &b}, four, four, two);
  refused("dimension 3", {&a, &b}, four, two, normal_matrix(2, 3, 1));
  refused("dimension 3", {&a, &b}, normal_matrix(4, 3, 1), two, two);
  EXPECT_NO_THROW(step_heads({}, {}, {}, {}, pool, nullptr));
  test::expect_error(kInvalid, {"threads is -1"}, [] { DecodePool none(-1); });
}

}  // namespace
}  // namespace keyseek
