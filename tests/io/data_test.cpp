#include <gtest/gtest.h>

#include "file/temporary_directory.hpp"
#include "io/small_capture.hpp"
#include "keyseek/io.hpp"

namespace keyseek::io {
namespace {

using test::expect_error;
using test::SmallCapture;
using test::TemporaryDirectory;

TEST(DataName, Parses) {
  const auto plain = parse_data_name("dir/llama-128-ip.hdf5");
  EXPECT_EQ(plain.path, "dir/llama-128-ip.hdf5");
  EXPECT_FALSE(plain.layer || plain.kv_head);
  const auto head = parse_data_name("dir/gemma.attn.h5:L11/K0");
  EXPECT_EQ(head.path, "dir/gemma.attn.h5");
  EXPECT_EQ(head.layer, 11U);
  EXPECT_EQ(head.kv_head, 0U);
  EXPECT_EQ(parse_data_name("a:b.hdf5").path, "a:b.hdf5");
  EXPECT_EQ(parse_data_name("a:b.h5:L1/K2").path, "a:b.h5");
  EXPECT_EQ(parse_data_name(":L1/K2").path, ":L1/K2");
}

TEST(DataName, RefusesHalfAHead) {
  for (const std::string rest : {"", "L11", "L11/", "L/K0", "L11/K", "K0/L11", "L11K0", "L11/K0x",
                                 "L-1/K0", "L99999999999999999999/K0"}) {
    expect_error(ErrorCode::invalid_argument, {"a.attn.h5:" + rest, "L<layer>/K<KV head>"},
                 [&] { (void)parse_data_name("a.attn.h5:" + rest); });
  }
  expect_error(ErrorCode::invalid_argument, {"empty"}, [] { (void)parse_data_name(""); });
}

TEST(ReadData, EitherKind) {
  const TemporaryDirectory directory;
  const auto capture = (directory / "a.attn.h5").string();
  const DecodeViewParams view = {.sink = 2, .window = 4, .share = 1, .k = 3};
  SmallCapture().write(capture);
  const auto b = read_data(capture + ":L10/K1", view);
  EXPECT_EQ(b.keys.rows(), 18U);
  const auto converted = directory / "b.h5";
  write_benchmark(converted, b);
  const auto again = read_data(converted.string(), {});
  EXPECT_EQ(again.keys.rows(), 18U);
  EXPECT_EQ(again.group, 2U);
  EXPECT_EQ(again.tuning_steps, b.tuning_steps);
  EXPECT_EQ(again.tuning.rows(), b.tuning.rows());
  EXPECT_EQ(again.truth_ids.row(7)[2], b.truth_ids.row(7)[2]);
  EXPECT_EQ(again.truth_scores.row(7)[2], b.truth_scores.row(7)[2]);
}

TEST(ReadData, ACaptureNeedsAHead) {
  const TemporaryDirectory directory;
  const auto capture = (directory / "a.attn.h5").string();
  SmallCapture().write(capture);
  expect_error(ErrorCode::invalid_argument, {"say which head", capture + ":L2/K0"},
               [&] { (void)read_data(capture, {}); });
}

}  // namespace
}  // namespace keyseek::io
