// Taking a token and attending, apart and together, of one head and of many; what an error leaves.
#include <gtest/gtest.h>

#include <limits>
#include <stdexcept>
#include <string>

#include "file/temporary_directory.hpp"
#include "keyseek/error.hpp"
#include "keyseek/index.hpp"
#include "support/decode_head.hpp"
#include "support/indexes.hpp"
#include "support/reference.hpp"

namespace keyseek {
namespace {

using test::any;
using test::DecodeHead;
using test::elements;
using test::normal_matrix;

constexpr ErrorCode kInvalid = ErrorCode::invalid_argument;
constexpr std::size_t kGroup = 2, kPrompt = 300;

DecodeHead small_head(DecodeParams change) {
  change.tail_vectors = 8;
  return test::in_few_tokens(test::normal_head(kPrompt + 200, kGroup), change, 16, 70);
}

DecodeParams given(Retriever retriever) {
  DecodeParams params;
  params.given = GivenPlan{.retriever = retriever, .k = 20};
  return params;
}

/// A search that looks at everything, unless it is told to fail.
DecodeParams failing_when(bool& fails) {
  DecodeParams params = given(Retriever::custom);
  params.index = [&fails](const AnyMatrix& keys) -> SearchKeys {
    return [&fails, index = test::flat_index(keys.view(), {.threads = 1})](
               MatrixView<float> queries, std::size_t k, Hits& hits) {
      if (fails) throw std::runtime_error("the search is down");
      SearchScratch scratch;
      index.search(queries, {.k = k}, scratch, hits);
    };
  };
  return params;
}

Matrix<float> append_then_attend(const DecodeHead& head, HeadCache& cache, DecodeScratch& scratch) {
  const std::size_t position = cache.tokens();
  Matrix<float> out(head.group, head.values.cols());
  cache.append(head.f32_keys.row(position), head.f32_values.row(position));
  cache.attend(head.at(position), scratch, out.data());
  return out;
}

class AppendAndAttend : public testing::TestWithParam<Retriever> {};

TEST_P(AppendAndAttend, AreAStep) {
  const DecodeHead head = small_head(given(GetParam()));
  HeadCache steps = head.prefill(kPrompt, head.params), apart = steps;
  DecodeScratch scratch, other;
  for (std::size_t i = 0; i < 160; ++i) {  // two refreshes
    ASSERT_EQ(elements(head.step(steps, scratch)),
              elements(append_then_attend(head, apart, other)));
    ASSERT_EQ(apart.stats().bytes_read, steps.stats().bytes_read);
  }
  EXPECT_GT(steps.indexed(), kPrompt);
  EXPECT_EQ(apart.indexed(), steps.indexed());
}

TEST_P(AppendAndAttend, AttendingTakesNoToken) {
  const DecodeHead head = small_head(given(GetParam()));
  HeadCache cache = head.prefill(kPrompt, head.params);
  DecodeScratch scratch;
  Matrix<float> first(kGroup, head.values.cols()), second(kGroup, head.values.cols());
  cache.attend(head.at(kPrompt - 1), scratch, first.data());
  cache.attend(head.at(kPrompt - 1), scratch, second.data());
  EXPECT_EQ(cache.tokens(), kPrompt);
  if (GetParam() == Retriever::everything) {
    EXPECT_EQ(elements(first), elements(second));
    for (const double error : head.errors(kPrompt - 1, first)) EXPECT_LT(error, 1e-5);
  }
}

INSTANTIATE_TEST_SUITE_P(Every, AppendAndAttend,
                         testing::Values(Retriever::everything, Retriever::none, Retriever::flat,
                                         Retriever::sketch, Retriever::projection),
                         [](const auto& each) { return std::string(to_string(each.param)); });

TEST(AppendAndAttend, ManyTokensThenOneAttention) {
  const DecodeHead head = small_head({});
  DecodeHead everything = head;
  test::give(everything.params, Retriever::everything, 1);
  HeadCache cache = everything.prefill(kPrompt, everything.params);
  DecodeScratch scratch;
  Matrix<float> out(kGroup, head.values.cols());
  for (std::size_t i = kPrompt; i < kPrompt + 100; ++i)
    cache.append(head.f32_keys.row(i), head.f32_values.row(i));
  cache.attend(head.at(kPrompt + 99), scratch, out.data());
  for (const double error : head.errors(kPrompt + 99, out)) EXPECT_LT(error, 1e-5);
}

TEST(AppendAndAttend, BadInputIsNamedAndTakesNothing) {
  const DecodeHead head = small_head(given(Retriever::flat));
  HeadCache cache = head.prefill(kPrompt, head.params), empty;
  DecodeScratch scratch;
  Matrix<float> out(kGroup, head.values.cols());
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const std::vector<float> bad(32, nan);
  test::expect_error(ErrorCode::not_finite, {"key holds nan"},
                     [&] { cache.append(bad.data(), head.f32_values.row(0)); });
  test::expect_error(ErrorCode::not_finite, {"value holds nan"},
                     [&] { cache.append(head.f32_keys.row(0), bad.data()); });
  test::expect_error(kInvalid, {"queries are 1 x 32, must be 2 x 32"},
                     [&] { cache.attend(head.at(0).slice(0, 1), scratch, out.data()); });
  test::expect_error(kInvalid, {"empty"}, [&] { empty.append(bad.data(), bad.data()); });
  test::expect_error(kInvalid, {"empty"}, [&] { empty.attend(head.at(0), scratch, out.data()); });
  EXPECT_EQ(cache.tokens(), kPrompt);
}

TEST(AppendAndAttend, ASearchThatFailsLeavesTheHeadAsItWas) {
  bool fails = false;
  const DecodeHead head = small_head(failing_when(fails));
  HeadCache cache = head.prefill(kPrompt, head.params), twin = cache;
  DecodeScratch scratch, other;
  for (std::size_t i = 0; i < 100; ++i) {  // over a refresh
    if (i % 3 == 1) {
      fails = true;
      const StepStats before = cache.stats();
      const std::size_t tokens = cache.tokens();
      Matrix<float> out(kGroup, head.values.cols());
      EXPECT_THROW(cache.step(head.at(tokens), head.f32_keys.row(tokens),
                              head.f32_values.row(tokens), scratch, out.data()),
                   std::runtime_error);
      EXPECT_THROW(cache.attend(head.at(tokens), scratch, out.data()), std::runtime_error);
      EXPECT_EQ(cache.tokens(), tokens);
      EXPECT_EQ(cache.stats().total_us, before.total_us);
      fails = false;
    }
    ASSERT_EQ(elements(head.step(cache, scratch)), elements(head.step(twin, other)));
  }
}

TEST(AppendAndAttend, OneHeadIsForOneThreadAtATime) {
  HeadCache cache;
  std::string said;
  DecodeParams params = given(Retriever::custom);
  params.index = [&](const AnyMatrix&) -> SearchKeys {
    return [&](MatrixView<float> queries, std::size_t, Hits& hits) {
      hits.group = queries.rows;
      hits.k = 0;
      hits.count.assign(queries.rows, 0);
      if (cache.tokens() == 0) return;  // while it is planned
      // As another thread would come, in the middle of a step.
      const std::vector<float> row(32, 0.0F);
      try {
        cache.append(row.data(), row.data());
      } catch (const Error& error) {
        said = error.what();
      }
      EXPECT_THROW(const HeadCache copy = cache, Error);
      EXPECT_THROW(cache.refresh(), Error);
    };
  };
  const DecodeHead head = small_head(params);
  cache = head.prefill(kPrompt, head.params);
  DecodeScratch scratch;
  head.step(cache, scratch);
  EXPECT_NE(said.find("another thread is at work on this HeadCache"), std::string::npos) << said;
  EXPECT_EQ(cache.tokens(), kPrompt + 1);
  EXPECT_NO_THROW(const HeadCache copy = cache);
}

/// Three heads whose second may fail, their twins, and the token of each position.
struct Layer {
  bool fails = false;
  DecodeHead fine = small_head(given(Retriever::projection)),
             poor = small_head(failing_when(fails));
  std::vector<HeadCache> heads = {fine.prefill(kPrompt, fine.params),
                                  poor.prefill(kPrompt, poor.params),
                                  fine.prefill(kPrompt, fine.params)};
  DecodePool pool = DecodePool(2);
  Matrix<float> queries = Matrix<float>(3 * kGroup, 32), keys = Matrix<float>(3, 32),
                values = Matrix<float>(3, 24), out = Matrix<float>(3 * kGroup, 24);

  std::vector<HeadCache*> pointers() { return {&heads[0], &heads[1], &heads[2]}; }
  void look_at(std::size_t position) {
    for (std::size_t h = 0; h < 3; ++h) {
      for (std::size_t g = 0; g < kGroup; ++g)
        std::copy_n(fine.at(position).row(g), 32, queries.row(h * kGroup + g));
      std::copy_n(fine.f32_keys.row(position), 32, keys.row(h));
      std::copy_n(fine.f32_values.row(position), 24, values.row(h));
    }
  }
  void step() { step_heads(pointers(), queries, keys, values, pool, out.data()); }
};

TEST(ManyHeads, AppendAndAttendAreAStep) {
  Layer layer, twin;
  for (std::size_t i = kPrompt; i < kPrompt + 80; ++i) {
    layer.look_at(i);
    twin.look_at(i);
    layer.step();
    append_heads(twin.pointers(), twin.keys, twin.values, twin.pool);
    attend_heads(twin.pointers(), twin.queries, twin.pool, twin.out.data());
    ASSERT_EQ(elements(layer.out), elements(twin.out));
  }
}

TEST(ManyHeads, AllTakeTheTokenOrNone) {
  Layer layer, twin;
  for (std::size_t i = kPrompt; i < kPrompt + 80; ++i) {  // over a refresh
    layer.look_at(i);
    twin.look_at(i);
    layer.fails = true;
    EXPECT_THROW(layer.step(), std::runtime_error);
    EXPECT_THROW(attend_heads(layer.pointers(), layer.queries, layer.pool, layer.out.data()),
                 std::runtime_error);
    layer.fails = false;
    for (const HeadCache& head : layer.heads) ASSERT_EQ(head.tokens(), i);
    layer.step();
    twin.step();
    ASSERT_EQ(elements(layer.out), elements(twin.out));
  }
}

TEST(ManyHeads, ABadTokenOfOneIsTakenByNone) {
  Layer layer;
  layer.look_at(kPrompt);
  layer.values.row(1)[3] = std::numeric_limits<float>::infinity();
  test::expect_error(ErrorCode::not_finite, {"value holds inf"}, [&] { layer.step(); });
  test::expect_error(ErrorCode::not_finite, {"value holds inf"},
                     [&] { append_heads(layer.pointers(), layer.keys, layer.values, layer.pool); });
  for (const HeadCache& head : layer.heads) EXPECT_EQ(head.tokens(), kPrompt);
}

TEST(ManyHeads, AHeadIsNamedOnce) {
  Layer layer;
  layer.look_at(kPrompt);
  const std::vector<HeadCache*> twice = {&layer.heads[0], &layer.heads[2], &layer.heads[0]};
  test::expect_error(kInvalid, {"heads[0] and heads[2] are the same HeadCache"}, [&] {
    step_heads(twice, layer.queries, layer.keys, layer.values, layer.pool, layer.out.data());
  });
  EXPECT_NO_THROW(layer.step());  // nobody was left at work
  for (const HeadCache& head : layer.heads) EXPECT_EQ(head.tokens(), kPrompt + 1);
}

}  // namespace
}  // namespace keyseek
