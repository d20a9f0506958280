// sweep: rows, resuming, and what it refuses.
#include <fcntl.h>
#include <sched.h>
#include <sys/file.h>

#include <algorithm>
#include <set>

#include "cli/run_tool.hpp"
#include "cli/small_problem.hpp"
#include "io/small_capture.hpp"

namespace keyseek::test {
namespace {

using nlohmann::json;

class Sweep : public Tool {
 protected:
  void SetUp() override { io::write_benchmark(path("b.hdf5"), small_benchmark()); }

  std::vector<json> rows() const {
    std::vector<json> found;
    std::ifstream file(path("r.jsonl"));
    for (std::string line; std::getline(file, line);) found.push_back(json::parse(line));
    return found;
  }
  static constexpr const char* kSweep =
      "sweep --data b.hdf5 --k 10 --points 3 --repeats 1 --out r.jsonl ";
};

TEST_F(Sweep, RowsHaveEveryField) {
  const auto done = report(kSweep + std::string("--index flat,projection --threads 1"));
  const auto all = rows();
  ASSERT_GE(all.size(), 4U);  // and tuned points
  EXPECT_EQ(done.at("measured"), all.size());
  EXPECT_EQ(done.at("skipped"), 0);
  const std::set<std::string> wanted = {"dataset",
                                        "index",
                                        "params",
                                        "k",
                                        "group",
                                        "recall_at_k",
                                        "scanned_fraction",
                                        "bytes_read",
                                        "us_per_step_p50",
                                        "us_per_step_p95",
                                        "us_per_query",
                                        "build_s",
                                        "index_bytes",
                                        "unreachable",
                                        "isa",
                                        "threads",
                                        "cache",
                                        "version",
                                        "warm",
                                        "keys"};
  std::set<std::string> tuned;
  for (const auto& row : all) {
    for (const auto& field : wanted) EXPECT_TRUE(row.contains(field)) << field;
    EXPECT_EQ(row.at("dataset"), "b.hdf5");
    EXPECT_EQ(row.at("group"), 2);
    EXPECT_EQ(row.at("threads"), 1);
    EXPECT_EQ(row.at("cache"), "hot");
    EXPECT_EQ(row.at("unreachable"), 0);
    EXPECT_GT(row.at("us_per_step_p50"), 0);
    EXPECT_GE(row.at("us_per_step_p95"), row.at("us_per_step_p50"));
    EXPECT_GT(row.at("recall_at_k"), 0.2);
    for (const auto& target : row.at("tuned_for")) tuned.insert(target.dump());
  }
  EXPECT_EQ(tuned.size(), 5U);
  EXPECT_EQ(all.front().at("index"), "flat");
  EXPECT_EQ(all.front().at("scanned_fraction"), 1.0);
  EXPECT_EQ(all.back().at("index"), "projection");
  EXPECT_TRUE(all.back().at("params").contains("lists"));
}

TEST_F(Sweep, TheGridGoesFromLittleToAlmostEverything) {
  (void)report("sweep --data b.hdf5 --k 10 --repeats 1 --index projection --out r.jsonl --no-warm");
  const auto all = rows();
  const auto [least, most] =
      std::minmax_element(all.begin(), all.end(), [](const json& a, const json& b) {
        return a.at("scanned_fraction") < b.at("scanned_fraction");
      });
  EXPECT_GE(all.size(), 79U);
  EXPECT_LT(least->at("scanned_fraction"), most->at("scanned_fraction").get<double>() / 2);
  EXPECT_LE(least->at("recall_at_k"), most->at("recall_at_k"));
  EXPECT_GT(most->at("recall_at_k"), 0.99);
}

TEST_F(Sweep, ResumesWhereItStopped) {
  (void)report(kSweep);
  const std::string whole = read_text(path("r.jsonl"));
  const auto count = static_cast<std::size_t>(std::count(whole.begin(), whole.end(), '\n'));

  // Nothing is left to do: not even an index is built.
  const auto again = report(kSweep);
  EXPECT_EQ(again.at("measured"), 0);
  EXPECT_EQ(read_text(path("r.jsonl")), whole);

  // Killed while it wrote the last row.
  std::filesystem::resize_file(path("r.jsonl"), whole.size() - 40);
  EXPECT_EQ(report(kSweep).at("measured"), 1);
  const auto all = rows();
  ASSERT_EQ(all.size(), count);
  std::set<std::string> points;
  for (const auto& row : all) points.insert(row.at("index").dump() + row.at("params").dump());
  EXPECT_EQ(points.size(), count);

  // Another k, another cache and another build are other rows.
  EXPECT_GT(report(kSweep + std::string("--index flat --single")).at("measured"), 0);
  EXPECT_GT(report(kSweep + std::string("--index projection --degree 16")).at("measured"), 0);
}

TEST_F(Sweep, SingleQueriesAndNoWarmStart) {
  (void)report(kSweep + std::string("--single --index projection"));
  for (const auto& row : rows()) {
    EXPECT_EQ(row.at("group"), 1);
    EXPECT_EQ(row.at("warm"), false);
  }
  std::filesystem::remove(path("r.jsonl"));
  (void)report(kSweep + std::string("--no-warm --index flat"));
  EXPECT_EQ(rows().front().at("group"), 2);
  EXPECT_EQ(rows().front().at("warm"), false);
}

TEST_F(Sweep, ColdRowsStandBesideHotOnes) {
  (void)report(kSweep + std::string("--index flat --cold --cold-steps 2"));
  const auto all = rows();
  ASSERT_EQ(all.size(), 2U);
  EXPECT_EQ(all[0].at("cache"), "hot");
  EXPECT_EQ(all[1].at("cache"), "cold");
  EXPECT_EQ(all[0].at("recall_at_k"), all[1].at("recall_at_k"));
}

TEST_F(Sweep, Captures) {
  SmallCapture().write(path("c.attn.h5"));
  const std::string sweep =
      "sweep --data c.attn.h5:L2/K0 --sink 2 --window 4 --share 1 --k 3 --points 1 --repeats 1 "
      "--index flat --out r.jsonl ";
  (void)report(sweep);
  EXPECT_EQ(report(sweep + "--no-shift").at("measured"), 1);
  const auto all = rows();
  ASSERT_EQ(all.size(), 2U);
  EXPECT_EQ(all[0].at("dataset"), "c.attn.h5:L2/K0");
  EXPECT_EQ(all[0].at("shift"), true);
  EXPECT_EQ(all[1].at("shift"), false);
  EXPECT_EQ(all[1].at("share"), 1.0);
}

TEST_F(Sweep, Pins) {
  cpu_set_t set;
  ASSERT_EQ(::sched_getaffinity(0, sizeof(set), &set), 0);
  int cpu = 0;
  while (!CPU_ISSET(static_cast<std::size_t>(cpu), &set)) ++cpu;
  (void)report(kSweep + std::string("--index flat --pin ") + std::to_string(cpu));
  expect_failure(kSweep + std::string("--pin 5000"), 2, {"--pin is 5000"});
  expect_failure(kSweep + std::string("--pin 1000"), 2, {"--pin is 1000"});
}

TEST_F(Sweep, GivenListsAndTrainingQueries) {
  const io::Benchmark b = small_benchmark();
  io::write_vectors(path("l.fbin"), AnyMatrixView::of(b.learn.view()));
  EXPECT_GT(report(kSweep + std::string("--index projection --use-lists")).at("measured"), 0);
  EXPECT_GT(report(kSweep + std::string("--index projection --train l.fbin")).at("measured"), 0);
}

TEST_F(Sweep, Refuses) {
  const std::string sweep = "sweep --data b.hdf5 --out r.jsonl ";
  expect_failure("sweep --out r.jsonl", 2, {"either --data or --keys"});
  expect_failure(sweep + "--index flat,tree", 2, {"'tree'"});
  expect_failure(sweep + "--index flat,flat", 2, {"'flat' twice"});
  expect_failure(sweep + "--k 0", 2, {"k is 0"});
  expect_failure(sweep + "--k 401", 2, {"401", "400"});
  expect_failure(sweep + "--repeats 0", 2, {"--repeats is 0"});
  expect_failure(sweep + "--cold-steps 0", 2, {"--cold-steps is 0"});
  expect_failure(sweep + "--no-shift", 2, {"--no-shift", "b.hdf5"});
  expect_failure(sweep + "--damping -1", 2, {"damping"});
  EXPECT_FALSE(exists("r.jsonl"));
  io::Benchmark plain = small_benchmark();
  plain.learn = {};
  plain.learn_ids = {};
  plain.tuning = {};
  io::write_benchmark(path("plain.hdf5"), plain);
  expect_failure("sweep --data plain.hdf5 --k 5 --index flat,projection --out r.jsonl", 2,
                 {"plain.hdf5", "learn"});
  EXPECT_FALSE(exists("r.jsonl"));
}

TEST_F(Sweep, RefusesAForeignFile) {
  for (const std::string text : {"# notes\n", "my notes", "[1]\n", "{}\n{\"a\"\n{}\n"}) {
    std::ofstream(path("r.jsonl")) << text;
    expect_failure(kSweep, 3, {"r.jsonl", "line"});
    EXPECT_EQ(read_text(path("r.jsonl")), text);
  }
}

TEST_F(Sweep, OneRunAtATime) {
  const int held = ::open(path("r.jsonl").c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  ASSERT_EQ(::flock(held, LOCK_EX), 0);
  expect_failure(kSweep, 4, {"r.jsonl", "in use"});
  ::close(held);
}

}  // namespace
}  // namespace keyseek::test
