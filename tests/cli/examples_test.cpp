// What the help texts and docs/cli.md tell users to type, typed on the sample.
#include <fstream>
#include <map>

#include "cli/run_tool.hpp"

namespace keyseek::test {
namespace {

constexpr std::string_view kName = "keyseek ";

class Examples : public Tool {
 protected:
  void SetUp() override { link_sample(); }

  /// `line` begins with "keyseek "; it may hold several words, never a pipe.
  void expect_success(const std::string& line) const {
    const ToolResult result = run(line.substr(kName.size()));
    EXPECT_EQ(result.code, 0) << line << "\n" << result.err;
    EXPECT_NE(result.out, "") << line;
  }
};

TEST_F(Examples, OfTheHelpTexts) {
  // Files that one example needs and another command's example does not make.
  const std::string head = "datasets/sample/smollm2-8k-pydoc.attn.h5:L15/K0";
  (void)report("convert " + head + " keys.fbin --part keys");
  (void)report("convert " + head + " queries.fbin --part queries");
  for (const char* command : {"info", "convert", "knn", "build", "search", "verify", "sweep"}) {
    std::istringstream help(run(std::string(command) + " --help").out);
    std::size_t examples = 0;
    for (std::string line; std::getline(help, line);) {
      if (!line.starts_with("  " + std::string(kName))) continue;
      expect_success(line.substr(2));
      ++examples;
    }
    EXPECT_GE(examples, 1U) << command;
  }
}

TEST_F(Examples, OfTheDocumentation) {
  const auto root = std::filesystem::path(KEYSEEK_SAMPLE).parent_path().parent_path().parent_path();
  std::ifstream page(root / "docs/cli.md");
  ASSERT_TRUE(page.is_open());
  bool inside = false;
  std::size_t examples = 0;
  std::string command;
  for (std::string line; std::getline(page, line);) {
    if (line.starts_with("```")) {
      inside = line == "```sh";
      continue;
    }
    if (!inside) continue;
    command += line;
    if (command.ends_with('\\')) {
      command.back() = ' ';
      continue;
    }
    if (command.starts_with(kName)) {
      expect_success(command);
      ++examples;
    }
    command.clear();
  }
  EXPECT_GE(examples, 10U);
}

}  // namespace
}  // namespace keyseek::test
