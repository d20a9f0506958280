// Files of rows: what is read, refused, mended and locked.
#include "sweep/result_file.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <sstream>

#include "file/temporary_directory.hpp"
#include "keyseek/error.hpp"

namespace keyseek::sweep {
namespace {

class ResultFileTest : public testing::Test {
 protected:
  void write(const std::string& text) const { std::ofstream(path_) << text; }
  std::string read() const {
    std::ostringstream text;
    text << std::ifstream(path_).rdbuf();
    return text.str();
  }
  /// The sentence of the refusal.
  std::string refusal(const RowKind& kind = {}) const {
    try {
      const ResultFile file(path_, kind);
    } catch (const Error& error) {
      return error.what();
    }
    return "";
  }

  test::TemporaryDirectory folder_;
  std::string path_ = (folder_ / "r.jsonl").string();
  RowKind kind_ = {.name = "row of a test", .fields = {"a", "b"}};
};

TEST_F(ResultFileTest, RowsAreAppendedAndFound) {
  {
    ResultFile file(path_);
    file.append({{"a", 1}, {"b", {{"c", 0.5}}}});
    EXPECT_TRUE(file.has({{"b", {{"c", 0.5}}}}));
    EXPECT_FALSE(file.has({{"a", 1}, {"b", 2}}));
    EXPECT_FALSE(file.has({{"c", nullptr}}));
  }
  EXPECT_EQ(read(), "{\"a\":1,\"b\":{\"c\":0.5}}\n");
  EXPECT_EQ(ResultFile(path_).rows().size(), 1U);
}

TEST_F(ResultFileTest, AFileWithoutRowsIsRemovedAgain) {
  { const ResultFile file(path_); }
  EXPECT_FALSE(std::filesystem::exists(path_));
  write("");
  { const ResultFile file(path_); }
  EXPECT_TRUE(std::filesystem::exists(path_));
}

TEST_F(ResultFileTest, ATornRowIsCutOffAndAWholeOneKept) {
  // Rows of other programs may have spaces.
  for (const std::string torn : {R"({"a": "x", "b)", "{"}) {
    write("{\"a\": 1}\n" + torn);
    EXPECT_EQ(ResultFile(path_).rows().size(), 1U);
    EXPECT_EQ(read(), "{\"a\": 1}\n");
  }
  write("{\"a\": 1}");
  EXPECT_EQ(ResultFile(path_).rows().size(), 1U);
  EXPECT_EQ(read(), "{\"a\": 1}\n");
}

TEST_F(ResultFileTest, ForeignLinesAreRefusedByNumber) {
  for (const std::string text : {"notes\n", "half a note", "[1]\n", "{}\n7\n", "{}\nnotes"}) {
    write(text);
    const std::string line = text.front() == '{' ? "line 2" : "line 1";
    EXPECT_EQ(refusal(), path_ + ": " + line + " is no JSON object: this is no file of results");
    EXPECT_EQ(read(), text);
  }
  for (const std::string text : {"{\"a\":\"x\"}\n", "{\"a\": \"x\"", "{\"a"}) {
    write(text);
    EXPECT_EQ(refusal(kind_), path_ + ": line 1 is no row of a test: this is no file of results");
    EXPECT_EQ(read(), text);
  }
}

TEST_F(ResultFileTest, OneRunAtATime) {
  ResultFile file(path_);
  EXPECT_EQ(refusal(), path_ + " is in use by another run");
  file.close();
  EXPECT_EQ(refusal(), "");
  EXPECT_THROW(file.append({{"a", 1}}), Error);
  path_ = folder_.path().string();
  EXPECT_EQ(refusal(), "cannot open " + path_ + ": Is a directory");
}

}  // namespace
}  // namespace keyseek::sweep
