// The same decodes on a real device, skipped where there is none.
#include <gtest/gtest.h>

#include "sample_heads.hpp"
#include "session_run.hpp"

namespace keyseek::cuda::test {
namespace {

class OnDevice : public testing::Test {
 protected:
  void SetUp() override {
    try {
      runtime_ = open_device();
    } catch (const DeviceError& error) {
      GTEST_SKIP() << error.what();
    }
  }

  /// The worst error when tokens [prompt, tokens) are decoded.
  double decode(const SessionShape& shape, std::size_t prompt, std::size_t tokens, bool captured) {
    SessionRun run(runtime_, shape, prompt, tokens);
    if (captured) run.session().capture();
    for (std::size_t t = prompt; t < tokens; ++t) run.step();
    return run.error();
  }

  std::shared_ptr<Runtime> runtime_;
};

TEST_F(OnDevice, StepsAreFullAttention) {
  for (const bool captured : {false, true}) {
    for (const Dtype dtype : {Dtype::f16, Dtype::bf16}) {
      for (const std::size_t dim : {64U, 96U, 128U, 256U}) {
        for (const std::size_t group : {1U, 2U, 3U, 4U, 5U, 8U, 9U, 12U, 16U, 64U}) {
          SessionShape shape = small_shape();
          shape.dtype = dtype;
          shape.dim = dim;
          shape.group = group;
          shape.heads = 3;
          shape.scale = 0.1F;
          EXPECT_LT(decode(shape, 5, 20, captured), error_bound(dtype))
              << to_string(dtype) << " d " << dim << " G " << group << ", captured: " << captured;
        }
      }
    }
  }
}

TEST_F(OnDevice, TheUsualStaticPattern) {
  const SessionShape shape{.heads = 8, .group = 4, .dim = 128, .scale = 0.0884F};
  for (const bool captured : {false, true}) {
    EXPECT_LT(decode(shape, 640, 700, captured), error_bound(shape.dtype));
    EXPECT_LT(decode(shape, 0, 40, captured), error_bound(shape.dtype));
  }
}

TEST_F(OnDevice, HeadCachesBesideItAreWhatTheyComputeAlone) {
  for (const bool captured : {false, true}) {
    SampleHeads sample;
    const std::vector<HeadCache*> caches = sample.caches();
    const Stream stream = runtime_->make_stream();
    {
      DecodeSession session(runtime_, session_shape(caches), stream);
      session.load(caches);
      if (captured) session.capture();
      EXPECT_LT(sample.decode(*runtime_, session, stream, SampleHeads::kHorizon + 5), 1e-3);
    }
    runtime_->free_stream(stream);
  }
}

TEST(Device, ANumberThatNoDeviceHasIsAnError) {
  try {
    (void)open_device(1000);
    FAIL() << "device 1000 was opened";
  } catch (const DeviceError& error) {
    EXPECT_EQ(error.fault(), DeviceFault::absent);
    EXPECT_NE(std::string(error.what()).find("CUDA device"), std::string::npos) << error.what();
  }
}

}  // namespace
}  // namespace keyseek::cuda::test
