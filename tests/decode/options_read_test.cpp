// An option that nobody reads is refused by name: every option with every kind of plan.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <map>
#include <string>
#include <utility>
#include <vector>

#include "file/temporary_directory.hpp"
#include "keyseek/decode_options.hpp"
#include "keyseek/error.hpp"

namespace keyseek {
namespace {

SearchKeys no_search(const AnyMatrix& /*keys*/) { return {}; }

DecodeParams given(const std::string& retriever, Rule rule = Rule::top_k) {
  DecodeParams params{.scale = 1, .rule = rule};
  decode_option("retriever").set_text(params, retriever);
  if (rule != Rule::top_k) params.given->limit = 0.5;
  if (retriever == "custom") params.index = no_search;
  return params;
}

/// Options as they may be asked for, by a letter each.
std::map<char, DecodeParams> settings() {
  std::map<char, DecodeParams> all;
  all['p'] = {.scale = 1};                      // planned,
  all['m'] = {.scale = 1, .may_miss = true};    // also with a projection index,
  all['i'] = {.scale = 1, .index = no_search};  // with a search of one's own
  all['e'] = given("everything"), all['n'] = given("none"), all['f'] = given("flat");
  all['s'] = given("sketch"), all['j'] = given("projection"), all['u'] = given("custom");
  all['c'] = given("complete"), all['d'] = given("flat", Rule::dipr);
  all['a'] = given("projection", Rule::mass);
  all['t'] = {.scale = 1, .tail_vectors = 0};
  all['x'] = {.scale = 1, .shift = false};
  all['q'] = {.scale = 1, .rope = {.rotary_dim = 2, .frequencies = {1}}};
  return all;
}

/// A value that is not the default, and where it is read.
struct Asked {
  std::string name, value, by;
};

const std::string kAll = "pmiefsjnucdatxq", kPlanned = "pmitxq", kSearched = "fsjucda";

std::vector<Asked> asked() {
  return {{"max_error", "0.1", kPlanned},
          {"safety", "0.5", kPlanned},
          {"confidence", "0.9", kPlanned},
          {"max_planted_error", "0.5", "pmtxq"},
          {"rule", "dipr", kPlanned + "da"},  // else it needs a limit first
          {"least_k", "20", kPlanned + "da"},
          {"max_k", "600", kPlanned},
          {"may_miss", "true", "pmtxq"},
          {"max_memory", "2", "pmtxqjca"},
          {"plan_share", "0.5", kPlanned + kSearched + "n"},
          {"held_out", "16", kPlanned + kSearched + "n"},
          {"seed", "7", kAll},
          {"k", "50", kSearched},
          {"limit", "0.75", "da"},
          {"target_recall", "0.9", "ja"},
          {"sink", "4", kAll},
          {"window", "16", kAll},
          {"horizon", "64", kAll},
          {"refresh_delay", "16", kAll},
          {"pinned", "8", kAll},
          {"tail_vectors", "32", kPlanned + kSearched + "n"},
          {"observed", "64", "pmixq" + kSearched + "n"},
          {"least_indexed", "40", kAll},
          {"share", "0.3", "pmtxqsjca"},
          {"int8_values", "true", kAll},
          {"scan_novel", "false", "mja"},
          {"scale", "0.5", kAll},
          {"softcap", "30", kAll},
          {"null_logits", "1", kAll},
          {"shift", "false", "pmiefsjnucdatx"},  // not beside frequencies
          {"theta", "500000", "pmiefsjnucdat"},
          {"rotary_dim", "2", "pmiefsjnucdatq"},
          {"layout", "interleaved", "pmiefsjnucdatq"},
          {"frequencies", "0.5", "pmiefsjnucdatq"},
          {"rotary_first", "2", "pmiefsjnucdatq"}};
}

TEST(UnreadOptions, AreRefusedWithEveryPlan) {
  std::size_t refused = 0;
  for (const auto& [name, value, by] : asked()) {
    const DecodeOption& option = decode_option(name);
    for (auto [letter, params] : settings()) {
      SCOPED_TRACE(fmt::format("{} with {}", name, letter));
      ASSERT_NO_THROW(params.validate());
      EXPECT_EQ(without_unread(params).given.has_value(), params.given.has_value());
      if (option.of_given_plan() && !params.given) continue;  // `set` refuses it
      if (name == "rule" && params.given && params.rule == Rule::top_k) params.given->limit = 1;
      if (name == "rule" && letter == 'd') params.rule = Rule::top_k;
      option.set_text(params, value);
      const bool in_place = name == "rule" && std::string("fsjuc").find(letter) != by.npos;
      if (by.find(letter) != std::string::npos || in_place) {
        EXPECT_NO_THROW(params.validate());
        EXPECT_NO_THROW(option.require_read(params));
        continue;
      }
      ++refused;
      const std::string who =
          name == "shift" ? "rotary_dim is 2, but shift" : name + " is " + value;
      const DecodeParams& unread = params;  // a structured binding cannot be captured
      test::expect_error(ErrorCode::invalid_argument, {who, ", but "}, [&] { unread.validate(); });
      EXPECT_NO_THROW(without_unread(params).validate());
    }
  }
  EXPECT_GT(refused, 90U);
}

TEST(UnreadOptions, AreAllThere) {
  std::vector<std::string> names, tried = {"retriever"};
  for (const DecodeOption& option : decode_options()) names.emplace_back(option.name);
  for (const Asked& each : asked()) tried.push_back(each.name);
  std::sort(names.begin(), names.end());
  std::sort(tried.begin(), tried.end());
  EXPECT_EQ(tried, names);
}

TEST(UnreadOptions, AreRefusedByNameAlsoAtTheirDefault) {
  const DecodeParams flat = given("flat");
  EXPECT_NO_THROW(flat.validate());
  for (const char* name : {"max_error", "safety", "may_miss", "max_k", "target_recall", "least_k",
                           "max_memory", "share", "scan_novel"})
    test::expect_error(ErrorCode::invalid_argument, {std::string(name) + " is ", ", but "},
                       [&] { decode_option(name).require_read(flat); });
}

TEST(UnreadOptions, AreNamedWithAReason) {
  const auto refusal = [](const DecodeParams& base, const char* name, const char* value) {
    DecodeParams params = base;
    decode_option(name).set_text(params, value);
    try {
      params.validate();
    } catch (const Error& e) {
      return std::string(e.what());
    }
    return std::string();
  };
  EXPECT_EQ(refusal(given("flat"), "max_error", "0.02"),
            "max_error is 0.02, but retriever is flat, a plan that is given: leave out one of the "
            "two");
  EXPECT_EQ(refusal(given("sketch"), "target_recall", "0.9"),
            "target_recall is 0.9, but retriever is sketch, and only a projection index is tuned "
            "to a recall");
  EXPECT_EQ(refusal(given("none"), "k", "5"),
            "k is 5, but retriever is none, which searches for no keys");
  EXPECT_EQ(refusal(given("flat"), "k", "0"),
            "k is 0, which searches for no keys: ask for the retriever none");
  EXPECT_EQ(refusal(given("flat"), "limit", "2"), "limit is 2, but the rule top-k has none");
  EXPECT_EQ(refusal(given("flat"), "least_k", "4"),
            "least_k is 4, but rule is top-k, of which a given plan keeps k keys");
  EXPECT_EQ(refusal(given("flat", Rule::dipr), "least_k", "101"), "least_k is 101, k only 100");
  DecodeParams own = given("flat");
  own.index = no_search;
  EXPECT_EQ(refusal(own, "seed", "1"),
            "index is a search of your own, but retriever is flat: it must be custom");
  EXPECT_FALSE(without_unread(own).index);
}

}  // namespace
}  // namespace keyseek
