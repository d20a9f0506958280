// A user's own files, one for each part of a problem.
#include <algorithm>
#include <limits>

#include "cli/run_tool.hpp"
#include "cli/small_problem.hpp"

namespace keyseek::test {
namespace {

using testing::HasSubstr;

class OwnFiles : public Tool {
 protected:
  void SetUp() override {
    problem_ = small_benchmark();
    io::write_vectors(path("k.npy"), problem_.keys.view());
    write("q.fvecs", problem_.queries);
    write("l.fbin", problem_.learn);
    io::write_ids(path("t.ivecs"), problem_.truth_ids);
    io::write_benchmark(path("b.hdf5"), problem_);
  }
  void write(const std::string& name, const Matrix<float>& m) const {
    io::write_vectors(path(name), AnyMatrixView::of(m.view()));
  }
  nlohmann::json first_row(const std::string& name = "r.jsonl") const {
    const std::string text = read_text(path(name));
    return nlohmann::json::parse(text.substr(0, text.find('\n')));
  }

  io::Benchmark problem_;
};

constexpr const char* kSweep = "sweep --k 10 --repeats 1 --points 2 --out r.jsonl ";

TEST_F(OwnFiles, SweepOfFiles) {
  const std::string files = "--keys k.npy --train l.fbin --queries q.fvecs --group 2 ";
  const ToolResult given = run(kSweep + files + "--truth t.ivecs --index flat");
  EXPECT_EQ(given.code, 0) << given.err;
  EXPECT_EQ(given.err, "");
  EXPECT_EQ(first_row().at("dataset"), "k.npy, q.fvecs");
  EXPECT_EQ(first_row().at("group"), 2);
  EXPECT_GT(first_row().at("recall_at_k"), 0.99);

  const ToolResult computed = run("sweep --k 10 --repeats 1 --points 2 --out c.jsonl " + files);
  EXPECT_EQ(computed.code, 0) << computed.err;
  EXPECT_THAT(computed.err, HasSubstr("note: no --truth: the 10 best of 400 keys"));
  EXPECT_EQ(first_row("c.jsonl").at("recall_at_k"), first_row().at("recall_at_k"));
  // Tuned for the k that is asked.
  EXPECT_THAT(read_text(path("c.jsonl")), HasSubstr("\"tune_k\":10"));
}

TEST_F(OwnFiles, DatasetsOfHdf5AreFilesToo) {
  const auto swept = report(
      kSweep + std::string("--keys b.hdf5:train --queries b.hdf5:test --truth b.hdf5:neighbors "
                           "--train b.hdf5:learn --group 2 --index sketch"));
  EXPECT_EQ(swept.at("measured"), 1);
  (void)report("knn --keys b.hdf5:train --queries q.fvecs --k 10 --out found.ivecs");
  EXPECT_EQ(read_bytes(path("found.ivecs")), read_bytes(path("t.ivecs")));
  expect_failure("knn --keys b.hdf5:train --queries q.fvecs --out b.hdf5", 2, {"b.hdf5"});
}

TEST_F(OwnFiles, FilesStandInForPartsOfTheData) {
  write("few.fvecs", normal_matrix(4, 16, 1));
  (void)report(kSweep + std::string("--data b.hdf5 --queries few.fvecs --index flat"));
  EXPECT_EQ(first_row().at("dataset"), "b.hdf5, few.fvecs");
  EXPECT_EQ(first_row().at("queries"), 4);
  EXPECT_GT(first_row().at("recall_at_k"), 0.99);  // by a truth of their own
  expect_failure("sweep --out r.jsonl --data b.hdf5 --truth t.ivecs --k 11", 2,
                 {"t.ivecs has 10 ids per query", "k is 11"});
}

TEST_F(OwnFiles, WhatIsMissingIsSaid) {
  const ToolResult flat = run(kSweep + std::string("--keys k.npy --queries q.fvecs"));
  EXPECT_EQ(flat.code, 0) << flat.err;
  EXPECT_THAT(flat.err, HasSubstr("note: no training queries: only the flat index"));
  const ToolResult held =
      run("sweep --k 10 --repeats 1 --points 2 --out h.jsonl --keys k.npy --train l.fbin");
  EXPECT_EQ(held.code, 0) << held.err;
  EXPECT_THAT(held.err, HasSubstr("note: no --queries: 30 of the 300 training queries"));
  EXPECT_EQ(first_row("h.jsonl").at("queries"), 30);
  EXPECT_EQ(run(kSweep + std::string("--quiet --single --keys k.npy --queries q.fvecs")).err, "");

  expect_failure(kSweep + std::string("--keys k.npy"), 2, {"--queries", "nothing to ask"});
  expect_failure(kSweep + std::string("--keys k.npy --queries q.fvecs --index projection"), 2,
                 {"no training queries", "--train", "--index flat"});
  expect_failure("build --keys k.npy --index sketch --out x.ks", 2, {"k.npy", "--train"});
  expect_failure(kSweep + std::string("--keys k.npy --train l.fbin --truth t.ivecs"), 2,
                 {"--truth is t.ivecs", "--queries is missing"});
}

TEST_F(OwnFiles, WhatDoesNotFitIsNamed) {
  write("d3.fbin", normal_matrix(4, 3, 1));
  expect_failure("build --keys k.npy --train d3.fbin --out x.ks", 2,
                 {"d3.fbin has dimension 3", "k.npy has 16"});
  expect_failure(kSweep + std::string("--keys k.npy --queries d3.fbin"), 2,
                 {"d3.fbin has dimension 3", "k.npy has 16"});
  expect_failure("knn --keys k.npy --queries d3.fbin --out o.ibin", 2,
                 {"d3.fbin has dimension 3", "k.npy has 16"});
  Matrix<float> bad = normal_matrix(4, 16, 1);
  bad.row(2)[5] = std::numeric_limits<float>::quiet_NaN();
  write("nan.npy", bad);
  expect_failure("build --keys nan.npy --index flat --out x.ks", 2, {"nan.npy", "row 2"});
  expect_failure("knn --keys k.npy --queries nan.npy --out o.ibin", 2, {"nan.npy", "row 2"});
  io::write_ids(path("short.ibin"), Matrix<Id>(3, 10));
  expect_failure(kSweep + std::string("--keys k.npy --queries q.fvecs --truth short.ibin"), 2,
                 {"short.ibin has 3 rows", "q.fvecs has 40"});
  (void)report("build --keys k.npy --index flat --out f.ks");
  expect_failure("search --index f.ks --queries d3.fbin", 2, {"d3.fbin has dimension 3", "f.ks"});
}

TEST_F(OwnFiles, MetricsAreRememberedAndConverted) {
  for (const std::string metric : {"l2", "cosine"}) {
    SCOPED_TRACE(metric);
    (void)report("knn --keys k.npy --queries q.fvecs --k 10 --metric " + metric +
                 " --out m.ibin --scores s.fbin");
    const auto built =
        report("build --keys k.npy --train l.fbin --index sketch --out m.ks --metric " + metric);
    EXPECT_EQ(built.at("metric"), metric);
    EXPECT_EQ(built.at("dim"), 16);
    const std::string search = "search --index m.ks --queries q.fvecs --k 10 ";
    EXPECT_GE(report(search + "--truth m.ibin").at("recall_at_k"), 0.97);
    EXPECT_EQ(report(search + "--truth m.ibin").at("recall_at_k"),
              report(search + "--recall").at("recall_at_k"));
    const AnyMatrix scores = io::read_vectors(path("s.fbin"));
    const auto* const row = static_cast<const float*>(scores.view().row(3));
    EXPECT_TRUE(metric == "l2" ? row[0] >= 0 && row[0] < row[9] : row[0] <= 1 && row[0] > row[9]);
    (void)report(kSweep + std::string("--keys k.npy --queries q.fvecs --index flat --metric ") +
                 metric);
    EXPECT_THAT(read_text(path("r.jsonl")), HasSubstr("\"k.npy, q.fvecs, " + metric + "\""));
    expect_failure("search --index m.ks --data b.hdf5 --k 10", 2, {"m.ks is by " + metric});
    expect_failure("verify m.ks --data b.hdf5", 2, {"m.ks is by " + metric});
  }
  expect_failure("build --keys k.npy --index flat --out x.ks --metric l1", 2, {"l1", "cosine"});
  expect_failure("build --data b.hdf5 --use-lists --out x.ks --metric l2", 2,
                 {"--use-lists", "--metric is l2"});
}

TEST_F(OwnFiles, OnlyAllowedKeysAreFound) {
  (void)report("build --keys k.npy --index flat --out f.ks");
  Matrix<Id> some(1, 3);
  for (Id i = 0; i < 3; ++i) some.row(0)[i] = 100 * i;
  io::write_ids(path("some.ibin"), some);
  const std::string search = "search --index f.ks --queries q.fvecs --k 5 --allowed some.ibin ";
  (void)report(search + "--out found.ibin");
  const Matrix<Id> found = io::read_ids(path("found.ibin"));
  for (std::size_t i = 0; i < found.rows(); ++i) {
    std::vector<Id> row(found.row(i), found.row(i) + 5);
    std::sort(row.begin(), row.end());
    EXPECT_EQ(row, (std::vector<Id>{0, 100, 200, kNoId, kNoId}));
  }
  expect_failure(search + "--recall", 2, {"--allowed is some.ibin", "--truth"});
  some.row(0)[2] = 400;
  io::write_ids(path("some.ibin"), some);
  expect_failure(search, 2, {"some.ibin", "400"});
}

TEST_F(OwnFiles, SearchComputesTheTruthWhenAsked) {
  (void)report("build --keys k.npy --index flat --out f.ks");
  const std::string search = "search --index f.ks --queries q.fvecs --group 2 --k 10 ";
  EXPECT_FALSE(report(search).contains("recall_at_k"));
  EXPECT_EQ(report(search + "--recall").at("recall_at_k"),
            report(search + "--truth t.ivecs").at("recall_at_k"));
}

}  // namespace
}  // namespace keyseek::test
