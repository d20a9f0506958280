// A HeadCache beside a device that attends to sink and window: together they are the cache alone.
#include <gtest/gtest.h>

#include "file/temporary_directory.hpp"
#include "support/decode_head.hpp"

namespace keyseek {
namespace {

using test::DecodeHead;
using test::given_plan;
using test::normal_head;
using test::sample_of_layer_2;
using test::with;

constexpr std::size_t kPrompt = 3000;

/// One sequence, decoded by a cache alone and by its copy beside a device.
class BothWays {
 public:
  BothWays(const DecodeHead& head, HeadCache cache)
      : head_(head), alone_(std::move(cache)), beside_(alone_) {}

  /// One step of both; the largest relative difference of their outputs.
  double step() {
    const std::size_t position = alone_.tokens();
    const auto queries = head_.at(position);
    const Matrix<float> expected = head_.step(alone_, scratch_);
    Partial all;
    all.reset(head_.group, head_.values.cols());
    beside_.step_beside_static(queries, head_.f32_keys.row(position),
                               head_.f32_values.row(position), scratch_, all.out.data(),
                               all.lse.data());
    add_static(queries, all);
    double worst = 0;
    for (std::size_t g = 0; g < head_.group; ++g)
      worst = test::worse(
          worst, test::relative_error(all.out.row(g), expected.row(g), head_.values.cols()));
    return worst;
  }

  [[nodiscard]] const HeadCache& alone() const { return alone_; }
  [[nodiscard]] const HeadCache& beside() const { return beside_; }

 private:
  /// What the device does: from the sequence itself, not from what the cache says it holds.
  void add_static(MatrixView<float> queries, Partial& into) {
    const DecodeParams& params = beside_.params();
    const std::size_t now = beside_.tokens(), window = std::min(params.window, now - params.sink);
    for (const auto& [first, count] :
         {std::pair{std::size_t{0}, params.sink}, std::pair{now - window, window}}) {
      Partial part;
      attend(queries, head_.keys.view().slice(first, count),
             {head_.values.view().slice(first, count)}, params.logits(), attending_, part);
      merge(part, into);
    }
  }

  const DecodeHead& head_;
  HeadCache alone_, beside_;
  DecodeScratch scratch_;
  AttendScratch attending_;
};

TEST(BesideStatic, EverythingPlansAreTheWhole) {
  const DecodeHead head = normal_head(300, 2, Dtype::f16);
  const DecodeParams params = with(head.params, [](DecodeParams& p) {
    p.sink = 8;
    p.window = 12;
    p.horizon = 16;
  });
  for (const std::size_t prompt : {8U, 13U, 20U, 200U}) {  // the window is still to be filled
    BothWays both(head, head.prefill(prompt, params));
    for (std::size_t s = 0; s < 60; ++s) ASSERT_LT(both.step(), 1e-5) << prompt << ", step " << s;
    EXPECT_EQ(both.beside().indexed(), both.alone().indexed());
    EXPECT_EQ(both.beside().tokens(), prompt + 60);
  }
}

TEST(BesideStatic, RetrievingPlansAreTheWholeThroughRefreshes) {
  const DecodeHead& head = sample_of_layer_2();
  for (const Retriever retriever :
       {Retriever::none, Retriever::flat, Retriever::sketch, Retriever::projection}) {
    for (const std::size_t pinned : {0U, 20U}) {
      const DecodeParams params = with(given_plan(retriever), [&](DecodeParams& p) {
        p.horizon = 64;
        p.window = 100;
        p.pinned = pinned;
        p.int8_values = pinned > 0;
      });
      BothWays both(head, head.prefill(kPrompt, params));
      const std::size_t indexed = both.beside().indexed();
      for (std::size_t s = 0; s < 2 * 64 + 10; ++s)
        ASSERT_LT(both.step(), 1e-5) << to_string(retriever) << ", step " << s;
      EXPECT_EQ(both.beside().indexed(), indexed + 2 * 64);
      EXPECT_EQ(both.beside().plan().retriever, retriever);
      // Beyond the static part: what 10 steps since the refresh have pushed out of the window.
      EXPECT_EQ(both.beside().stats().exact, pinned + 10);
      EXPECT_EQ(both.alone().stats().exact, 128 + pinned + 100 + 10);
      EXPECT_EQ(both.beside().stats().retrieved, both.alone().stats().retrieved);
    }
  }
}

// A null logit belongs to the CPU's part, once; a soft-cap to both.
TEST(BesideStatic, SoftCapsAndNullLogitsAreOfTheWhole) {
  const DecodeHead& head = sample_of_layer_2();
  for (const Retriever retriever : {Retriever::everything, Retriever::none, Retriever::flat}) {
    for (const float softcap : {0.0F, 1.0F, 50.0F}) {
      for (const float level : {-5.0F, 0.0F, 5.0F, 20.0F}) {
        const DecodeParams params = with(given_plan(retriever), [&](DecodeParams& p) {
          p.horizon = 16;
          p.softcap = softcap;
          p.null_logits = {level, level + 1, level + 2};
        });
        BothWays both(head, head.prefill(1500, params));
        for (std::size_t s = 0; s < 20; ++s)
          ASSERT_LT(both.step(), 1e-5) << to_string(retriever) << ", step " << s;
      }
    }
  }
  // A prompt that the device holds whole: the CPU has the null logits alone.
  const DecodeParams params = with(given_plan(Retriever::everything), [](DecodeParams& p) {
    p.null_logits = {4, 5, 6};
  });
  HeadCache cache = head.prefill(200, params);
  DecodeScratch scratch;
  Partial part;
  part.reset(3, 64);
  cache.step_beside_static(head.at(200), head.f32_keys.row(200), head.f32_values.row(200), scratch,
                           part.out.data(), part.lse.data());
  EXPECT_EQ(part.lse, params.null_logits);
  EXPECT_EQ(test::elements(part.out), std::vector<float>(3 * 64));
}

// The static part often has the largest logit and most of the mass; without it a rule that is
// relative to these asks for more.
TEST(BesideStatic, RulesKeepNoFewerKeys) {
  const DecodeHead& head = sample_of_layer_2();
  for (const auto& [rule, limit] : {std::pair{Rule::dipr, 3.0}, std::pair{Rule::mass, 0.9}}) {
    BothWays both(
        head, head.prefill(kPrompt,
                           given_plan(Retriever::flat, {.rule = rule, .k = 100, .limit = limit})));
    std::size_t alone = 0, beside = 0;
    for (std::size_t s = 0; s < 20; ++s) {
      (void)both.step();
      EXPECT_GE(both.beside().stats().retrieved, both.alone().stats().retrieved);
      alone += both.alone().stats().retrieved;
      beside += both.beside().stats().retrieved;
    }
    EXPECT_GT(beside, alone) << to_string(rule);
  }
}

TEST(BesideStatic, TheStaticPartIsSinkAndNewestTokens) {
  const DecodeHead head = normal_head(300, 2);
  const auto params = [&](std::size_t sink) {
    return with(head.params, [&](DecodeParams& p) {
      p.sink = sink;
      p.window = 12;
      p.pinned = 5;
    });
  };
  HeadCache cache = head.prefill(200, params(8));
  ASSERT_EQ(cache.pinned().size(), 5U);
  (void)head.decode(cache, 30);
  const StaticPart part = cache.static_part();
  const auto expect_rows = [](AnyMatrixView got, AnyMatrixView whole, std::size_t first,
                              std::size_t count) {
    EXPECT_EQ(test::elements(to_f32(got)), test::elements(to_f32(whole.slice(first, count))));
  };
  expect_rows(part.sink_keys, head.keys.view(), 0, 8);
  expect_rows(part.sink_values, head.values.view(), 0, 8);
  expect_rows(part.window_keys, head.keys.view(), 230 - 12, 12);
  expect_rows(part.window_values, head.values.view(), 230 - 12, 12);

  EXPECT_EQ(head.prefill(15, params(8)).static_part().window_keys.rows, 7U);
  test::expect_error(ErrorCode::invalid_argument, {"prompt had 15 tokens", "needs its sink of 16"},
                     [&] { (void)head.prefill(15, params(16)).static_part(); });
  test::expect_error(ErrorCode::invalid_argument, {"is empty"},
                     [] { (void)HeadCache().static_part(); });
}

TEST(BesideStatic, ManyHeadsAtOnce) {
  const DecodeHead head = normal_head(120, 2);
  std::vector<HeadCache> caches, same;
  std::vector<HeadCache*> pointers;
  for (const std::size_t prompt : {60U, 80U, 100U})
    caches.push_back(head.prefill(prompt, with(head.params, [](DecodeParams& p) {
                                    p.sink = 8;
                                    p.window = 12;
                                  })));
  same = caches;
  for (HeadCache& cache : caches) pointers.push_back(&cache);
  constexpr std::size_t dv = 24;
  const MatrixView<float> queries = head.queries.view().slice(0, 6);
  const MatrixView<float> keys = head.f32_keys.view().slice(100, 3);
  const MatrixView<float> values = head.f32_values.view().slice(100, 3);
  Partial together, each;
  together.reset(6, dv);
  each.reset(6, dv);
  DecodePool pool(2);
  step_heads_beside_static(pointers, queries, keys, values, pool, together.out.data(),
                           together.lse.data());
  DecodeScratch scratch;
  for (std::size_t i = 0; i < 3; ++i)
    same[i].step_beside_static(queries.slice(2 * i, 2), keys.row(i), values.row(i), scratch,
                               each.out.row(2 * i), &each.lse[2 * i]);
  EXPECT_EQ(test::elements(together.out), test::elements(each.out));
  EXPECT_EQ(together.lse, each.lse);
  test::expect_error(ErrorCode::invalid_argument, {"queries has 5 rows"}, [&] {
    step_heads_beside_static(pointers, queries.slice(0, 5), keys, values, pool, together.out.data(),
                             together.lse.data());
  });
  EXPECT_EQ(caches[0].tokens(), 61U);
}

}  // namespace
}  // namespace keyseek
