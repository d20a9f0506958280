// The table of options: what it says of each, and that it is what the docs say.
#include "keyseek/decode_options.hpp"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <set>
#include <sstream>

#include "file/temporary_directory.hpp"
#include "keyseek/error.hpp"

namespace keyseek {
namespace {

using test::expect_error;

std::string refusal(const std::string& name, const OptionValue& value) {
  DecodeParams params{.scale = 1};
  try {
    decode_option(name).set(params, value);
    params.validate();
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ErrorCode::invalid_argument);
    return e.what();
  }
  return "";
}

TEST(DecodeOptions, AreNamedOnceAndComeInGroups) {
  std::set<std::string_view> names, groups;
  std::string_view group;
  for (const DecodeOption& option : decode_options()) {
    EXPECT_TRUE(names.insert(option.name).second) << option.name;
    if (option.group != group) {
      EXPECT_TRUE(groups.insert(option.group).second) << option.group;
    }
    group = option.group;
    EXPECT_FALSE(option.meaning.empty()) << option.name;
    EXPECT_EQ(&decode_option(option.name), &option);
  }
  expect_error(ErrorCode::invalid_argument, {"there is no option sinks", "max_error, safety"},
               [] { (void)decode_option("sinks"); });
}

TEST(DecodeOptions, EachComesBackFromItsText) {
  DecodeParams params{.max_error = 0.1 + 0.2,
                      .scale = 0.1F,
                      .null_logits = {1.0F / 3, -2},
                      .shift = false,
                      .sink = SIZE_MAX,
                      .max_memory = HUGE_VAL,
                      .rule = Rule::mass,
                      .given = GivenPlan{.k = 7, .limit = 0.9},
                      .seed = (std::uint64_t{1} << 53U) + 1};
  params.rope.layout = RopeLayout::interleaved;
  params.rope.frequencies = {1e-300, 1.0 / 7};
  const DecodeParams again = decode_params_from(to_text(params));
  EXPECT_EQ(to_text(again), to_text(params));
  EXPECT_EQ(again.max_error, params.max_error);
  EXPECT_EQ(again.scale, params.scale);
  EXPECT_EQ(again.null_logits, params.null_logits);
  EXPECT_EQ(again.rope.frequencies, params.rope.frequencies);
  EXPECT_EQ(again.sink, SIZE_MAX);
  EXPECT_EQ(again.seed, params.seed);
  EXPECT_EQ(again.given->retriever, std::nullopt);
  EXPECT_EQ(again.given->limit, 0.9);
}

TEST(DecodeOptions, WhatIsWrongIsNamedWithWhatItMayBe) {
  EXPECT_EQ(refusal("sink", 1.5), "sink is '1.5', must be a whole number");
  EXPECT_EQ(refusal("max_error", 2.0), "max_error is 2, must be in (0, 1)");
  EXPECT_EQ(refusal("share", 0.0), "share is 0, must be in (0, 1]");
  EXPECT_EQ(refusal("window", std::size_t{0}), "window is 0, must be at least 1");
  EXPECT_EQ(refusal("tail_vectors", std::size_t{65537}),
            "tail_vectors is 65537, must be at most 65536");
  EXPECT_EQ(refusal("max_memory", 1.0), "max_memory is 1, must be above 1");
  EXPECT_EQ(refusal("theta", HUGE_VAL), "theta is inf, must be finite");
  EXPECT_EQ(refusal("rule", std::string("best")), "rule is 'best', must be top-k, dipr or mass");
  EXPECT_EQ(refusal("shift", std::monostate()), "shift is '-', must be true or false");
  EXPECT_EQ(refusal("k", std::size_t{5}),
            "k is 5, but only a given plan has one: give a retriever");
  EXPECT_EQ(refusal("sink", std::size_t{5}), "");
}

TEST(DecodeOptions, OfAGivenPlanGoWithIt) {
  DecodeParams params{.scale = 1};
  decode_option("retriever").set_text(params, "complete");
  decode_option("k").set_text(params, "5");
  ASSERT_TRUE(params.given);
  EXPECT_FALSE(params.given->retriever);
  EXPECT_EQ(params.given->k, 5U);
  decode_option("limit").set_text(params, "2");
  expect_error(ErrorCode::invalid_argument, {"limit is 2, but the rule top-k has none"},
               [&] { params.validate(); });
  decode_option("retriever").set_text(params, "-");
  EXPECT_FALSE(params.given);
  EXPECT_EQ(decode_option("k").text(params), "-");
}

TEST(DecodeOptions, APlanSeesAShareOfThePromptButNotTooLittle) {
  const DecodeParams params;
  EXPECT_EQ(params.plan_positions(100), 2048U);
  EXPECT_EQ(params.plan_positions(32768), 6553U);
}

/// docs/decode-options.md, as it should be.
std::string page() {
  DecodeParams presets;
  presets.given.emplace();
  std::string text =
      "# Options of decoding\n\n"
      "What `keyseek::DecodeParams`, `keyseek.DecodeParams` in Python, `keyseek.hf.RetrievalCache` "
      "and\n"
      "`keyseek decode` take, by one name everywhere (on the command line with dashes; logits and "
      "rotary\n"
      "embedding are the capture's there). A search of one's own, `index`, is a function and not "
      "listed.\n"
      "An option that was given and that nobody would read is refused, as `max_error` beside a "
      "`retriever`.\n"
      "This page is the table in `src/decode/options.cpp`; the test that compares them writes it "
      "when\n"
      "KEYSEEK_WRITE_DOCS is set in its environment.\n";
  std::string_view group;
  for (const DecodeOption& option : decode_options()) {
    if (option.group != group)
      text += fmt::format(
          "\n## Of the {}\n\n| option | default | values | meaning |\n|---|---|---|---|\n",
          group = option.group);
    std::string meaning(option.meaning);
    for (std::size_t at = 0; (at = meaning.find('|', at)) != std::string::npos; at += 2)
      meaning.insert(at, "\\");
    const std::string preset = option.name == "retriever" ? "-" : option.text(presets);
    text +=
        fmt::format("| `{}` | {} | {} | {} |\n", option.name, preset, option.allowed(), meaning);
  }
  return text;
}

TEST(DecodeOptions, ArePartOfTheDocs) {
  const std::filesystem::path tests = std::filesystem::path(KEYSEEK_TEST_DATA).parent_path();
  const auto path = tests.parent_path() / "docs" / "decode-options.md";
  if (std::getenv("KEYSEEK_WRITE_DOCS") != nullptr) std::ofstream(path) << page();
  std::stringstream found;
  found << std::ifstream(path).rdbuf();
  EXPECT_EQ(found.str(), page()) << "run this test with KEYSEEK_WRITE_DOCS=1";
}

}  // namespace
}  // namespace keyseek
