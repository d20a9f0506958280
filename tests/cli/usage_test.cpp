// What every command has in common: help, usage errors, exit codes, output.
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>

#include <chrono>
#include <thread>

#include "cli/run_tool.hpp"
#include "cli/small_problem.hpp"
#include "keyseek/version.hpp"

namespace keyseek::test {
namespace {

using testing::HasSubstr;
using Usage = Tool;

const std::vector<std::string> kCommands = {"info",   "convert", "knn",    "build",
                                            "search", "sweep",   "decode", "verify"};

TEST_F(Usage, HelpNamesEveryCommand) {
  const ToolResult help = run("--help");
  EXPECT_EQ(help.code, 0);
  for (const auto& command : kCommands) EXPECT_THAT(help.out, HasSubstr("\n  " + command));
}

TEST_F(Usage, EveryCommandHasHelpWithAnExample) {
  for (const auto& command : kCommands) {
    const ToolResult help = run(command + " --help");
    EXPECT_EQ(help.code, 0) << command;
    EXPECT_THAT(help.out, HasSubstr("Example:\n  keyseek " + command)) << command;
    for (const char* option : {"--json", "--quiet", "--progress"}) {
      EXPECT_THAT(help.out, HasSubstr(option)) << command;
    }
  }
}

TEST_F(Usage, Version) {
  const ToolResult version = run("--version");
  EXPECT_EQ(version.code, 0);
  EXPECT_EQ(version.out, "keyseek " + std::string(kVersion) + "\n");
}

TEST_F(Usage, WrongUsageIsCode2) {
  expect_failure("", 2, {"no command is given"});
  expect_failure("dance", 2, {"dance"});
  expect_failure("info --loud", 2, {"--loud"});
  expect_failure("info", 2, {"either a file or --isa"});
  expect_failure("knn --keys a.fbin", 2, {"--queries is required"});
  expect_failure("verify", 2, {"file is required"});
  expect_failure("decode", 2, {"--data is required"});
  expect_failure("knn --keys a.fbin --queries b.fbin --out c.ibin --k -1", 2,
                 {"--k", "'-1' is no whole number"});
  expect_failure("knn --keys a.fbin --queries b.fbin --out c.ibin --k 1.5", 2, {"'1.5'"});
  expect_failure("knn --keys a.fbin --queries b.fbin --out c.ibin --k 99999999999999999999", 2,
                 {"--k"});
  expect_failure("knn --keys a.fbin --queries b.fbin --out c.ibin --method f64", 2,
                 {"--method", "'f64' is none of f32|int8"});
  expect_failure("knn --keys a.fbin --queries b.fbin --out c.ibin --threads 5000", 4, {"a.fbin"});
}

TEST_F(Usage, NumbersAreDecimal) {
  io::write_vectors(path("v.fbin"), AnyMatrixView::of(normal_matrix(20, 4, 1).view()));
  EXPECT_EQ(report("knn --keys v.fbin --queries v.fbin --out t.ibin --k 010").at("k"), 10);
}

TEST_F(Usage, ThreadsAreChecked) {
  io::write_vectors(path("v.fbin"), AnyMatrixView::of(normal_matrix(4, 4, 1).view()));
  expect_failure("knn --keys v.fbin --queries v.fbin --out t.ibin --k 2 --threads 5000", 2,
                 {"threads is 5000"});
}

TEST_F(Usage, MissingFilesAreCode4) {
  expect_failure("info none.ks", 4, {"none.ks"});
  expect_failure("info none.fbin", 4, {"none.fbin"});
  expect_failure("info none.h5", 4, {"none.h5"});
  expect_failure("verify none.ks", 4, {"none.ks"});
  expect_failure("search --index none.ks --queries q.fbin", 4, {"none.ks"});
  expect_failure("sweep --data none.h5 --out r.jsonl", 4, {"none.h5"});
  EXPECT_FALSE(exists("r.jsonl"));
}

TEST_F(Usage, UnwritableOutputsAreFoundOutFirst) {
  // The inputs do not exist either: nothing is read before the output is known to be possible.
  const std::string folder = path("").parent_path().string();
  expect_failure("build --keys a.fbin --train b.fbin --out none/x.ks", 4, {"none/x.ks"});
  expect_failure("knn --keys a.fbin --queries b.fbin --out none/x.ibin", 4, {"none/x.ibin"});
  expect_failure("sweep --data a.h5 --out none/r.jsonl", 4, {"none/r.jsonl"});
  expect_failure("build --keys a.fbin --train b.fbin --out '" + folder + "'", 4, {"a directory"});
}

TEST_F(Usage, QuietPrintsNothing) {
  io::write_vectors(path("v.fbin"), AnyMatrixView::of(normal_matrix(20, 4, 1).view()));
  const ToolResult quiet = run("knn --keys v.fbin --queries v.fbin --out t.ibin --k 3 --quiet");
  EXPECT_EQ(quiet.code, 0);
  EXPECT_EQ(quiet.out + quiet.err, "");
  EXPECT_TRUE(exists("t.ibin"));
}

TEST_F(Usage, ProgressGoesToStderr) {
  io::write_vectors(path("v.fbin"), AnyMatrixView::of(normal_matrix(20, 4, 1).view()));
  const std::string knn = "knn --keys v.fbin --queries v.fbin --out t.ibin --k 3";
  EXPECT_EQ(run(knn).err, "");  // no terminal
  const ToolResult shown = run(knn + " --progress");
  EXPECT_THAT(shown.err, HasSubstr("20/20"));
  EXPECT_EQ(shown.out, run(knn).out);
}

TEST_F(Usage, FullDeviceIsCode4) {
  if (!std::filesystem::exists("/dev/full")) GTEST_SKIP();
  const std::string line = std::string("'" KEYSEEK_CLI "' info --isa >/dev/full 2>/dev/null");
  EXPECT_EQ(WEXITSTATUS(std::system(line.c_str())), 4);
}

TEST_F(Usage, UnknownIsaIsCode2) {
  ::setenv("KEYSEEK_ISA", "mmx", 1);
  expect_failure("info --isa", 2, {"mmx"});
  ::setenv("KEYSEEK_ISA", "baseline", 1);
  EXPECT_EQ(report("info --isa").at("isa"), "baseline");
  ::unsetenv("KEYSEEK_ISA");
}

TEST_F(Usage, InterruptIsCode5AndLeavesNothing) {
  io::write_vectors(path("v.fbin"), AnyMatrixView::of(normal_matrix(60000, 64, 1).view()));
  const std::string keys = path("v.fbin").string(), err = path("err").string();
  std::vector<std::string> words = {
      KEYSEEK_CLI, "knn", "--keys", keys,  "--queries", keys, "--out", path("t.ibin").string(),
      "--threads", "1",   "--k",    "100", "--progress"};
  std::vector<char*> arguments;
  for (auto& word : words) arguments.push_back(word.data());
  arguments.push_back(nullptr);
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_addopen(&actions, STDERR_FILENO, err.c_str(),
                                   O_WRONLY | O_CREAT | O_TRUNC, 0600);
  pid_t child = 0;
  ASSERT_EQ(::posix_spawn(&child, KEYSEEK_CLI, &actions, nullptr, arguments.data(), environ), 0);
  posix_spawn_file_actions_destroy(&actions);
  for (int wait = 0; wait < 3000 && read_text(err).empty(); ++wait) {  // until it is at work
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  ::kill(child, SIGINT);
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  ASSERT_TRUE(WIFEXITED(status));
  EXPECT_EQ(WEXITSTATUS(status), 5);
  EXPECT_THAT(read_text(err), HasSubstr("keyseek: error: cancelled"));
  EXPECT_THAT(folder_.names(), testing::UnorderedElementsAre("v.fbin", "err"));
}

}  // namespace
}  // namespace keyseek::test
