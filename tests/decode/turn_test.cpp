// Many tokens at once: attended exactly, then planned and indexed like others; and all tokens read.
#include <gtest/gtest.h>

#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "file/temporary_directory.hpp"
#include "keyseek/decode_pool.hpp"
#include "keyseek/error.hpp"
#include "support/decode_head.hpp"
#include "support/reference.hpp"

namespace keyseek {
namespace {

using test::DecodeHead;
using test::elements;

constexpr ErrorCode kInvalid = ErrorCode::invalid_argument;
constexpr std::size_t kPrompt = 300, kHorizon = 70, kWindow = 16;

DecodeHead small_head(std::size_t group, Dtype dtype, DecodeParams change = {}) {
  change.tail_vectors = 8;
  return test::in_few_tokens(test::normal_head(kPrompt + 400, group, dtype), change, kWindow,
                             kHorizon);
}

DecodeParams given(Retriever retriever) {
  DecodeParams params;
  test::give(params, retriever, 20);
  return params;
}

/// The next tokens of the sequence at once; their outputs, [count * group, dv].
Matrix<float> turn(const DecodeHead& head, HeadCache& cache, std::size_t count) {
  const std::size_t first = cache.tokens();
  DecodeScratch scratch;
  Matrix<float> out(count * head.group, head.values.cols());
  cache.extend(head.queries.view().slice(first * head.group, count * head.group),
               head.f32_keys.view().slice(first, count), head.f32_values.view().slice(first, count),
               scratch, out.data());
  EXPECT_EQ(cache.tokens(), first + count);
  return out;
}

void expect_exact(const DecodeHead& head, std::size_t first, const Matrix<float>& out) {
  for (std::size_t i = 0; i < out.rows() / head.group; ++i) {
    Matrix<float> one(head.group, out.cols());
    std::copy_n(out.row(i * head.group), head.group * out.cols(), one.data());
    for (const double error : head.errors(first + i, one)) ASSERT_LT(error, 1e-5);
  }
}

class Turn : public testing::TestWithParam<Retriever> {};

TEST_P(Turn, IsAttendedExactlyThenIndexed) {
  for (const std::size_t group : {1U, 3U, 64U}) {
    const DecodeHead head = small_head(group, Dtype::bf16, given(GetParam()));
    HeadCache cache = head.prefill(kPrompt, head.params);
    DecodeScratch scratch;
    head.step(cache, scratch);
    for (const std::size_t count : {std::size_t{1}, std::size_t{3}, 2 * kHorizon}) {
      const std::size_t first = cache.tokens();
      expect_exact(head, first, turn(head, cache, count));
    }
    const std::size_t indexed = cache.indexed();
    head.step(cache, scratch);  // refreshes once, with the turn's queries
    EXPECT_EQ(cache.indexed(), kPrompt + 1 + 4 + 2 * kHorizon - 4 - kWindow);
    EXPECT_GT(cache.indexed(), indexed);
    EXPECT_EQ(cache.plan().retriever, GetParam());
  }
}

TEST_P(Turn, AfterwardsStepsGoOnAsBefore) {
  const DecodeHead head = small_head(2, Dtype::f32, given(GetParam()));
  HeadCache together = head.prefill(kPrompt, head.params), apart = together;
  DecodeScratch scratch, other;
  turn(head, together, 40);
  for (std::size_t i = 0; i < 40; ++i)
    apart.append(head.f32_keys.row(kPrompt + i), head.f32_values.row(kPrompt + i));
  for (std::size_t i = 0; i < 5; ++i)
    ASSERT_EQ(elements(head.step(together, scratch)), elements(head.step(apart, other)));
}

INSTANTIATE_TEST_SUITE_P(Every, Turn,
                         testing::Values(Retriever::everything, Retriever::none, Retriever::flat,
                                         Retriever::sketch, Retriever::projection),
                         [](const auto& each) { return std::string(to_string(each.param)); });

TEST(TurnOfAHead, SoftCapsNullLogitsPinsAndCodedValuesAreServed) {
  DecodeParams params = given(Retriever::flat);
  params.softcap = 3.0F;
  params.null_logits = {1.0F, -0.5F};
  params.pinned = 6;
  const DecodeHead head = small_head(2, Dtype::f16, params);
  HeadCache cache = head.prefill(kPrompt, head.params);
  ASSERT_EQ(cache.pinned().size(), 6U);
  expect_exact(head, kPrompt, turn(head, cache, 50));

  DecodeHead coded = head;
  coded.params.int8_values = true;
  cache = coded.prefill(kPrompt, coded.params);
  const Matrix<float> out = turn(coded, cache, 5);
  Matrix<float> last(2, out.cols());
  std::copy_n(out.row(8), 2 * out.cols(), last.data());
  for (const double error : coded.errors(kPrompt + 4, last)) EXPECT_LT(error, 0.02);
}

TEST(TurnOfAHead, OnlyQueriesOfItsLastHorizonAreRemembered) {
  DecodeHead head = small_head(1, Dtype::f32, given(Retriever::flat));
  head.params.horizon = 10000;
  HeadCache cache = head.prefill(kPrompt, head.params), silent = cache;
  turn(head, cache, 390);
  const auto rest = [](const DecodeHead& h) {
    return std::pair(h.f32_keys.view().slice(kPrompt, 390),
                     h.f32_values.view().slice(kPrompt, 390));
  };
  silent.append(rest(head).first, rest(head).second);
  const std::size_t each = head.keys.cols() * sizeof(float) + sizeof(std::size_t);
  EXPECT_EQ(cache.bytes() - silent.bytes(), 390 / 39 * each);
  head.params.horizon = 10;
  cache = head.prefill(kPrompt, head.params);
  silent = cache;
  turn(head, cache, 390);
  silent.append(rest(head).first, rest(head).second);
  EXPECT_EQ(cache.bytes() - silent.bytes(), 256 * each);
}

TEST(TurnOfAHead, BadInputIsNamedAndTakesNothing) {
  const DecodeHead head = small_head(2, Dtype::f16, given(Retriever::flat));
  HeadCache cache = head.prefill(kPrompt, head.params), empty;
  DecodeScratch scratch;
  Matrix<float> out(6, 24);
  const Matrix<float> queries = test::normal_matrix(6, 32, 1), keys = test::normal_matrix(3, 32, 2),
                      values = test::normal_matrix(3, 24, 3);
  const auto refused = [&](ErrorCode code, const char* fault, MatrixView<float> q,
                           MatrixView<float> k, MatrixView<float> v) {
    test::expect_error(code, {fault}, [&] { cache.extend(q, k, v, scratch, out.data()); });
    test::expect_error(code, {fault}, [&] { cache.append(k, v, q); });
    EXPECT_EQ(cache.tokens(), kPrompt);
  };
  refused(kInvalid, "queries are 5 x 32, must be 6 x 32", queries.view().slice(0, 5), keys, values);
  refused(kInvalid, "queries are 6 x 31, must be 6 x 32", test::normal_matrix(6, 31, 1), keys,
          values);
  refused(kInvalid, "keys has 3 rows, values has 2", queries, keys, values.view().slice(0, 2));
  refused(kInvalid, "keys have dimension 24", queries, values, values);
  refused(kInvalid, "values have dimension 32", queries, keys, keys);
  Matrix<float> bad = test::normal_matrix(3, 32, 2);
  bad.row(2)[5] = 1e6F;
  refused(ErrorCode::not_finite, "keys row 2 holds 1000000 in element 5, too large for f16",
          queries, bad, values);
  Matrix<float> nan = test::normal_matrix(6, 32, 1);
  nan.row(4)[0] = std::numeric_limits<float>::quiet_NaN();
  refused(ErrorCode::not_finite, "queries row 4", nan, keys, values);
  test::expect_error(kInvalid, {"empty"},
                     [&] { empty.extend(queries, keys, values, scratch, out.data()); });
  cache.extend({}, {}, {}, scratch, nullptr);
  EXPECT_EQ(cache.tokens(), kPrompt);
}

TEST(CopyTokens, GivesThemInOrderOfPosition) {
  DecodeParams params = given(Retriever::flat);
  params.pinned = 6;
  for (const Dtype dtype : {Dtype::f32, Dtype::f16, Dtype::bf16}) {
    for (const bool coded : {false, true}) {
      params.int8_values = coded;
      const DecodeHead head = small_head(2, dtype, params);
      HeadCache cache = head.prefill(kPrompt, head.params);
      turn(head, cache, 100);
      ASSERT_EQ(cache.key_dtype(), dtype);
      ASSERT_EQ(cache.value_dtype(), dtype);
      std::vector<std::byte> keys(400 * 32 * size_of(dtype)), values(400 * 24 * size_of(dtype));
      DecodePool pool(2);
      std::vector<HeadCache*> heads = {&cache};
      copy_tokens(heads, pool,
                  [&](std::size_t) { return std::pair<void*, void*>(keys.data(), values.data()); });
      const AnyMatrixView key_rows{keys.data(), dtype, 400, 32, 32},
          value_rows{values.data(), dtype, 400, 24, 24};
      EXPECT_EQ(elements(to_f32(key_rows)), elements(to_f32(head.keys.view().slice(0, 400))));
      const std::vector<float> found = elements(to_f32(value_rows)),
                               expected = elements(to_f32(head.values.view().slice(0, 400)));
      for (std::size_t i = 0; i < found.size(); ++i)
        ASSERT_NEAR(found[i], expected[i], coded ? 0.03 : 0.0);
    }
  }
}

TEST(AppendHeads, AndExtendHeadsTakeManyTokensOfEach) {
  const DecodeHead head = small_head(2, Dtype::f32, given(Retriever::flat));
  std::vector<HeadCache> heads(2, head.prefill(kPrompt, head.params)), attended = heads;
  HeadCache alone = heads[0];
  constexpr std::size_t kCount = 90;
  const auto rows = [&](const Matrix<float>& from, std::size_t each) {
    Matrix<float> twice(2 * kCount * each, from.cols());
    for (std::size_t h = 0; h < 2; ++h)
      std::copy_n(from.row(kPrompt * each), kCount * each * from.cols(),
                  twice.row(h * kCount * each));
    return twice;
  };
  DecodePool pool(2);
  const Matrix<float> keys = rows(head.f32_keys, 1), values = rows(head.f32_values, 1),
                      queries = rows(head.queries, 2);
  append_heads(std::vector<HeadCache*>{&heads[0], &heads[1]}, keys, values, pool, queries);
  Matrix<float> out(2 * kCount * 2, values.cols());
  extend_heads(std::vector<HeadCache*>{&attended[0], &attended[1]}, queries, keys, values, pool,
               out.data());
  std::vector<float> expected = elements(turn(head, alone, kCount));
  expected.insert(expected.end(), expected.begin(), expected.end());
  EXPECT_EQ(elements(out), expected);
  DecodeScratch scratch;
  for (std::size_t i = 0; i < 10; ++i) {
    expected = elements(head.step(alone, scratch));
    for (auto* these : {&heads, &attended})
      for (HeadCache& each : *these) ASSERT_EQ(elements(head.step(each, scratch)), expected);
  }
  EXPECT_GT(alone.indexed(), kPrompt);
  test::expect_error(kInvalid, {"keys has 181 rows, no multiple of 2 heads"}, [&] {
    append_heads(std::vector<HeadCache*>{&heads[0], &heads[1]}, test::normal_matrix(181, 32, 1),
                 values, pool);
  });
  test::expect_error(kInvalid, {"queries has 4 rows, must have 360"}, [&] {
    append_heads(std::vector<HeadCache*>{&heads[0], &heads[1]}, keys, values, pool,
                 queries.view().slice(0, 4));
  });
  Matrix<float> bad = rows(head.queries, 2);
  bad.row(200)[1] = std::numeric_limits<float>::infinity();
  const std::vector<HeadCache*> both = {&heads[0], &heads[1]};
  test::expect_error(ErrorCode::not_finite, {"queries row 20"},
                     [&] { append_heads(both, keys, values, pool, bad); });
  test::expect_error(ErrorCode::not_finite, {"queries row 20"},
                     [&] { extend_heads(both, bad, keys, values, pool, out.data()); });
  test::expect_error(kInvalid, {"queries has 0 rows, must have 360"},
                     [&] { extend_heads(both, {}, keys, values, pool, out.data()); });
  EXPECT_EQ(heads[0].tokens(), alone.tokens());
}

}  // namespace
}  // namespace keyseek
