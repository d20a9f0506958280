#include <gtest/gtest.h>

#include <cstring>

#include "file/temporary_directory.hpp"
#include "io/small_capture.hpp"
#include "keyseek/io.hpp"

namespace keyseek::io {
namespace {

using test::expect_error;
using test::SmallCapture;
using test::TemporaryDirectory;

CapturedHead small_head() {
  const TemporaryDirectory directory;
  SmallCapture().write(directory / "a.attn.h5");
  return read_capture(directory / "a.attn.h5", 2, 0);
}

DecodeViewParams small_view() {
  return {.sink = 3, .window = 5, .horizon = 8, .share = 1, .shift = false, .k = 4, .seed = 1};
}

TEST(DecodeView, SplitsByTime) {
  const auto head = small_head();
  const auto b = decode_view(head, small_view());
  EXPECT_EQ(b.group, 2U);
  EXPECT_EQ(b.keys.dtype(), Dtype::f16);
  ASSERT_EQ(b.keys.rows(), 24U - 5 - 3);
  EXPECT_EQ(std::memcmp(b.keys.view().row(0), head.keys.view().row(3), 8), 0);
  EXPECT_EQ(std::memcmp(b.keys.view().row(15), head.keys.view().row(18), 8), 0);
  ASSERT_EQ(b.queries.rows(), 8U * 2);
  for (std::size_t step = 0; step < 8; ++step) {
    for (std::size_t g = 0; g < 2; ++g) {
      EXPECT_EQ(b.queries.row(step * 2 + g)[1], SmallCapture::element(g, 24 + step, 1));
    }
  }
}

TEST(DecodeView, TrainsOnPrefillQueriesOnly) {
  const auto b = decode_view(small_head(), small_view());
  ASSERT_EQ(b.learn.rows() % 2, 0U);
  ASSERT_EQ(b.learn.rows() + b.tuning.rows(), 21U * 2);  // share 1: all of [3, 24)
  EXPECT_EQ(b.learn.row(0)[0], SmallCapture::element(0, 3, 0));
  EXPECT_EQ(b.learn.row(1)[0], SmallCapture::element(1, 3, 0));
  EXPECT_TRUE(b.learn_ids.empty());
}

TEST(DecodeView, TruthIsExact) {
  const auto b = decode_view(small_head(), small_view());
  ASSERT_EQ(b.truth_ids.rows(), b.queries.rows());
  ASSERT_EQ(b.truth_ids.cols(), 4U);
  const auto keys = to_f32(b.keys.view());
  for (std::size_t i = 0; i < b.queries.rows(); ++i) {
    // Elements grow with the token, so the last keys are the best.
    for (std::size_t j = 0; j < 4; ++j) {
      const Id id = b.truth_ids.row(i)[j];
      EXPECT_EQ(id, 15 - j);
      float score = 0;
      for (std::size_t c = 0; c < 4; ++c) score += keys.row(id)[c] * b.queries.row(i)[c];
      EXPECT_NEAR(b.truth_scores.row(i)[j], score, 1e-3);
    }
  }
}

TEST(DecodeView, ShiftMovesTheTrainingQueries) {
  auto params = small_view();
  const auto still = decode_view(small_head(), params);
  params.shift = true;
  const auto moved = decode_view(small_head(), params);
  ASSERT_EQ(moved.learn.rows(), still.learn.rows());
  EXPECT_NE(moved.learn.row(5)[0], still.learn.row(5)[0]);
  EXPECT_EQ(moved.queries.row(5)[0], still.queries.row(5)[0]);
  const auto again = decode_view(small_head(), params);
  EXPECT_EQ(again.learn.row(5)[0], moved.learn.row(5)[0]);
}

TEST(DecodeView, SplitsThatLeaveNothingAreRefused) {
  const auto head = small_head();
  const auto refuses = [&](const std::string& part, auto change) {
    auto params = small_view();
    auto changed = head;
    change(params, changed);
    expect_error(ErrorCode::invalid_argument, {part}, [&] { (void)decode_view(changed, params); });
  };
  using P = DecodeViewParams&;
  using H = CapturedHead&;
  refuses("sink 3 and window 21", [](P p, H) { p.window = 21; });
  refuses("sink 24", [](P p, H) { p.sink = 24; });
  refuses("sink 18446744073709551615", [](P p, H) { p.sink = ~std::size_t{0}; });
  refuses("window 18446744073709551615", [](P p, H) { p.window = ~std::size_t{0}; });
  refuses("prefill is 32 of 32", [](P, H h) { h.prefill = 32; });
  refuses("k is 17, must be in [1, 16]", [](P p, H) { p.k = 17; });
  refuses("k is 0", [](P p, H) { p.k = 0; });
  refuses("share", [](P p, H) { p.share = 0; });
  refuses("no queries", [](P, H h) { h.queries.clear(); });
  refuses("query head 1 are 2 x 4", [](P, H h) { h.queries[1] = Matrix<float>(2, 4); });
}

TEST(DecodeView, TheSampleSplitsAsDocumented) {
  const auto entry = capture_info(KEYSEEK_SAMPLE).heads.front();
  const auto head = read_capture(KEYSEEK_SAMPLE, entry.layer, entry.kv_head);
  const auto b = decode_view(head, {.share = 0.02, .k = 10});
  EXPECT_EQ(b.keys.rows(), 7168U - 128 - 512);
  EXPECT_EQ(b.queries.rows(), 1024U * 3);
  EXPECT_EQ(b.truth_ids.cols(), 10U);
  EXPECT_GT(b.learn.rows(), 0U);
  EXPECT_GT(b.tuning_steps, 0U);
}

}  // namespace
}  // namespace keyseek::io
