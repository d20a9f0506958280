// decode: captured heads decoded with retrieval.
#include <cmath>

#include "cli/run_tool.hpp"

namespace keyseek::test {
namespace {

using Decode = Tool;

const std::string kData = std::string("--data ") + KEYSEEK_SAMPLE;

TEST_F(Decode, ReportsEveryHeadAndWhetherThePromiseIsKept) {
  const auto done =
      report("decode " + kData + " --layers 15 --max-error 0.2,0.05 --steps 40 --threads 1");
  EXPECT_EQ(done.at("steps"), 40);
  ASSERT_EQ(done.at("summary").size(), 2U);
  EXPECT_EQ(done.at("summary")[1].at("max_error"), 0.05);
  const std::string all = std::to_string(done.at("heads").size() / 2);
  EXPECT_EQ(done.at("summary")[1].at("kept"), all + " of " + all + " heads");
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

TEST_F(Decode, APlanCanBeGiven) {
  const auto head = [&](const std::string& options) {
    const auto done = report("decode " + kData + " --layers 2 --steps 20 --threads 1 " + options);
    EXPECT_EQ(done.at("heads").size(), done.at("summary").size());
    EXPECT_FALSE(done.at("summary")[0].contains("kept"));
    return done.at("heads")[0];
  };
  const auto flat = head("--retriever flat --k 40 --tail-vectors 16 --int8-values --pinned 32");
  EXPECT_EQ(flat.at("retriever"), "flat");
  EXPECT_EQ(flat.at("k"), 40);
  EXPECT_EQ(flat.at("tail"), 16);
  EXPECT_EQ(flat.at("attended"), 40.0);
  // A prompt of 7,168 tokens without sink, window and pinned; 64 + 64 numbers of 16 bits.
  EXPECT_EQ(flat.at("full_kb"), std::lround((7168 - 128 - 512 - 32) * 128 * 2 / 1e3));
  const auto projection = head("--retriever projection --k 40 --target-recall 0.9 --cold");
  EXPECT_LT(projection.at("scanned").get<double>(), flat.at("scanned").get<double>());
  const auto dipr = head("--retriever flat --k 100 --rule dipr --limit 3 --least-k 4");
  EXPECT_EQ(dipr.at("rule"), "dipr");
  EXPECT_EQ(dipr.at("limit"), 3.0);
  EXPECT_LT(dipr.at("attended").get<double>(), 100.0);
  EXPECT_LT(head("--retriever everything").at("error").get<double>(), 1e-5);
}

TEST_F(Decode, BadInputIsNamed) {
  expect_failure("decode " + kData + " --k 5", 2, {"--k", "--retriever"});
  expect_failure("decode " + kData + " --retriever flat --rule mass --limit 2", 2, {"limit is 2"});
  const std::string flat = "decode " + kData + " --retriever flat ";
  expect_failure(flat + "--max-error 0.05", 2, {"max_error is 0.05, but retriever is flat"});
  expect_failure(flat + "--target-recall 0.995", 2, {"target_recall is 0.995, but retriever is"});
  expect_failure(flat + "--k 0", 2, {"k is 0", "ask for the retriever none"});
  expect_failure(flat + "--may-miss", 2, {"may_miss is true, but retriever is flat"});
  expect_failure(flat + "--no-scan-novel", 2, {"scan_novel is false, but retriever is flat"});
  expect_failure(flat + "--least-k 16", 2, {"least_k is 16, but rule is top-k"});
  expect_failure("decode " + kData + " --retriever none --k 100", 2,
                 {"k is 100, but retriever is none, which searches for no keys"});
  expect_failure("decode " + kData + " --layers 99", 2, {"none of the layers"});
  expect_failure("decode " + kData + " --max-error 2", 2, {"max_error is 2"});
  expect_failure("decode " + kData + " --steps 0", 2, {"--steps is 0"});
  expect_failure("decode --data missing.attn.h5", 4, {"missing.attn.h5"});
}

}  // namespace
}  // namespace keyseek::test
