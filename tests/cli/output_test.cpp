// Where output cannot go: an exit code that says so, and never a crash or a lost input.
#include <numeric>

#include "cli/run_tool.hpp"
#include "cli/small_problem.hpp"

namespace keyseek::test {
namespace {

class Output : public Tool {
 protected:
  void SetUp() override {
    io::write_benchmark(path("b.hdf5"), small_benchmark());
    const auto m = normal_matrix(30, 4, 1);
    io::write_vectors(path("v.fbin"), AnyMatrixView::of(m.view()));
    io::write_vectors(path("v.npy"), AnyMatrixView::of(m.view()));
    io::write_ids(path("t.npy"), Matrix<Id>(30, 2));
    ASSERT_EQ(run("build --keys v.fbin --index flat --out i.ks").code, 0);
  }
  /// Exit code of a shell line in which KS is the tool; 128 + signal where one ended it.
  [[nodiscard]] int shell(const std::string& line) const {
    const std::string all = "cd '" + folder_.path().string() + "' && KS='" KEYSEEK_CLI "'; " + line;
    const int status = std::system(("bash -c \"" + all + "\"").c_str());
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  }
  const std::vector<std::string> commands_ = {
      "--help",
      "--version",
      "build --help",
      "info --isa",
      "info v.fbin",
      "info b.hdf5",
      "convert v.fbin w.npy",
      "knn --keys v.fbin --queries v.fbin --k 2 --out n.ibin",
      "build --data b.hdf5 --out x.ks",
      "search --index i.ks --queries v.fbin --k 2",
      "sweep --data b.hdf5 --index flat --k 2 --repeats 1 --out R.jsonl",
      "verify i.ks"};
};

TEST_F(Output, StdoutThatIsClosedOrFull) {
  for (const std::string& command : commands_) {
    for (const char* to : {">&-", ">/dev/full"}) {
      EXPECT_EQ(shell("\\$KS " + command + " " + to + " 2>err"), 4) << command << to;
      EXPECT_THAT(read_text(path("err")), testing::HasSubstr("cannot write to stdout")) << command;
    }
    EXPECT_EQ(shell("\\$KS " + command + " >out 2>&1"), 0) << command << read_text(path("out"));
  }
}

TEST_F(Output, StderrThatIsClosedOrFull) {
  for (const char* to : {"2>&-", "2>/dev/full"}) {
    EXPECT_EQ(shell(std::string("\\$KS info none.fbin ") + to), 4) << to;
    EXPECT_EQ(shell(std::string("\\$KS info --wrong ") + to), 2) << to;
    EXPECT_EQ(shell(std::string("\\$KS info v.fbin >out ") + to), 0) << to;
    // Progress is asked for, and cannot be shown.
    EXPECT_EQ(shell(std::string("\\$KS build --data b.hdf5 --out y.ks --progress >out ") + to), 4);
    EXPECT_EQ(run("verify y.ks").code, 0) << "what was meant for stderr is in the index";
  }
  EXPECT_EQ(shell("\\$KS info none.fbin >&- 2>&- <&-"), 4);
  EXPECT_EQ(shell("\\$KS build --data b.hdf5 --out z.ks --progress >&- 2>&- <&-"), 4);
  EXPECT_EQ(run("verify z.ks").code, 0);
}

TEST_F(Output, APipeThatNobodyReads) {
  for (const std::string& command : commands_) {
    const int code = shell("\\$KS " + command + " 2>err | true; exit \\${PIPESTATUS[0]}");
    EXPECT_TRUE(code == 0 || code == 4) << command << ": " << code;  // it may be faster than `true`
    EXPECT_EQ(shell("(sleep 0.2; \\$KS " + command + "; echo \\$? >code) 2>err | exec true"), 0);
    EXPECT_EQ(read_text(path("code")), "4\n") << command;
  }
}

TEST_F(Output, InputsAreNoOutputs) {
  const std::string vectors = read_text(path("v.npy")), ids = read_text(path("t.npy"));
  const std::string benchmark = read_text(path("b.hdf5")), index = read_text(path("i.ks"));
  std::filesystem::create_symlink(path("v.npy"), path("link.npy"));
  std::filesystem::create_hard_link(path("v.npy"), path("hard.npy"));
  for (const char* same : {"v.npy", "./v.npy", "link.npy", "hard.npy"}) {
    const std::string out = same;
    expect_failure("convert v.npy " + out, 2, {"cannot write", "the input"});
    expect_failure("knn --keys v.npy --queries v.fbin --k 2 --out " + out, 2, {"--keys"});
    expect_failure("knn --keys v.fbin --queries v.npy --k 2 --out " + out, 2, {"--queries"});
    expect_failure("build --index flat --keys v.npy --out " + out, 2, {"--keys"});
    expect_failure("build --data b.hdf5 --train v.npy --out " + out, 2, {"--train"});
    expect_failure("search --index i.ks --queries v.npy --k 2 --out " + out, 2, {"--queries"});
    expect_failure("sweep --data b.hdf5 --train v.npy --out " + out, 2, {"--train"});
  }
  expect_failure("convert b.hdf5 b.hdf5", 2, {"the input"});
  expect_failure("build --data b.hdf5 --out b.hdf5", 2, {"--data"});
  expect_failure("sweep --data b.hdf5 --out b.hdf5", 2, {"--data"});
  expect_failure("search --index i.ks --queries v.fbin --truth t.npy --k 2 --out t.npy", 2,
                 {"--truth"});
  expect_failure("knn --keys v.fbin --queries v.fbin --k 2 --out n.npy --scores n.npy", 2,
                 {"--out"});
  EXPECT_EQ(read_text(path("v.npy")), vectors);
  EXPECT_EQ(read_text(path("t.npy")), ids);
  EXPECT_EQ(read_text(path("b.hdf5")), benchmark);
  EXPECT_EQ(read_text(path("i.ks")), index);
}

TEST_F(Output, DevicesAndFoldersAreRefusedBeforeWork) {
  for (const std::string out : {"/dev/full", "/dev/null", "."}) {
    expect_failure("build --data none.hdf5 --out " + out, 4, {"cannot write " + out});
    expect_failure("sweep --data none.hdf5 --out " + out, 4, {"cannot write " + out});
  }
}

TEST_F(Output, FilesOfOthersAreNoResults) {
  const std::string sweep = "sweep --data b.hdf5 --index flat --k 2 --repeats 1 --out R.jsonl";
  for (const std::string text :
       {R"({"config": true})", "{\"config\": true}\n", "{", "{\"a\": [1, 2",
        R"({"dataset": "mine")", "{}\n{", "[1]\n", "notes\n", R"({"dataset":"x","k":1})"}) {
    std::ofstream(path("R.jsonl")) << text;
    expect_failure(sweep, 3, {"R.jsonl", "no file of results"});
    EXPECT_EQ(read_text(path("R.jsonl")), text);
  }
  std::filesystem::remove(path("R.jsonl"));
  (void)report(sweep);
  const std::string rows = read_text(path("R.jsonl"));
  // The end of a row that a killed run was writing goes; a row without its line end is a row.
  std::ofstream(path("R.jsonl")) << rows << rows.substr(0, 40);
  EXPECT_EQ(report(sweep).at("measured"), 0);
  EXPECT_EQ(read_text(path("R.jsonl")), rows);
  std::ofstream(path("R.jsonl")) << rows.substr(0, rows.size() - 1);
  EXPECT_EQ(report(sweep).at("measured"), 0);
  EXPECT_EQ(read_text(path("R.jsonl")), rows);
}

TEST_F(Output, CraftedHdf5IsAnError) {
  for (const char* name : {"hdf5_benchmark_crash.hdf5", "hdf5_capture_crash.attn.h5"}) {
    const auto file = (std::filesystem::path(KEYSEEK_TEST_DATA) / "hdf5" / name).string();
    expect_failure("info " + file, 3, {name});
  }
  EXPECT_EQ(report("info b.hdf5 --trusted-hdf5"), report("info b.hdf5"));
}

TEST_F(Output, VectorsOfOtherPrograms) {
  std::ofstream(path("x.bin")) << "12345678";
  std::ofstream(path("x.fvecs")) << "12345678";
  expect_failure("info x.bin", 2, {"DiskANN", ".fbin"});
  expect_failure("info x.fvecs", 3, {"x.fvecs", "8 bytes"});
}

}  // namespace
}  // namespace keyseek::test
