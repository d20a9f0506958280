// HeadCaches beside a session: sink and window on the (emulated) device and the rest on the CPU are
// together what the caches compute alone, on real heads and through refreshes.
#include <gtest/gtest.h>

#include "cuda/runtime.hpp"
#include "stub_runtime.hpp"
#include "support/decode_head.hpp"

namespace keyseek::cuda::test {
namespace {

using keyseek::test::DecodeHead;

constexpr std::size_t kPrompt = 3000, kHorizon = 64;

/// Heads of the sample: as many KV heads of one made-up layer.
class SampleHeads {
 public:
  explicit SampleHeads(Retriever retriever = Retriever::flat) {
    for (const std::size_t layer : {2U, 15U}) {
      DecodeHead head = keyseek::test::sample_head(layer);
      // As they reach the CPU from a device.
      head.queries = to_f32(keyseek::test::stored_as(head.queries, Dtype::f16).view());
      head.params.sink = 16;
      head.params.window = 32;
      head.params.horizon = kHorizon;
      head.params.given = GivenPlan{.retriever = retriever, .stop = {.k = 40}};
      caches_.push_back(head.prefill(kPrompt, head.params));
      heads_.push_back(std::move(head));
    }
    alone_ = caches_;
  }

  [[nodiscard]] std::vector<HeadCache*> caches() {
    std::vector<HeadCache*> pointers;
    for (HeadCache& cache : caches_) pointers.push_back(&cache);
    return pointers;
  }

  /// On the stream: the next token of each head, queries and key and value in f16.
  void write_token(Runtime& runtime, const DecodeSession& session, Stream stream) {
    const std::size_t token = alone_[0].tokens(), row = session.shape().dim * sizeof(Half);
    const std::size_t group = session.shape().group;
    for (std::size_t i = 0; i < heads_.size(); ++i) {
      const auto at = [&](void* to, std::size_t rows) {
        return static_cast<std::byte*>(to) + i * rows * row;
      };
      queries_[i] = keyseek::test::stored_as(rows_of(heads_[i].at(token)), Dtype::f16);
      const TokenInputs to = session.inputs();
      runtime.copy(at(to.queries, group), queries_[i].view().data, group * row, stream);
      runtime.copy(at(to.key, 1), heads_[i].keys.view().row(token), row, stream);
      runtime.copy(at(to.value, 1), heads_[i].values.view().row(token), row, stream);
    }
  }

  /// The largest difference of the session's output to that of the caches alone, which take the
  /// same step.
  double difference(const DecodeSession& session) {
    const SessionShape& shape = session.shape();
    const AnyMatrixView got{session.output(), shape.dtype, shape.queries(), shape.dim, shape.dim};
    double worst = 0;
    std::vector<float> row(shape.dim);
    for (std::size_t i = 0; i < heads_.size(); ++i) {
      const Matrix<float> expected = heads_[i].step(alone_[i], scratch_);
      for (std::size_t g = 0; g < shape.group; ++g) {
        got.copy_row(i * shape.group + g, row.data());
        worst =
            std::max(worst, keyseek::test::relative_error(row.data(), expected.row(g), shape.dim));
      }
    }
    return worst;
  }

 private:
  static Matrix<float> rows_of(MatrixView<float> rows) {
    Matrix<float> copy(rows.rows, rows.cols);
    for (std::size_t i = 0; i < rows.rows; ++i) std::copy_n(rows.row(i), rows.cols, copy.row(i));
    return copy;
  }

  std::vector<DecodeHead> heads_;
  std::vector<HeadCache> caches_, alone_;
  AnyMatrix queries_[2];
  DecodeScratch scratch_;
};

TEST(HeadsSession, IsWhatTheCachesComputeAlone) {
  for (const Retriever retriever : {Retriever::flat, Retriever::none, Retriever::everything}) {
    SampleHeads sample(retriever);
    const std::vector<HeadCache*> caches = sample.caches();
    auto runtime = std::make_shared<StubRuntime>();
    const Stream stream = runtime->make_stream();
    DecodeSession session(runtime, session_shape(caches), stream);
    session.load(caches);
    DecodePool pool(2);
    for (std::size_t s = 0; s < kHorizon + 5; ++s) {
      sample.write_token(*runtime, session, stream);
      session.step(caches, pool);
      runtime->finish_all();
      ASSERT_LT(sample.difference(session), 1e-3) << to_string(retriever) << ", step " << s;
    }
    EXPECT_EQ(caches[0]->tokens(), kPrompt + kHorizon + 5);
    EXPECT_EQ(caches[0]->indexed(), kPrompt - 16 - 32 + kHorizon);
  }
}

// The caches have all tokens: another session takes over, and without one they go on alone.
TEST(HeadsSession, CachesOutliveTheirDevice) {
  SampleHeads sample;
  const std::vector<HeadCache*> caches = sample.caches();
  StubOptions options;
  options.fault = DeviceFault::lost;
  DecodePool pool(1);
  for (int life = 0; life < 2; ++life) {
    auto runtime = std::make_shared<StubRuntime>(options);
    const Stream stream = runtime->make_stream();
    DecodeSession session(runtime, session_shape(caches), stream);
    session.load(caches);
    for (std::size_t s = 0; s < 20; ++s) {
      sample.write_token(*runtime, session, stream);
      session.step(caches, pool);
      runtime->finish_all();
      ASSERT_LT(sample.difference(session), 1e-3) << "life " << life << ", step " << s;
    }
    runtime->set_failing_call(runtime->calls());
    EXPECT_THROW(session.step(caches, pool), DeviceError);
  }
  EXPECT_EQ(caches[0]->tokens(), kPrompt + 40);
}

TEST(HeadsSession, LoadWaitsAndEveryFailureIsAnError) {
  SampleHeads sample;
  const std::vector<HeadCache*> caches = sample.caches();
  int failing = 0;
  for (bool failed = true; failed; ++failing) {
    auto runtime = std::make_shared<StubRuntime>(StubOptions{Pace::lazy, Pace::lazy});
    const Stream stream = runtime->make_stream();
    DecodeSession session(runtime, session_shape(caches), stream);
    runtime->set_failing_call(runtime->calls() + failing);
    failed = false;
    try {
      session.load(caches);
    } catch (const DeviceError&) {
      failed = true;
    }
    runtime->set_failing_call(-1);
    if (failed) {
      EXPECT_THROW(session.begin(), Error) << "call " << failing;
      runtime->finish_all();
    }
  }
  EXPECT_EQ(failing, 6);  // ring, keys, values, record, wait; and once none
}

TEST(HeadsSession, RefusesHeadsThatDoNotFit) {
  using keyseek::test::normal_head;
  using keyseek::test::with;
  const auto params = [](const DecodeHead& head) {
    return with(head.params, [](DecodeParams& p) {
      p.sink = 8;
      p.window = 12;
    });
  };
  const auto refusal = [&](const DecodeHead& head, const DecodeParams& p, std::size_t n = 60) {
    HeadCache good = normal_head(60, 2, Dtype::f16, 64, 64).prefill(60, params(head));
    HeadCache cache = head.prefill(n, p);
    HeadCache* const heads[] = {&good, &cache};
    try {
      (void)session_shape(heads);
    } catch (const Error& error) {
      return std::string(error.what());
    }
    return std::string();
  };
  const DecodeHead fits = normal_head(60, 2, Dtype::f16, 64, 64);
  EXPECT_EQ(refusal(fits, params(fits)), "");
  EXPECT_EQ(refusal(fits, with(params(fits), [](DecodeParams& p) { p.window = 13; })),
            "heads differ in group, sink, window or scale");
  EXPECT_EQ(refusal(fits, params(fits), 7),
            "the prompt had 7 tokens, a static part needs its sink of 8");
  const DecodeHead wide = normal_head(60, 2, Dtype::f16, 64, 96);
  EXPECT_EQ(refusal(wide, params(wide)),
            "a head has keys of dimension 64 and values of 96, must have 64 of both");
  const DecodeHead f32 = normal_head(60, 2, Dtype::f32, 64, 64);
  EXPECT_EQ(refusal(f32, params(f32)),
            "a head has keys of f32 and values of f32, must have both of f16");
  HeadCache alone = f32.prefill(60, params(f32));
  HeadCache* const one[] = {&alone};
  try {
    (void)session_shape(one);
    FAIL() << "a session of f32";
  } catch (const Error& error) {
    EXPECT_STREQ(error.what(), "dtype is f32, must be f16 or bf16");
  }
  EXPECT_THROW((void)session_shape({}), Error);
}

TEST(HeadsSession, RefusesOtherHeadsThanItWasMadeFor) {
  SampleHeads sample;
  const std::vector<HeadCache*> caches = sample.caches();
  auto runtime = std::make_shared<StubRuntime>();
  SessionShape shape = session_shape(caches);
  shape.window += 1;
  DecodeSession session(runtime, shape, runtime->make_stream());
  EXPECT_THROW(session.load(caches), Error);
  DecodePool pool(1);
  EXPECT_THROW(session.step(std::span(caches).first(1), pool), Error);
}

}  // namespace
}  // namespace keyseek::cuda::test
