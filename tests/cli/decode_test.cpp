// decode: captured heads decoded with retrieval.
#include "cli/run_tool.hpp"

namespace keyseek::test {
namespace {

using Decode = Tool;

const std::string kData = std::string("--data ") + KEYSEEK_SAMPLE;

TEST_F(Decode, ReportsEveryHeadAndWhetherThePromiseIsKept) {
  const auto done =
      report("decode " + kData + " --layers 15 --max-error 0.2,0.05 --steps 40 --threads 1");
  EXPECT_EQ(done.at("steps"), 40);
  EXPECT_TRUE(done.contains("kept_0.2"));
  const auto& heads = done.at("heads");
  ASSERT_GE(heads.size(), 2U);
  EXPECT_EQ(heads.size() % 2, 0U);
  for (const auto& head : heads) {
    EXPECT_EQ(head.at("layer"), 15);
    EXPECT_LE(head.at("error").get<double>(), head.at("max_error").get<double>());
    EXPECT_GE(head.at("k").get<int>(), 16);
    EXPECT_LT(head.at("kb_per_step").get<double>(), head.at("full_kb").get<double>());
    EXPECT_GT(head.at("memory_ratio").get<double>(), 1.0);
  }
}

TEST_F(Decode, BadInputIsNamed) {
  expect_failure("decode " + kData + " --layers 99", 2, {"none of the layers"});
  expect_failure("decode " + kData + " --max-error 2", 2, {"max_error is 2"});
  expect_failure("decode " + kData + " --steps 0", 2, {"--steps is 0"});
  expect_failure("decode --data missing.attn.h5", 4, {"missing.attn.h5"});
}

}  // namespace
}  // namespace keyseek::test
