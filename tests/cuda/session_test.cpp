// DecodeSession on a stub: what it computes, in which order, and what it does when calls fail.
#include <gtest/gtest.h>

#include "session_run.hpp"
#include "stub_runtime.hpp"

namespace keyseek::cuda::test {
namespace {

constexpr Pace kPaces[] = {Pace::eager, Pace::lazy};
constexpr std::size_t kTokens = 14;

/// The worst error over a decode of a few tokens.
double decode(const StubOptions& options, const SessionShape& shape, std::size_t prompt,
              bool captured = false) {
  auto runtime = std::make_shared<StubRuntime>(options);
  SessionRun run(runtime, shape, prompt, kTokens);
  if (captured) run.session().capture();
  for (std::size_t t = prompt; t < kTokens; ++t) run.step();
  return run.error();
}

TEST(Session, StepsAreFullAttentionHoweverStreamsAreOrdered) {
  for (const bool captured : {false, true}) {
    for (const Pace callers : kPaces) {
      for (const Pace copies : kPaces) {
        for (const std::size_t prompt : {std::size_t{0}, std::size_t{1}, std::size_t{5}}) {
          EXPECT_LT(decode({callers, copies}, small_shape(), prompt, captured), 1e-3)
              << prompt << " tokens of prompt, captured: " << captured;
        }
      }
    }
  }
}

TEST(Session, EveryTypeDimensionAndGroup) {
  for (const Dtype dtype : {Dtype::f16, Dtype::bf16}) {
    for (const std::size_t dim : {64U, 96U, 128U, 256U}) {
      SessionShape shape = small_shape();
      shape.dtype = dtype;
      shape.dim = dim;
      shape.heads = 3;
      shape.group = dim / 32;
      shape.scale = 0.1F;
      EXPECT_LT(decode({Pace::lazy, Pace::eager}, shape, 5), error_bound(dtype)) << dim;
    }
  }
}

TEST(Session, GroupsOfMoreThanATile) {
  for (const std::size_t group : {9U, 12U, 64U}) {
    SessionShape shape = small_shape();
    shape.group = group;
    EXPECT_LT(decode({Pace::lazy, Pace::eager}, shape, 5), 1e-3) << group;
  }
}

// The three calls that order a step, each of them left out: some pace of streams must notice.
TEST(Session, AMissingOrderIsSeen) {
  for (int ignored = 0; ignored < 3; ++ignored) {
    double worst = 0;
    for (const Pace callers : kPaces) {
      for (const Pace copies : kPaces) {
        StubOptions options{callers, copies};
        options.ignored_order = ignored;
        try {
          worst = std::max(worst, decode(options, small_shape(), 5));
        } catch (const Error&) {  // of queries that were not there yet
          worst = 1;
        }
      }
    }
    EXPECT_GT(worst, 0.01) << "without order call " << ignored;
  }
}

TEST(Session, ACaptureWithoutItsJoinIsSeen) {
  StubOptions options;
  options.ignored_order = 1;
  EXPECT_THROW(decode(options, small_shape(), 5, true), std::logic_error);
}

TEST(Session, ViewsOutliveTheNextStep) {
  auto runtime = std::make_shared<StubRuntime>();
  SessionRun run(runtime, small_shape(), 5, kTokens);
  run.write_token();
  run.session().begin();
  const CpuStep sent = run.session().wait();
  const Matrix<float> queries = to_f32(sent.queries), keys = to_f32(sent.keys);
  Partial part;
  part.reset(4, 64);
  run.cpu().attend(sent, part);
  run.session().finish(part);
  run.write_token();
  run.session().begin();
  runtime->finish_all();
  EXPECT_EQ(keyseek::test::elements(to_f32(sent.queries)), keyseek::test::elements(queries));
  EXPECT_EQ(keyseek::test::elements(to_f32(sent.keys)), keyseek::test::elements(keys));
}

TEST(Session, CopiesNoMoreThanItSaysAndAllocatesNothing) {
  const SessionShape shape = small_shape();
  auto runtime = std::make_shared<StubRuntime>();
  SessionRun run(runtime, shape, 5, kTokens);
  run.step();
  const std::size_t down = runtime->bytes_down(), up = runtime->bytes_up();
  const int allocations = runtime->allocations();
  run.step();
  // G * d queries and the new token, 16 bits each; G * (d + 1) f32 up.
  EXPECT_EQ(runtime->bytes_down() - down, shape.heads * (shape.group + 2) * shape.dim * 2);
  EXPECT_EQ(runtime->bytes_up() - up, shape.queries() * (shape.dim + 1) * 4);
  EXPECT_EQ(run.session().bytes_down(), runtime->bytes_down() - down);
  EXPECT_EQ(run.session().bytes_up(), runtime->bytes_up() - up);
  EXPECT_EQ(runtime->allocations(), allocations);
}

TEST(Session, LoadStartsAnotherSequence) {
  auto runtime = std::make_shared<StubRuntime>(StubOptions{Pace::lazy, Pace::lazy});
  const SessionShape shape = small_shape();
  SessionRun run(runtime, shape, 5, kTokens);
  for (int i = 0; i < 3; ++i) run.step();
  run.session().load(nullptr, nullptr, 0);
  EXPECT_EQ(run.session().rows(), 0U);
  run.write_token();
  run.session().step([](const CpuStep&, Partial&) {});
  EXPECT_EQ(run.session().rows(), 1U);
}

TEST(Session, FreesNothingThatIsStillInUse) {
  for (const Pace callers : kPaces) {
    for (const Pace copies : kPaces) {
      auto runtime = std::make_shared<StubRuntime>(StubOptions{callers, copies});
      {
        DecodeSession session(runtime, small_shape(), runtime->make_stream());
        session.load(nullptr, nullptr, 0);
        session.step([](const CpuStep&, Partial&) {});
        session.begin();
      }
      EXPECT_FALSE(runtime->freed_too_early());
    }
  }
}

TEST(Session, StepGivesTheCpuItsPart) {
  auto runtime = std::make_shared<StubRuntime>();
  SessionRun run(runtime, small_shape(), 5, kTokens);
  for (std::size_t t = 5; t < kTokens; ++t) {
    run.write_token();
    run.session().step([&](const CpuStep& sent, Partial& out) { run.cpu().attend(sent, out); });
    run.read_output();
  }
  EXPECT_LT(run.error(), 1e-3);
}

// Every call of opening, loading and two steps fails once, in every way.
TEST(Session, EveryFailureIsAnErrorAndLeavesNothingBehind) {
  for (const bool captured : {false, true}) {
    for (const DeviceFault fault : {DeviceFault::absent, DeviceFault::out_of_memory,
                                    DeviceFault::lost, DeviceFault::refused}) {
      int failing = 0;
      for (;; ++failing) {
        StubOptions options;
        options.fault = fault;
        auto runtime = std::make_shared<StubRuntime>(options);
        const Stream stream = runtime->make_stream();
        runtime->set_failing_call(runtime->calls() + failing);
        bool failed = false;
        try {
          DecodeSession session(runtime, small_shape(), stream);
          session.load(nullptr, nullptr, 0);
          if (captured) session.capture();
          for (int i = 0; i < 2; ++i) session.step([](const CpuStep&, Partial&) {});
        } catch (const DeviceError& error) {
          failed = true;
          EXPECT_EQ(error.fault(), fault);
          EXPECT_EQ(error.code(), ErrorCode::unsupported);
          EXPECT_STRNE(error.what(), "");
        }
        EXPECT_EQ(runtime->held(), 1U) << "call " << failing;  // the caller's stream
        if (!failed) break;
      }
      EXPECT_GT(failing, 30);
    }
  }
}

TEST(Session, RefusesStepsAfterAFailureUntilTheNextLoad) {
  auto runtime = std::make_shared<StubRuntime>();
  SessionRun run(runtime, small_shape(), 5, kTokens);
  run.step();
  runtime->set_failing_call(runtime->calls());
  EXPECT_THROW(run.session().begin(), DeviceError);
  try {
    run.session().begin();
    FAIL() << "a step after a failure";
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("needs the tokens of a load"), std::string::npos)
        << error.what();
  }
  run.session().load(nullptr, nullptr, 0);
  EXPECT_NO_THROW(run.session().begin());
}

TEST(Session, AFailureOfTheCpuNeedsALoadAsWell) {
  auto runtime = std::make_shared<StubRuntime>();
  SessionRun run(runtime, small_shape(), 5, kTokens);
  const CpuPart fails = [](const CpuStep&, Partial&) { throw std::runtime_error("CPU"); };
  EXPECT_THROW(run.session().step(fails), std::runtime_error);
  EXPECT_THROW(run.session().begin(), Error);
  run.session().load(nullptr, nullptr, 0);
  EXPECT_NO_THROW(run.session().begin());
}

TEST(Session, ALostDeviceStaysLost) {
  StubOptions options;
  options.fault = DeviceFault::lost;
  auto runtime = std::make_shared<StubRuntime>(options);
  SessionRun run(runtime, small_shape(), 5, kTokens);
  runtime->set_failing_call(runtime->calls());
  EXPECT_THROW(run.session().begin(), DeviceError);
  try {
    run.session().load(nullptr, nullptr, 0);
    FAIL() << "a load on a lost device";
  } catch (const DeviceError& error) {
    EXPECT_EQ(error.fault(), DeviceFault::lost);
  }
}

TEST(Session, RefusesCallsOutOfTurn) {
  auto runtime = std::make_shared<StubRuntime>();
  SessionRun run(runtime, small_shape(), 5, kTokens);
  EXPECT_THROW((void)run.session().wait(), Error);
  EXPECT_THROW(run.session().finish({}), Error);
  run.session().begin();
  EXPECT_THROW(run.session().begin(), Error);
  (void)run.session().wait();
  Partial wrong;
  wrong.reset(3, 64);
  EXPECT_THROW(run.session().finish(wrong), Error);
  wrong.reset(4, 32);
  EXPECT_THROW(run.session().finish(wrong), Error);
  wrong.reset(4, 64);
  EXPECT_NO_THROW(run.session().finish(wrong));
}

/// What the shape's refusal says.
std::string refusal(const SessionShape& shape) {
  try {
    shape.validate();
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

TEST(Session, RefusesShapesByNameAndValue) {
  EXPECT_EQ(refusal(small_shape()), "");
  SessionShape shape = small_shape();
  shape.dim = 80;
  EXPECT_EQ(refusal(shape), "dim is 80, must be 64, 96, 128 or 256");
  shape = small_shape();
  shape.group = 65;
  EXPECT_EQ(refusal(shape), "group is 65, must be 1 to 64");
  shape = small_shape();
  shape.heads = 0;
  EXPECT_EQ(refusal(shape), "heads is 0, must be 1 to 65535");
  shape = small_shape();
  shape.window = 0;
  EXPECT_EQ(refusal(shape), "window is 0, must be at least 1");
  shape = small_shape();
  shape.dtype = Dtype::f32;
  EXPECT_EQ(refusal(shape), "dtype is f32, must be f16 or bf16");
  shape = small_shape();
  shape.scale = 0;
  EXPECT_EQ(refusal(shape), "scale is 0, must be above 0");
}

TEST(Session, RefusesMoreTokensThanItHolds) {
  auto runtime = std::make_shared<StubRuntime>();
  SessionRun run(runtime, small_shape(), 5, kTokens);
  EXPECT_THROW(run.session().load(nullptr, nullptr, 6), Error);
  EXPECT_THROW(run.session().load(nullptr, nullptr, 5), Error);
}

}  // namespace
}  // namespace keyseek::cuda::test
