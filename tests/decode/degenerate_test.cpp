// A head whose numbers are unlike any model's: right, or refused before anything changes.
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "file/temporary_directory.hpp"
#include "support/attention_reference.hpp"
#include "support/random_data.hpp"

#include "keyseek/decode.hpp"
#include "keyseek/decode_options.hpp"

namespace keyseek {
namespace {

using test::any;
using test::expect_error;
using test::normal_matrix;

constexpr std::size_t kPrompt = 260, kTokens = 300, kDim = 12, kValues = 6, kGroup = 2;
constexpr float kHuge = std::numeric_limits<float>::max();
constexpr Retriever kRetrievers[] = {Retriever::everything, Retriever::none, Retriever::flat,
                                     Retriever::sketch, Retriever::projection};

struct Head {
  Matrix<float> keys = normal_matrix(kTokens, kDim, 1), values = normal_matrix(kTokens, kValues, 2),
                queries = normal_matrix(kTokens * kGroup, kDim, 3);

  [[nodiscard]] MatrixView<float> at(std::size_t position) const {
    return queries.view().slice(position * kGroup, kGroup);
  }
  [[nodiscard]] HeadCache prefill(const DecodeParams& params) const {
    return HeadCache::prefill(
        any(keys.view().slice(0, kPrompt)), any(values.view().slice(0, kPrompt)),
        queries.view().slice(0, kPrompt * kGroup), kGroup, params, {.threads = 1});
  }
};

/// Every indexed key is retrieved, so that attention is exact; or few, and a tail.
DecodeParams params_of(Retriever retriever, bool tail) {
  DecodeParams p;
  p.scale = 0.25F;
  p.shift = false;
  p.sink = 4;
  p.window = 16;
  p.horizon = 24;
  p.least_indexed = 1;
  p.observed = 32;
  p.held_out = 8;
  p.tail_vectors = tail ? 8 : 0;
  p.given = GivenPlan{.retriever = retriever, .k = tail ? std::size_t{20} : kTokens};
  return without_unread(p);
}

void scale(Matrix<float>& m, float by) {
  for (std::size_t i = 0; i < m.rows() * m.cols(); ++i) m.data()[i] *= by;
}

/// Steps past a refresh, then saves and loads. Outputs are numbers; the largest error of an
/// element, in units of the largest value, is returned.
double decode(const Head& head, const DecodeParams& params) {
  HeadCache cache = head.prefill(params);
  DecodeScratch scratch;
  Matrix<float> out(kGroup, kValues);
  const double unit = double{largest_magnitude(any(head.values))};
  double worst = 0;
  for (std::size_t t = kPrompt; t < kTokens; ++t) {
    cache.step(head.at(t), head.keys.row(t), head.values.row(t), scratch, out.data());
    for (std::size_t g = 0; g < kGroup; ++g) {
      const auto truth = test::reference(head.at(t).row(g), any(head.keys), {any(head.values)},
                                         test::range(0, t + 1), params.scale);
      for (std::size_t c = 0; c < kValues; ++c) {
        EXPECT_TRUE(std::isfinite(out.row(g)[c])) << "step " << t;
        if (unit > 0)
          worst = test::worse(worst, std::abs(double{out.row(g)[c]} - truth.out[c]) / unit);
      }
    }
  }
  const test::TemporaryDirectory folder;
  cache.save(folder / "x.ks");
  EXPECT_EQ(HeadCache::load(folder / "x.ks").tokens(), kTokens);
  return worst;
}

void expect_right(const Head& head) {
  for (const Retriever retriever : kRetrievers) {
    SCOPED_TRACE(to_string(retriever));
    if (retriever != Retriever::none) {
      EXPECT_LE(decode(head, params_of(retriever, false)), 1e-4);
    }
    (void)decode(head, params_of(retriever, true));
  }
}

TEST(DegenerateHead, NumbersOfAnySize) {
  for (const float of_keys : {1e-30F, 1e-8F, 1.0F, 1e8F, 1e30F}) {
    for (const float of_values : {1e-30F, 1.0F, 1e8F, 1e30F}) {
      SCOPED_TRACE(std::to_string(std::log10(of_keys)) + " " +
                   std::to_string(std::log10(of_values)));
      Head head;
      scale(head.keys, of_keys);
      scale(head.queries, 1.0F / of_keys);
      scale(head.values, of_values);
      expect_right(head);
    }
  }
}

TEST(DegenerateHead, ZerosAndRepetitions) {
  Head zero_queries, zero_keys, zero_values, same_keys;
  scale(zero_queries.queries, 0);
  scale(zero_keys.keys, 0);
  scale(zero_values.values, 0);
  for (std::size_t i = 1; i < kTokens; ++i)
    std::copy_n(same_keys.keys.row(0), kDim, same_keys.keys.row(i));
  for (const Head* head : {&zero_queries, &zero_keys, &zero_values, &same_keys})
    expect_right(*head);
  Head some;
  for (std::size_t i = 0; i < kTokens * kGroup; i += 3)
    std::fill_n(some.queries.row(i), kDim, -0.0F);
  for (std::size_t i = 0; i < kTokens; i += 2) std::fill_n(some.keys.row(i), kDim, 0.0F);
  expect_right(some);
}

/// Logits so far apart that one token has all the mass.
TEST(DegenerateHead, LogitsFarApart) {
  Head head;
  scale(head.keys, 1e8F);
  expect_right(head);
}

TEST(DegenerateHead, LogitsBeyondF32AreRefused) {
  Head head;
  scale(head.keys, 1e25F);
  Matrix<float> queries = head.queries;
  scale(queries, 1e20F);
  Matrix<float> out(kGroup, kValues);
  for (const Retriever retriever : kRetrievers) {
    DecodeParams params = params_of(retriever, false);
    HeadCache cache = head.prefill(params);
    DecodeScratch scratch;
    expect_error(ErrorCode::invalid_argument, {"f32", "scale"}, [&] {
      cache.step(queries.view().slice(0, kGroup), head.keys.row(kPrompt), head.values.row(kPrompt),
                 scratch, out.data());
    });
  }
}

TEST(DegenerateHead, WhatCouldNotBeIndexedIsRefusedAtOnce) {
  const Head head;
  Head bad = head;
  bad.keys.row(9)[2] = kHuge;
  expect_error(ErrorCode::invalid_argument, {"keys row 9", "scale"},
               [&] { (void)bad.prefill(params_of(Retriever::everything, false)); });
  bad = head;
  bad.values.row(8)[1] = -kHuge;
  expect_error(ErrorCode::invalid_argument, {"values row 8", "scale"},
               [&] { (void)bad.prefill(params_of(Retriever::everything, false)); });
  HeadCache cache = head.prefill(params_of(Retriever::flat, false));
  DecodeScratch scratch;
  Matrix<float> out(kGroup, kValues);
  std::vector<float> key(kDim, kHuge), value(kValues, kHuge);
  expect_error(ErrorCode::invalid_argument, {"key row 0"}, [&] {
    cache.step(head.at(kPrompt), key.data(), head.values.row(kPrompt), scratch, out.data());
  });
  expect_error(ErrorCode::invalid_argument, {"value row 0"}, [&] {
    cache.step(head.at(kPrompt), head.keys.row(kPrompt), value.data(), scratch, out.data());
  });
  EXPECT_EQ(cache.tokens(), kPrompt);
  const Matrix<float> wide(3, 133'001);
  expect_error(ErrorCode::invalid_argument, {"133001", "133000"}, [&] {
    (void)HeadCache::prefill(any(wide), any(wide), {}, 1, params_of(Retriever::everything, false));
  });
}

}  // namespace
}  // namespace keyseek
