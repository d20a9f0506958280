// What a head's cache refuses, and that it is then as before.
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "file/temporary_directory.hpp"
#include "support/decode_head.hpp"

namespace keyseek {
namespace {

using test::any;
using test::DecodeHead;
using test::elements;
using test::expect_error;
using test::normal_head;
using test::normal_matrix;

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

const auto refused = [](const std::string& fault, const auto& call) {
  expect_error(ErrorCode::invalid_argument, {fault}, call);
};

TEST(HeadCacheInput, ParametersAreNamed) {
  const DecodeHead head = normal_head(50, 1);
  const auto wrong = [&](const std::string& fault, const auto& change) {
    refused(fault, [&] { (void)head.prefill(50, test::with(head.params, change)); });
  };
  for (const double x : {0.0, 1.0, -0.1, std::nan("")}) {
    wrong("max_error is", [&](DecodeParams& p) { p.max_error = x; });
  }
  for (const double x : {0.0, 1.1, std::nan("")})
    wrong("safety is", [&](DecodeParams& p) { p.safety = x; });
  for (const float x : {0.0F, -1.0F, kNan, std::numeric_limits<float>::infinity()})
    wrong("scale is", [&](DecodeParams& p) { p.scale = x; });
  wrong("window is 0", [](DecodeParams& p) { p.window = 0; });
  wrong("horizon is 0", [](DecodeParams& p) { p.horizon = 0; });
  for (const double x : {0.0, 1.1, std::nan("")})
    wrong("share is", [&](DecodeParams& p) { p.share = x; });
  wrong("observed is 0", [](DecodeParams& p) { p.observed = 0; });
  wrong("held_out is 0", [](DecodeParams& p) { p.held_out = 0; });
  wrong("tail_vectors is 65537", [](DecodeParams& p) { p.tail_vectors = 65537; });
  wrong("least_k is 16, max_k only 15", [](DecodeParams& p) { p.max_k = 15; });
  wrong("rotary", [](DecodeParams& p) { p.rope.rotary_dim = 33; });
  refused("threads is -1", [&] { (void)head.prefill(50, head.params, {.threads = -1}); });
}

TEST(HeadCacheInput, OfPrefillIsNamed) {
  const DecodeHead head = normal_head(50, 2);
  const AnyMatrixView keys = head.keys.view(), values = head.values.view();
  const auto run = [&](AnyMatrixView k, AnyMatrixView v, MatrixView<float> q, std::size_t group) {
    (void)HeadCache::prefill(k, v, q, group, head.params);
  };
  const MatrixView<float> queries = head.queries;
  refused("keys is empty", [&] { run(keys.slice(0, 0), values.slice(0, 0), {}, 2); });
  refused("values has 49 rows", [&] { run(keys, values.slice(0, 49), queries, 2); });
  refused("group is 0", [&] { run(keys, values, queries, 0); });
  refused("group is 65", [&] { run(keys, values, queries, 65); });
  refused("100 rows, no multiple of group = 3", [&] { run(keys, values, queries, 3); });
  refused("of 100 positions, there are 50", [&] { run(keys, values, queries, 1); });
  const Matrix<float> narrow = normal_matrix(100, 31, 1);
  refused("queries have dimension 31", [&] { run(keys, values, narrow, 2); });
  const Matrix<float> nothing(50, 0);
  refused("keys have dimension 0", [&] { run(any(nothing), values, {}, 2); });
  refused("values 0", [&] { run(keys, any(nothing), {}, 2); });
  const AnyMatrix codes = test::stored_as(head.f32_keys, Dtype::i8);
  refused("keys are i8", [&] { run(codes.view(), values, queries, 2); });
  refused("values i8", [&] { run(keys, codes.view(), queries, 2); });
  const auto with_nan = [](Matrix<float> m, std::size_t row, float x) {
    m.row(row)[2] = x;
    return m;
  };
  const auto not_finite = [](const std::string& fault, const auto& call) {
    expect_error(ErrorCode::not_finite, {fault}, call);
  };
  const Matrix<float> bad_keys = with_nan(head.f32_keys, 3, kNan),
                      bad_values = with_nan(head.f32_values, 49, -1.0F / 0.0F),
                      bad_queries = with_nan(head.queries, 99, kNan);
  not_finite("keys row 3", [&] { run(any(bad_keys), values, queries, 2); });
  not_finite("values row 49", [&] { run(keys, any(bad_values), queries, 2); });
  not_finite("queries row 99", [&] { run(keys, values, bad_queries, 2); });
}

TEST(HeadCacheInput, AnEmptyCacheSaysSo) {
  HeadCache cache;
  EXPECT_EQ(cache.tokens(), 0U);
  EXPECT_EQ(cache.indexed(), 0U);
  EXPECT_EQ(cache.bytes(), 0U);
  DecodeScratch scratch;
  Hits hits;
  const Matrix<float> queries = normal_matrix(1, 4, 1);
  float out[4];
  const std::string fault = "HeadCache is empty";
  refused(fault, [&] { cache.step(queries, queries.row(0), queries.row(0), scratch, out); });
  refused(fault, [&] { cache.retrieve(queries, 1, scratch, hits); });
  refused(fault, [&] { cache.refresh(); });
}

TEST(HeadCacheInput, AFailedStepLeavesTheCacheAsItWas) {
  for (const Dtype dtype : {Dtype::f32, Dtype::f16, Dtype::bf16}) {
    const DecodeHead head = normal_head(100, 2, dtype);
    DecodeParams params = head.params;
    params.sink = 4;
    params.window = 8;
    params.horizon = 8;
    HeadCache cache = head.prefill(60, params), untouched = cache;
    DecodeScratch scratch, other;
    for (std::size_t s = 0; s < 20; ++s) {
      const std::size_t bytes = cache.bytes(), indexed = cache.indexed();
      Matrix<float> queries(2, 32), key(1, 32), value(1, 24), out(2, 24);
      std::copy_n(head.at(cache.tokens()).data, 64, queries.data());
      const auto fails = [&](ErrorCode code, const std::string& fault, MatrixView<float> q) {
        expect_error(code, {fault},
                     [&] { cache.step(q, key.row(0), value.row(0), scratch, out.data()); });
        EXPECT_EQ(cache.tokens(), 60 + s);
        EXPECT_EQ(cache.indexed(), indexed);
        EXPECT_EQ(cache.bytes(), bytes);
      };
      fails(ErrorCode::invalid_argument, "must be 2 x 32", queries.view().slice(0, 1));
      const Matrix<float> narrow(2, 31);
      fails(ErrorCode::invalid_argument, "queries are 2 x 31", narrow);
      queries.row(1)[31] = kNan;
      fails(ErrorCode::not_finite, "queries row 1", queries);
      queries.row(1)[31] = 0;
      key.row(0)[5] = kNan;
      fails(ErrorCode::not_finite, "key holds nan in element 5", queries);
      key.row(0)[5] = 0;
      value.row(0)[23] = -std::numeric_limits<float>::infinity();
      fails(ErrorCode::not_finite, "value holds -inf in element 23", queries);
      value.row(0)[23] = 0;
      // Finite, but not as it would be stored.
      const float large = dtype == Dtype::f16 ? 65520.0F : 3.4e38F;
      if (dtype != Dtype::f32) {
        key.row(0)[0] = large;
        fails(ErrorCode::not_finite, "too large for " + std::string(to_string(dtype)), queries);
        key.row(0)[0] = 0;
        value.row(0)[1] = -large;
        fails(ErrorCode::not_finite, "value holds -", queries);
      }
      ASSERT_EQ(elements(head.step(cache, scratch)), elements(head.step(untouched, other)));
    }
  }
}

TEST(HeadCacheInput, ACancelledRefreshLeavesTheCacheAsItWas) {
  const DecodeHead head = test::sample_head(2);
  const DecodeParams params = test::with(head.params, [](DecodeParams& p) {
    p.max_error = 0.02;
    p.horizon = 200;
  });
  expect_error(ErrorCode::cancelled, {"cancelled"}, [&] {
    (void)head.prefill(2200, params,
                       {.threads = 1, .progress = [](auto, auto, auto) { return false; }});
  });
  HeadCache cache = head.prefill(2200, params);
  ASSERT_NE(cache.plan().retriever, Retriever::everything);
  (void)head.decode(cache, 100, 100);
  HeadCache untouched = cache;
  const std::size_t bytes = cache.bytes();
  expect_error(ErrorCode::cancelled, {"cancelled"}, [&] {
    cache.refresh({.threads = 1, .progress = [](auto, auto, auto) { return false; }});
  });
  EXPECT_EQ(cache.bytes(), bytes);
  EXPECT_EQ(cache.tokens(), 2300U);
  EXPECT_EQ(cache.indexed(), untouched.indexed());
  DecodeScratch scratch, other;
  for (std::size_t s = 0; s < 5; ++s)
    ASSERT_EQ(elements(head.step(cache, scratch)), elements(head.step(untouched, other)));
}

TEST(HeadCacheInput, OfRetrieveIsNamed) {
  const DecodeHead head = test::sample_head(2);
  const HeadCache cache =
      head.prefill(3000, test::with(head.params, [](DecodeParams& p) { p.max_error = 0.02; }));
  ASSERT_EQ(cache.plan().retriever, Retriever::sketch);
  DecodeScratch scratch;
  Hits hits;
  refused("k is 0", [&] { cache.retrieve(head.at(0), 0, scratch, hits); });
  const Matrix<float> narrow = normal_matrix(3, 63, 1);
  refused("dimension 63", [&] { cache.retrieve(narrow, 5, scratch, hits); });
  refused("0 rows", [&] { cache.retrieve(head.at(0).slice(0, 0), 5, scratch, hits); });
  const HeadCache everything = head.prefill(1000, head.params);
  refused("its plan is 'everything'", [&] { everything.retrieve(head.at(0), 5, scratch, hits); });
}

}  // namespace
}  // namespace keyseek
