#include <gtest/gtest.h>

#include <cmath>
#include <functional>

#include "file/temporary_directory.hpp"
#include "io/small_capture.hpp"
#include "keyseek/io.hpp"

namespace keyseek::io {
namespace {

using test::expect_error;
using test::SmallCapture;
using test::TemporaryDirectory;

TEST(Capture, InfoListsHeadsInOrder) {
  const TemporaryDirectory directory;
  SmallCapture().write(directory / "a.attn.h5");
  const auto info = capture_info(directory / "a.attn.h5");
  EXPECT_EQ(info.model, "small");
  EXPECT_EQ(info.text, "waves");
  EXPECT_EQ(info.capture, "made by a test");
  EXPECT_EQ(info.prefill, 24U);
  ASSERT_EQ(info.heads.size(), 4U);
  EXPECT_EQ(info.heads[1].layer, 2U);
  EXPECT_EQ(info.heads[1].kv_head, 1U);
  EXPECT_EQ(info.heads[2].layer, 10U);
  EXPECT_EQ(info.heads[2].tokens, 32U);
  EXPECT_EQ(info.heads[2].dim, 4U);
  EXPECT_EQ(info.heads[2].group, 2U);
}

TEST(Capture, ReadsAHead) {
  const TemporaryDirectory directory;
  SmallCapture().write(directory / "a.attn.h5");
  const auto head = read_capture(directory / "a.attn.h5", 2, 1);
  EXPECT_EQ(head.keys.dtype(), Dtype::f16);
  EXPECT_EQ(head.keys.rows(), 32U);
  EXPECT_EQ(head.values.cols(), 3U);
  ASSERT_EQ(head.queries.size(), 2U);
  EXPECT_EQ(head.queries[1].row(31)[3], SmallCapture::element(1, 31, 3));
  EXPECT_EQ(to_f32(head.keys.view()).row(5)[2], SmallCapture::element(0, 5, 2));
  EXPECT_EQ(to_f32(head.values.view()).row(5)[2], SmallCapture::element(0, 5, 2));
  EXPECT_EQ(head.prefill, 24U);
  EXPECT_EQ(head.scale, 0.5);
  EXPECT_EQ(head.rope.theta, 1e5);
  EXPECT_EQ(head.rope.rotary_dim, 4U);
  EXPECT_EQ(head.rope.layout, RopeLayout::half_split);
  EXPECT_EQ(head.model, "small");
  EXPECT_EQ(head.text, "waves");
}

TEST(Capture, ALayerMayHaveItsOwnTheta) {
  const TemporaryDirectory directory;
  SmallCapture().write(directory / "a.attn.h5");
  EXPECT_EQ(read_capture(directory / "a.attn.h5", 10, 0).rope.theta, 1e6);
}

TEST(Capture, DescriptionsAndNewAttributesMayBeMissing) {
  const TemporaryDirectory directory;
  for (const std::string name :
       {"model", "text", "capture", "rope_dim", "rope_layout", "format_version"}) {
    SmallCapture small;
    small.without = name;
    small.write(directory / "a.attn.h5");
    EXPECT_EQ(capture_info(directory / "a.attn.h5").heads.size(), 4U);
    const auto rope = read_capture(directory / "a.attn.h5", 2, 0).rope;
    EXPECT_EQ(rope.rotary_dim, name == "rope_dim" ? 0U : 4U);
    EXPECT_EQ(rope.layout, RopeLayout::half_split);
  }
}

TEST(Capture, Interleaved) {
  const TemporaryDirectory directory;
  SmallCapture small;
  small.layout = "interleaved";
  small.write(directory / "a.attn.h5");
  EXPECT_EQ(read_capture(directory / "a.attn.h5", 2, 0).rope.layout, RopeLayout::interleaved);
}

TEST(Capture, ContradictionsAreRefused) {
  const TemporaryDirectory directory;
  const auto path = directory / "a.attn.h5";
  const auto refuses = [&](ErrorCode code, const std::string& part,
                           const std::function<void(SmallCapture&)>& change) {
    SCOPED_TRACE(part);
    SmallCapture small;
    change(small);
    small.write(path);
    expect_error(code, {path.string(), part}, [&] { (void)read_capture(path, 2, 0); });
  };
  const auto corrupt = ErrorCode::corrupt;
  for (const std::string name : {"prefill", "scale", "rope_theta"}) {
    refuses(corrupt, "attribute " + name + " is missing",
            [&](SmallCapture& c) { c.without = name; });
  }
  for (const std::string name : {"keys", "values", "queries"}) {
    refuses(corrupt, "dataset L2/K0/" + name + " is missing",
            [&](SmallCapture& c) { c.without = name; });
  }
  refuses(corrupt, "L2/K0/values: 31 rows", [](SmallCapture& c) { c.value_tokens = 31; });
  refuses(corrupt, "L2/K0/queries: 31 rows", [](SmallCapture& c) { c.query_tokens = 31; });
  refuses(corrupt, "L2/K0/queries: 32 rows of 6", [](SmallCapture& c) { c.query_dim = 6; });
  refuses(corrupt, "prefill is 33", [](SmallCapture& c) { c.prefill = 33; });
  refuses(corrupt, "prefill is 0", [](SmallCapture& c) { c.prefill = 0; });
  refuses(corrupt, "scale is -1", [](SmallCapture& c) { c.scale = -1; });
  refuses(corrupt, "scale: must be a finite", [](SmallCapture& c) { c.scale = std::nan(""); });
  refuses(corrupt, "rope_dim is 6", [](SmallCapture& c) { c.rope_dim = 6; });
  refuses(corrupt, "rope_dim is 3", [](SmallCapture& c) { c.rope_dim = 3; });
  refuses(ErrorCode::unsupported, "'spiral'", [](SmallCapture& c) { c.layout = "spiral"; });
  refuses(ErrorCode::unsupported, "version 2", [](SmallCapture& c) { c.format_version = 2; });
}

TEST(Capture, AMissingHeadNamesThoseThatExist) {
  const TemporaryDirectory directory;
  SmallCapture().write(directory / "a.attn.h5");
  expect_error(ErrorCode::invalid_argument, {"no head L3/K0", "L2/K0, L2/K1, L10/K0, L10/K1"},
               [&] { (void)read_capture(directory / "a.attn.h5", 3, 0); });
}

TEST(Capture, OtherFilesAreNoCapture) {
  const TemporaryDirectory directory;
  const auto path = directory / "a.attn.h5";
  hdf5::Writer file(path);
  file.set("/", "prefill", std::size_t{1});
  file.commit();
  expect_error(ErrorCode::corrupt, {path.string(), "no capture"},
               [&] { (void)capture_info(path); });
}

TEST(Capture, TheSampleIsPlausible) {
  const auto info = capture_info(KEYSEEK_SAMPLE);
  EXPECT_EQ(info.prefill, 7168U);
  ASSERT_FALSE(info.heads.empty());
  const auto [layer, kv_head, tokens, dim, group] = info.heads.front();
  EXPECT_EQ(tokens, 8192U);
  EXPECT_EQ(dim, 64U);
  EXPECT_EQ(group, 3U);
  const auto head = read_capture(KEYSEEK_SAMPLE, layer, kv_head);
  EXPECT_EQ(head.rope.theta, 100000.0);
  EXPECT_EQ(head.scale, 0.125);
  EXPECT_NO_THROW(require_finite(head.keys.view(), "keys"));
  double sum = 0;
  for (std::size_t i = 0; i < tokens; ++i) {
    for (std::size_t j = 0; j < dim; ++j) sum += std::abs(head.queries[0].row(i)[j]);
  }
  const double mean = sum / static_cast<double>(tokens * dim);
  EXPECT_GT(mean, 0.1);
  EXPECT_LT(mean, 10);
}

}  // namespace
}  // namespace keyseek::io
