// HeadCaches beside a session: sink and window on the (emulated) device and the rest on the CPU are
// together what the caches compute alone, on real heads and through refreshes.
#include <gtest/gtest.h>

#include "sample_heads.hpp"
#include "stub_runtime.hpp"

namespace keyseek::cuda::test {
namespace {

constexpr std::size_t kPrompt = SampleHeads::kPrompt, kHorizon = SampleHeads::kHorizon;

TEST(HeadsSession, IsWhatTheCachesComputeAlone) {
  for (const Retriever retriever : {Retriever::flat, Retriever::none, Retriever::everything}) {
    SampleHeads sample(retriever);
    const std::vector<HeadCache*> caches = sample.caches();
    auto runtime = std::make_shared<StubRuntime>(StubOptions{Pace::lazy, Pace::eager});
    const Stream stream = runtime->make_stream();
    DecodeSession session(runtime, session_shape(caches), stream);
    session.load(caches);
    EXPECT_LT(sample.decode(*runtime, session, stream, kHorizon + 5), 1e-3) << to_string(retriever);
    EXPECT_EQ(caches[0]->tokens(), kPrompt + kHorizon + 5);
    EXPECT_EQ(caches[0]->indexed(), kPrompt - SampleHeads::kSink - SampleHeads::kWindow + kHorizon);
  }
}

TEST(HeadsSession, NullLogitsComeWithTheCpusPart) {
  for (const Retriever retriever : {Retriever::flat, Retriever::everything}) {
    SampleHeads sample(retriever, {5.0F, 0.0F, 2.0F});
    const std::vector<HeadCache*> caches = sample.caches();
    auto runtime = std::make_shared<StubRuntime>();
    const Stream stream = runtime->make_stream();
    DecodeSession session(runtime, session_shape(caches), stream);
    session.load(caches);
    EXPECT_LT(sample.decode(*runtime, session, stream, 10), 1e-3) << to_string(retriever);
  }
}

// The caches have all tokens: another session takes over, and without one they go on alone.
TEST(HeadsSession, CachesOutliveTheirDevice) {
  SampleHeads sample;
  const std::vector<HeadCache*> caches = sample.caches();
  StubOptions options;
  options.fault = DeviceFault::lost;
  for (int life = 0; life < 2; ++life) {
    auto runtime = std::make_shared<StubRuntime>(options);
    const Stream stream = runtime->make_stream();
    DecodeSession session(runtime, session_shape(caches), stream);
    session.load(caches);
    EXPECT_LT(sample.decode(*runtime, session, stream, 20), 1e-3) << "life " << life;
    runtime->set_failing_call(runtime->calls());
    DecodePool pool(1);
    EXPECT_THROW(session.step(caches, pool), DeviceError);
  }
  EXPECT_LT(sample.decode_alone(5), 1e-5);
  EXPECT_EQ(caches[0]->tokens(), kPrompt + 45);
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
  EXPECT_EQ(refusal(fits, with(params(fits), [](DecodeParams& p) { p.softcap = 50.0F; })),
            "a head has softcap 50: a device attends to logits that are not capped; let the CPU "
            "decode alone");
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
