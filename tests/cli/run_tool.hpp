/// Runs the command line tool as a user would.
#pragma once

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>
#include <string>
#include <vector>

#include "file/temporary_directory.hpp"
#include "keyseek/io.hpp"

namespace keyseek::test {

struct ToolResult {
  int code = -1;  ///< exit code; 128 + signal where one ended the tool
  std::string out, err;

  [[nodiscard]] nlohmann::json json() const { return nlohmann::json::parse(out); }
};

inline std::string read_text(const std::filesystem::path& path) {
  std::ifstream in(path, std::ios::binary);
  std::ostringstream text;
  text << in.rdbuf();
  return text.str();
}

/// A folder to work in, and the tool called inside it through the shell.
class Tool : public testing::Test {
 protected:
  /// `arguments` as they would be typed behind "keyseek ".
  ToolResult run(const std::string& arguments) const {
    const auto out = folder_ / ".out", err = folder_ / ".err";
    const std::string line = "cd '" + folder_.path().string() + "' && exec '" KEYSEEK_CLI "' " +
                             arguments + " >'" + out.string() + "' 2>'" + err.string() + "'";
    const int status = std::system(line.c_str());
    const int code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
    return {code, read_text(out), read_text(err)};
  }

  /// Runs what must succeed with a JSON report.
  nlohmann::json report(const std::string& arguments) const {
    const ToolResult result = run(arguments + " --json");
    EXPECT_EQ(result.code, 0) << arguments << "\n" << result.err;
    return result.code == 0 ? result.json() : nlohmann::json();
  }

  /// Runs what must fail with `code` and one line that contains every one of `parts`.
  void expect_failure(const std::string& arguments, int code,
                      const std::vector<std::string>& parts) const {
    const ToolResult result = run(arguments);
    EXPECT_EQ(result.code, code) << arguments << "\n" << result.out << result.err;
    EXPECT_EQ(result.out, "") << arguments;
    EXPECT_THAT(result.err, testing::StartsWith("keyseek: error: ")) << arguments;
    EXPECT_EQ(std::count(result.err.begin(), result.err.end(), '\n'), 1) << result.err;
    for (const auto& part : parts) EXPECT_THAT(result.err, testing::HasSubstr(part)) << arguments;
  }

  [[nodiscard]] std::filesystem::path path(const std::string& name) const { return folder_ / name; }
  [[nodiscard]] bool exists(const std::string& name) const {
    return std::filesystem::exists(path(name));
  }

  /// So that "datasets/sample/..." of the examples is there.
  void link_sample() const {
    const auto datasets = std::filesystem::path(KEYSEEK_SAMPLE).parent_path().parent_path();
    std::filesystem::create_directory_symlink(datasets, path("datasets"));
  }

  TemporaryDirectory folder_;
};

}  // namespace keyseek::test
