// A real head: the static part on the (emulated) device and a search on the CPU are together what
// the CPU computes alone.
#include <gtest/gtest.h>

#include "cuda/runtime.hpp"
#include "keyseek/index.hpp"
#include "keyseek/io.hpp"
#include "stub_runtime.hpp"
#include "support/attention_reference.hpp"
#include "support/random_data.hpp"

namespace keyseek::cuda::test {
namespace {

constexpr std::size_t kPrompt = 7168, kSteps = 6, kSink = 128, kWindow = 512;

/// Layer 15 of the sample: tokens in order, the middle of the prompt indexed.
struct SampleHead {
  SampleHead()
      : head(io::read_capture(KEYSEEK_SAMPLE, 15, 0)),
        group(head.queries.size()),
        dim(head.keys.cols()),
        scale(static_cast<float>(head.scale)),
        indexed_values(head.values.view().slice(kSink, kPrompt - kWindow - kSink)),
        index(FlatIndex::build(head.keys.view().slice(kSink, kPrompt - kWindow - kSink))) {}

  [[nodiscard]] Matrix<float> queries(std::size_t token) const {
    Matrix<float> rows(group, dim);
    for (std::size_t g = 0; g < group; ++g)
      std::copy_n(head.queries[g].row(token), dim, rows.row(g));
    return rows;
  }

  void attend_retrieved(MatrixView<float> at, Partial& out) {
    Hits hits;
    index.search(at, {.k = 100}, search, hits);
    attend_hits(hits, {indexed_values}, scale, scratch, out);
  }

  /// What the CPU computes alone: tokens [first, last) exactly, added to `into`.
  void attend_exactly(MatrixView<float> at, std::size_t first, std::size_t last, Partial& into) {
    Partial part;
    attend(at, head.keys.view().slice(first, last - first),
           {head.values.view().slice(first, last - first)}, scale, scratch, part);
    keyseek::merge(part, into);
  }

  io::CapturedHead head;
  std::size_t group, dim;
  float scale;
  AnyMatrixView indexed_values;
  FlatIndex index;
  SearchScratch search;
  AttendScratch scratch;
};

/// Sink and window of the prompt, without a gap between them.
std::vector<std::byte> static_part(AnyMatrixView rows) {
  const std::size_t row = rows.cols * size_of(rows.dtype);
  const auto* begin = static_cast<const std::byte*>(rows.data);
  std::vector<std::byte> part(begin, begin + kSink * row);
  part.insert(part.end(), begin + (kPrompt - kWindow) * row, begin + kPrompt * row);
  return part;
}

TEST(SampleSession, IsWhatTheCpuComputesAlone) {
  SampleHead sample;
  auto runtime = std::make_shared<StubRuntime>();
  const Stream stream = runtime->make_stream();
  DecodeSession session(
      runtime, {.heads = 1, .group = sample.group, .dim = sample.dim, .scale = sample.scale},
      stream);
  const auto keys = static_part(sample.head.keys.view());
  const auto values = static_part(sample.head.values.view());
  session.load(keys.data(), values.data(), kSink + kWindow);

  for (std::size_t token = kPrompt; token < kPrompt + kSteps; ++token) {
    const Matrix<float> queries = sample.queries(token);
    const AnyMatrix stored = keyseek::test::stored_as(queries, Dtype::f16);
    const std::size_t row = sample.dim * sizeof(Half);
    runtime->copy(session.inputs().queries, stored.view().data, sample.group * row, stream);
    runtime->copy(session.inputs().key, sample.head.keys.view().row(token), row, stream);
    runtime->copy(session.inputs().value, sample.head.values.view().row(token), row, stream);

    session.step([&](const CpuStep& sent, Partial& out) {
      const Matrix<float> asked = to_f32(sent.queries);
      sample.attend_retrieved(asked, out);
      ASSERT_EQ(sent.evicted_keys.rows, 1U);  // the window is full: each step a token leaves it
      EXPECT_EQ(keyseek::test::elements(to_f32(sent.evicted_keys)),
                keyseek::test::elements(to_f32(sample.head.keys.view().slice(token - kWindow, 1))));
      sample.attend_exactly(asked, kPrompt - kWindow, token - kWindow + 1, out);
    });

    Partial alone;
    sample.attend_retrieved(queries, alone);
    sample.attend_exactly(queries, 0, kSink, alone);
    sample.attend_exactly(queries, kPrompt - kWindow, token + 1, alone);
    runtime->finish_all();
    const AnyMatrixView got{session.output(), Dtype::f16, sample.group, sample.dim, sample.dim};
    std::vector<float> out(sample.dim);
    for (std::size_t g = 0; g < sample.group; ++g) {
      got.copy_row(g, out.data());
      EXPECT_LT(keyseek::test::relative_error(out.data(), alone.out.row(g), sample.dim), 1e-3);
    }
  }
}

}  // namespace
}  // namespace keyseek::cuda::test
