// A head's cache on disk. (What a container checks has tests of its own.)
#include <gtest/gtest.h>

#include <fmt/format.h>

#include <cmath>
#include <map>
#include <span>

#include "file/container.hpp"
#include "file/temporary_directory.hpp"
#include "keyseek/decode_options.hpp"
#include "keyseek/index.hpp"
#include "support/decode_head.hpp"
#include "support/indexes.hpp"

namespace keyseek {
namespace {

using test::elements;
using test::expect_error;
using test::sample_of_layer_2;
using test::TemporaryDirectory;

DecodeParams given(std::optional<Retriever> retriever) {
  return test::with(test::given_plan(retriever), [](DecodeParams& p) { p.horizon = 64; });
}

void expect_same(const HeadCache& a, const HeadCache& b) {
  EXPECT_EQ(a.tokens(), b.tokens());
  EXPECT_EQ(a.indexed(), b.indexed());
  EXPECT_EQ(a.pinned(), b.pinned());
  EXPECT_EQ(a.plan().retriever, b.plan().retriever);
  EXPECT_EQ(a.plan().stop.k, b.plan().stop.k);
  EXPECT_EQ(a.plan().expected_error, b.plan().expected_error);
  EXPECT_EQ(a.plan().bytes_per_step, b.plan().bytes_per_step);
  EXPECT_EQ(a.bytes(), b.bytes());
}

TEST(HeadFile, DecodingGoesOnAsIfNothingHadHappened) {
  const TemporaryDirectory directory;
  const auto path = directory / "head.ks", again = directory / "again.ks";
  std::vector<DecodeParams> all;
  for (const Retriever r : {Retriever::everything, Retriever::none, Retriever::flat,
                            Retriever::sketch, Retriever::projection})
    all.push_back(given(r));
  all.push_back(given(test::kComplete));
  all.push_back(test::with(given(Retriever::flat), [](DecodeParams& p) {
    p.int8_values = true;
    p.pinned = 24;
    p.window = SIZE_MAX;  // nothing is indexed
  }));
  all.push_back(test::with(given(Retriever::flat), [](DecodeParams& p) {
    p.int8_values = true;
    p.pinned = 24;
    p.rope.frequencies = rope_frequencies(p.rope, 64);
    test::give(p, Retriever::flat, {.rule = Rule::dipr, .k = 60, .limit = 4, .least = 5});
  }));
  all.push_back(test::with(given(Retriever::sketch), [](DecodeParams& p) {
    p.rope.rotary_dim = 32;
    p.rope.rotary_first = 16;
  }));
  for (const DecodeParams& params : all) {
    HeadCache saved = sample_of_layer_2().prefill(2500, params);
    (void)sample_of_layer_2().decode(saved, 20, 20);  // so that there are queries to remember
    saved.save(path);
    HeadCache loaded = HeadCache::load(path), mapped = HeadCache::map(path);
    expect_same(saved, loaded);
    expect_same(saved, mapped);
    loaded.save(again);
    EXPECT_EQ(test::read_bytes(again), test::read_bytes(path));
    DecodeScratch a, b, c;
    saved = HeadCache::load(path);          // without the hits of its last step, as the others
    for (std::size_t s = 0; s < 70; ++s) {  // past a refresh
      const auto expected = elements(sample_of_layer_2().step(saved, a));
      ASSERT_EQ(elements(sample_of_layer_2().step(loaded, b)), expected) << "step " << s;
      ASSERT_EQ(elements(sample_of_layer_2().step(mapped, c)), expected) << "step " << s;
    }
    expect_same(saved, mapped);
  }
}

TEST(HeadFile, TheOldFileStaysWhereItCannotBeWritten) {
  const TemporaryDirectory directory;
  const HeadCache cache = sample_of_layer_2().prefill(300, given(Retriever::everything));
  expect_error(ErrorCode::io, {"missing"}, [&] { cache.save(directory / "missing/head.ks"); });
  expect_error(ErrorCode::io, {"nothing.ks"},
               [&] { (void)HeadCache::load(directory / "nothing.ks"); });
  expect_error(ErrorCode::invalid_argument, {"empty"},
               [&] { HeadCache().save(directory / "empty.ks"); });
  const HeadCache custom =
      sample_of_layer_2().prefill(300, test::with(given(Retriever::custom), [](DecodeParams& p) {
                                    p.index = [](const AnyMatrix&) { return SearchKeys(); };
                                  }));
  expect_error(ErrorCode::unsupported, {"no file"}, [&] { custom.save(directory / "custom.ks"); });
  EXPECT_TRUE(directory.names().empty());
}

/// A head's file whose sections can be changed; checksums are made anew.
class Spoiled {
 public:
  Spoiled(const std::filesystem::path& path, const std::vector<std::string>& names) : path_(path) {
    const auto reader = ContainerReader::load(path);
    for (const std::string& name : names) {
      if (!reader.has(name)) continue;
      const auto bytes = reader.array<std::byte>(name).span();
      sections_[name].assign(bytes.begin(), bytes.end());
    }
  }

  void change(const std::string& section, const auto& change) {
    auto sections = sections_;
    change(sections[section]);
    ContainerWriter writer("head");
    for (const auto& [name, bytes] : sections) writer.add(name, bytes);
    writer.save(path_);
  }
  void expect_corrupt(const std::string& section, const std::string& fault, const auto& fault_of) {
    change(section, fault_of);
    expect_error(ErrorCode::corrupt, {path_.string(), fault},
                 [&] { (void)HeadCache::load(path_); });
  }
  void expect_corrupt_number(const std::string& section, std::size_t i, double x,
                             const std::string& fault) {
    expect_corrupt(section, fault, [&](std::vector<std::byte>& bytes) {
      ASSERT_LT(i * 8, bytes.size());
      std::memcpy(bytes.data() + i * 8, &x, 8);
    });
  }

 private:
  std::filesystem::path path_;
  std::map<std::string, std::vector<std::byte>> sections_;
};

const std::vector<std::string> kSections = {
    "head",        "head.params",     "head.plan",      "pinned",        "sink.keys",
    "sink.values", "indexed.values",  "indexed.scales", "recent.keys",   "recent.values",
    "asked",       "asked.at",        "tail",           "tail.keys",     "tail.values",
    "tail.bias",   "tail.correction", "tail.limits",    "keys.shape",    "keys",
    "codes",       "codes.scales",    "codes.mean",     "codes.channel", "codes.layout"};

TEST(HeadFile, OptionsAreFieldsByName) {
  const TemporaryDirectory directory;
  const auto path = directory / "head.ks";
  sample_of_layer_2()
      .prefill(2500, test::with(given(Retriever::flat),
                                [](DecodeParams& p) {
                                  p.null_logits = {1, 2, 3};
                                }))
      .save(path);
  const DecodeParams params = HeadCache::load(path).params();
  Spoiled file(path, kSections);
  const auto replaced = [&](const std::string& line, const std::string& by,
                            const std::string& fault) {
    file.expect_corrupt("head.params", fault, [&](std::vector<std::byte>& bytes) {
      std::string text(reinterpret_cast<const char*>(bytes.data()), bytes.size());
      const std::size_t at = text.find(line);
      ASSERT_NE(at, std::string::npos) << line << " is not in\n" << text;
      text.replace(at, line.size(), by);
      const auto changed = std::as_bytes(std::span<const char>(text));
      bytes.assign(changed.begin(), changed.end());
    });
  };
  for (const DecodeOption& option : decode_options()) {
    const std::string name(option.name);
    const std::string line = fmt::format("\n{} {}\n", name, option.text(params));
    replaced(line, "\n", "option " + name + " is missing");
  }
  replaced("\nsink 128\n", "\nsinks 128\n", "there is no option sinks");
  replaced("\nsink 128\n", "\nsink 128\nsink 128\n", "option sink is there twice");
  replaced("\nsink 128\n", "\nsink\n", "option 'sink' has no value");
  replaced("\nsink 128\n", "\nsink 1.5\n", "sink is '1.5', must be a whole number");
  replaced("\nshift true\n", "\nshift 2\n", "shift is '2', must be true or false");
  replaced("\nrule top-k\n", "\nrule best\n", "rule is 'best', must be top-k, dipr or mass");
  replaced("\nretriever flat\n", "\nretriever -\n", "only a given plan has one");
  replaced("\nk 40\n", "\nk -\n", "k is '-', must be a whole number");
  replaced("\nmax_error 0.05\n", "\nmax_error 1.5\n", "max_error is 1.5, must be in (0, 1)");
  replaced("\nsoftcap 0\n", "\nsoftcap -1\n", "softcap is -1");
  replaced("\nsoftcap 0\n", "\nsoftcap nan\n", "softcap is nan");
  replaced("\nrotary_dim 64\n", "\nrotary_dim 1000\n", "rotary_dim is 1000");
  replaced("\nnull_logits 1 2 3\n", "\nnull_logits 1 2 inf\n",
           "null_logits[2] is inf, must be finite");
  replaced("\nnull_logits 1 2 3\n", "\nnull_logits 1 x\n", "null_logits is '1 x'");
  replaced("\nnull_logits 1 2 3\n", "\nnull_logits 1\n", "one null logit for each query head");
  replaced("version 3\n", "version 2\n", "options are of version 2");
  replaced("version 3\n", "", "must begin with a version");
  replaced("\nk 40\n", "\nk 0\n", "k is 0, which searches for no keys");
  const std::string newer = to_text(sample_of_layer_2().params).replace(8, 1, "4");
  expect_error(ErrorCode::unsupported, {"version 4, known is 3"},
               [&] { (void)decode_params_from(newer); });
}

TEST(HeadFile, KeepsWhatItsPlanNeverRead) {
  const TemporaryDirectory directory;
  const auto path = directory / "head.ks";
  sample_of_layer_2().prefill(2500, given(Retriever::flat)).save(path);
  Spoiled file(path, kSections);
  file.change("head.params", [](std::vector<std::byte>& bytes) {
    const std::string text(reinterpret_cast<const char*>(bytes.data()), bytes.size());
    const std::size_t at = text.find("max_error 0.05\n");
    ASSERT_NE(at, std::string::npos);
    bytes[at + std::string("max_error 0.0").size()] = std::byte{'2'};
  });
  const HeadCache head = HeadCache::load(path);
  EXPECT_EQ(head.params().max_error, 0.02);
  EXPECT_EQ(head.plan().stop.k, 40U);
  expect_error(ErrorCode::invalid_argument, {"max_error is 0.02, but retriever is flat"},
               [&] { (void)sample_of_layer_2().prefill(2500, head.params()); });
}

TEST(HeadFile, ContradictionsAreCorrupt) {
  const TemporaryDirectory directory;
  const auto path = directory / "head.ks";
  HeadCache cache =
      sample_of_layer_2().prefill(2500, test::with(given(Retriever::flat), [](DecodeParams& p) {
                                    p.int8_values = true;
                                    p.pinned = 24;
                                    p.null_logits = {1, 2, 3};
                                  }));
  (void)sample_of_layer_2().decode(cache, 20, 20);
  cache.save(path);
  Spoiled file(path, kSections);
  const auto number = [&](const std::string& section, std::size_t i, double x,
                          const std::string& fault) {
    file.expect_corrupt_number(section, i, x, fault);
  };
  number("head", 0, 0, "no size");
  number("head", 0, 65, "too large");
  number("head", 1, 32, "sink.keys has 19456 bytes");
  number("head", 3, 3, "too large");
  number("head", 5, 151, "must have");
  number("head", 6, 10, "must have");
  number("head", 7, 2.5, "not a count");
  number("head.plan", 0, 5, "too large");  // what only a given plan can name
  number("head.plan", 0, 1, "indexed.keys");
  for (const double wrong : {5.0, -0.5, 1.5}) number("head.plan", 1, wrong, "out of range");
  for (const std::size_t i : {3U, 4U, 5U, 6U, 7U}) number("head.plan", i, -1, "out of range");
  for (std::size_t i = 1; i < 8; ++i) number("head.plan", i, INFINITY, "");
  number("head.plan", 8, 3, "too large");
  number("head.plan", 10, NAN, "not finite");
  file.expect_corrupt("head.plan", "limit is -1", [](std::vector<std::byte>& bytes) {
    const double dipr = 1, limit = -1;
    std::memcpy(bytes.data() + 8 * 8, &dipr, 8);
    std::memcpy(bytes.data() + 10 * 8, &limit, 8);
  });
  number("head.plan", 8, 2, "limit is 0");  // a share of the mass, but none
  number("head.plan", 2, 10, "not the plan's");
  number("head.plan", 9, 5000, "more keys than there are");
  number("head.plan", 9, 0, "contradict");
  number("pinned", 0, 1, "is one of the sink");
  number("pinned", 1, 0, "increasing");
  number("pinned", 23, 1e6, "not there");
  number("asked.at", 19, 1e6, "not there");
  number("tail", 0, 60, "must have");
  number("tail", 1, 0, "scale is wrong");
  file.expect_corrupt("tail.limits", "must have 9",
                      [](std::vector<std::byte>& bytes) { bytes.resize(20); });
  file.expect_corrupt("asked", "not finite", [](std::vector<std::byte>& bytes) {
    const float nan = std::nanf("");
    std::memcpy(bytes.data(), &nan, 4);
  });
  file.expect_corrupt("indexed.scales", "not positive",
                      [](std::vector<std::byte>& bytes) { std::memset(bytes.data(), 0, 4); });
  file.expect_corrupt("recent.keys", "keys row 0", [](std::vector<std::byte>& bytes) {
    std::memset(bytes.data(), 0xff, 2);  // NaN in f16
  });
  file.expect_corrupt("codes", "", [](std::vector<std::byte>& bytes) { bytes.resize(64); });
}

TEST(HeadFile, OfAnotherKindIsRefused) {
  const TemporaryDirectory directory;
  const auto path = directory / "head.ks";
  test::flat_index(sample_of_layer_2().keys.view().slice(0, 10)).save(path);
  expect_error(ErrorCode::corrupt, {"flat", "not \"head\""}, [&] { (void)HeadCache::map(path); });
  sample_of_layer_2().prefill(2500, given(Retriever::flat)).save(path);
  expect_error(ErrorCode::unsupported, {"head", "no index"}, [&] { (void)Index::open(path); });
}

}  // namespace
}  // namespace keyseek
