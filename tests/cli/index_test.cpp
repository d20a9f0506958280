// build, search and verify: an index from its data to its answers.
#include "cli/run_tool.hpp"
#include "cli/small_problem.hpp"
#include "io/small_capture.hpp"

namespace keyseek::test {
namespace {

class IndexFiles : public Tool {
 protected:
  void SetUp() override {
    problem_ = small_benchmark();
    io::write_benchmark(path("b.hdf5"), problem_);
    io::write_vectors(path("k.fbin"), problem_.keys.view());
    write("q.fbin", problem_.queries);
    write("l.fbin", problem_.learn);
  }
  void write(const std::string& name, const Matrix<float>& m) const {
    io::write_vectors(path(name), AnyMatrixView::of(m.view()));
  }
  void build(const std::string& index = "projection") const {
    (void)report("build --data b.hdf5 --out x.ks --index " + index);
  }

  io::Benchmark problem_;
};

TEST_F(IndexFiles, BuildReports) {
  const auto built = report("build --data b.hdf5 --out x.ks --threads 2");
  EXPECT_EQ(built.at("index"), "projection");
  EXPECT_EQ(built.at("keys"), 400);
  EXPECT_EQ(built.at("dim"), 16);
  EXPECT_EQ(built.at("unreachable"), 0);
  EXPECT_EQ(built.at("operating_points").size(), 5U);
  EXPECT_EQ(built.at("build").at("training_queries"), 300);
  EXPECT_EQ(built.at("build").at("tuning_queries"), 32);
  EXPECT_GT(built.at("build").at("total_s"), 0);
  const auto info = report("info x.ks");
  EXPECT_EQ(info.at("kind"), "index");
  EXPECT_EQ(info.at("operating_points"), built.at("operating_points"));
  EXPECT_EQ(info.at("file_bytes"), std::filesystem::file_size(path("x.ks")));
}

TEST_F(IndexFiles, BuildIsTheSameAtAnyThreadCount) {
  (void)report("build --data b.hdf5 --out one.ks --threads 1");
  (void)report("build --data b.hdf5 --out two.ks --threads 2");
  EXPECT_EQ(read_bytes(path("one.ks")), read_bytes(path("two.ks")));
}

TEST_F(IndexFiles, BuildFromVectors) {
  const auto built = report("build --keys k.fbin --train l.fbin --group 2 --out x.ks");
  // Every fifth step is held out for tuning.
  EXPECT_EQ(built.at("build").at("training_queries"), 240);
  EXPECT_EQ(built.at("build").at("tuning_queries"), 60);
  EXPECT_EQ(built.at("operating_points").size(), 5U);
}

TEST_F(IndexFiles, BuildWithParameters) {
  const auto built = report(
      "build --data b.hdf5 --out x.ks --link-method pivot --list-length 20 --list-method f32 "
      "--candidates 16 --degree 8 --max-degree 12 --damping 0.5 --sampled-lists 50 "
      "--entry-points 4 --router-dim 8 --clusters 4 "
      "--iterations 2 --queries-per-key 0.3 --router-seed 7 --tune-k 5 --tune-recalls 0.8,0.9");
  EXPECT_EQ(built.at("operating_points").size(), 2U);
  EXPECT_EQ(built.at("operating_points")[0].at("target_recall"), 0.8);
  EXPECT_EQ(built.at("unreachable"), 0);
}

TEST_F(IndexFiles, BuildWithGivenLists) {
  const auto built = report("build --data b.hdf5 --use-lists --list-length 10 --out x.ks");
  EXPECT_EQ(built.at("build").at("lists_s"), 0);
  EXPECT_EQ(built.at("unreachable"), 0);
}

TEST_F(IndexFiles, BuildOfACapture) {
  SmallCapture().write(path("c.attn.h5"));
  const auto built =
      report("build --data c.attn.h5:L2/K0 --sink 2 --window 4 --share 1 --index flat --out x.ks");
  EXPECT_EQ(built.at("keys"), 18);
  EXPECT_EQ(built.at("index"), "flat");
  EXPECT_EQ(report("verify x.ks --data c.attn.h5:L2/K0 --k 5 --sink 2 --window 4 --share 1")
                .at("recall_at_k"),
            1.0);
}

TEST_F(IndexFiles, BuildRefuses) {
  const std::string out = " --out x.ks";
  expect_failure("build" + out, 2, {"--data or --keys", "none"});
  expect_failure("build --data b.hdf5 --keys k.fbin" + out, 2, {"--data or --keys", "both"});
  expect_failure("build --data b.hdf5 --group 2" + out, 2, {"--group is 2"});
  expect_failure("build --keys k.fbin --train l.fbin --group 65" + out, 2, {"--group is 65"});
  expect_failure("build --keys k.fbin --train l.fbin --group 7" + out, 2, {"300", "group = 7"});
  expect_failure("build --keys k.fbin" + out, 2, {"k.fbin", "training queries", "--train"});
  expect_failure("build --keys k.fbin --train l.fbin --no-shift" + out, 2, {"--no-shift"});
  expect_failure("build --keys k.fbin --train l.fbin --use-lists" + out, 2, {"learn_neighbors"});
  expect_failure("build --data b.hdf5 --horizon 5" + out, 2, {"--horizon", "b.hdf5"});
  expect_failure("build --data b.hdf5 --index tree" + out, 2, {"'tree'", "flat|sketch|projection"});
  expect_failure("build --data b.hdf5 --tune-recalls 0.9,1.5" + out, 2, {"1.5"});
  expect_failure("build --data b.hdf5 --degree 0" + out, 2, {"degree"});
  expect_failure("build --data b.hdf5 --damping nan" + out, 2, {"damping"});
  write("d.fbin", normal_matrix(10, 3, 1));
  expect_failure("build --keys k.fbin --train d.fbin" + out, 2, {"3", "16"});
  auto infinite = normal_matrix(10, 16, 1);
  infinite.row(4)[0] = INFINITY;
  write("inf.fbin", infinite);
  expect_failure("build --keys k.fbin --train inf.fbin" + out, 2, {"row"});
  expect_failure("build --keys inf.fbin --train l.fbin" + out, 2, {"row 4"});
  expect_failure("build --keys inf.fbin --index flat" + out, 2, {"row 4"});
  EXPECT_FALSE(exists("x.ks"));
}

TEST_F(IndexFiles, BuildWithoutTrainingQueries) {
  problem_.learn = {};
  problem_.learn_ids = {};
  problem_.tuning = {};
  io::write_benchmark(path("plain.hdf5"), problem_);
  expect_failure("build --data plain.hdf5 --out x.ks", 2, {"plain.hdf5", "learn", "--train"});
  EXPECT_EQ(report("build --data plain.hdf5 --train l.fbin --out x.ks").at("keys"), 400);
}

TEST_F(IndexFiles, SearchReportsRecallAndCost) {
  build();
  const auto found = report("search --index x.ks --data b.hdf5 --k 10 --target-recall 0.99");
  EXPECT_EQ(found.at("queries"), 40);
  EXPECT_EQ(found.at("group"), 2);
  EXPECT_GT(found.at("recall_at_k"), 0.9);
  EXPECT_GT(found.at("us_per_step_p95"), 0);
  EXPECT_LT(found.at("scanned_fraction"), 1);
}

TEST_F(IndexFiles, SearchWritesIds) {
  build("flat");
  for (const char* how : {"", " --map", " --no-warm", " --group 1", " --repeats 2"}) {
    (void)report("search --index x.ks --queries q.fbin --k 10 --out i.ibin" + std::string(how));
    EXPECT_GT(recall(problem_.truth_ids, io::read_ids(path("i.ibin"))), 0.999) << how;
  }
  io::write_ids(path("t.ibin"), problem_.truth_ids);
  const auto found = report("search --index x.ks --queries q.fbin --k 5 --truth t.ibin --group 4");
  EXPECT_EQ(found.at("group"), 4);
  EXPECT_GT(found.at("recall_at_k"), 0.999);
}

TEST_F(IndexFiles, SearchComputesTruthBeyondTheStoredK) {
  build("flat");
  EXPECT_GT(report("search --index x.ks --data b.hdf5 --k 20").at("recall_at_k"), 0.99);
}

TEST_F(IndexFiles, SearchWithDialsAndStopRules) {
  build();
  const std::string search = "search --index x.ks --data b.hdf5 --k 10 --no-warm ";
  const auto little = report(search + "--probes 1 --lists 1 --expand 0");
  const auto much = report(search + "--probes 4 --lists 64 --expand 64 --pool 40");
  EXPECT_LT(little.at("scanned_fraction"), much.at("scanned_fraction"));
  EXPECT_LE(little.at("recall_at_k"), much.at("recall_at_k"));
  EXPECT_LE(report(search + "--max-scanned 20").at("scanned_fraction"), 20.0 / 400);
  (void)report(search + "--beta 0 --out i.ibin");
  const auto ids = io::read_ids(path("i.ibin"));
  EXPECT_NE(ids.row(0)[0], kNoId);
  EXPECT_EQ(ids.row(0)[9], kNoId);
}

TEST_F(IndexFiles, SearchRefuses) {
  build();
  const std::string search = "search --index x.ks --queries q.fbin ";
  expect_failure("search --index x.ks", 2, {"--queries or --data", "none"});
  expect_failure(search + "--data b.hdf5", 2, {"--queries or --data", "both"});
  expect_failure(search + "--k 0", 2, {"k is 0"});
  expect_failure(search + "--k 401", 2, {"401", "400"});
  expect_failure(search + "--k 900000000000000000", 2, {"900000000000000000", "400"});
  expect_failure(search + "--k 10 --group 7", 2, {"40", "7"});
  expect_failure(search + "--k 10 --group 65", 2, {"65"});
  expect_failure(search + "--k 10 --target-recall 2", 2, {"target_recall is 2"});
  expect_failure(search + "--k 10 --target-recall nan", 2, {"target_recall"});
  expect_failure(search + "--k 10 --beta -1", 2, {"beta is -1"});
  expect_failure(search + "--k 10 --max-scanned 0", 2, {"max_scanned is 0"});
  expect_failure(search + "--k 10 --repeats 0", 2, {"repeats is 0"});
  expect_failure(search + "--k 10 --lists 0 --expand 0", 2, {"dials"});
  expect_failure(search + "--k 10 --probes 5000000000", 2, {"--probes"});
  expect_failure(search + "--k 10 --out i.fbin", 2, {"i.fbin", ".ibin"});
  write("d.fbin", normal_matrix(4, 3, 1));
  expect_failure("search --index x.ks --queries d.fbin --k 10", 2, {"3", "16"});
  io::write_ids(path("t.ibin"), Matrix<Id>(40, 5));
  expect_failure(search + "--k 10 --truth t.ibin", 2, {"t.ibin", "5", "10"});
  io::write_ids(path("t.ibin"), Matrix<Id>(39, 10));
  expect_failure(search + "--k 10 --truth t.ibin", 2, {"t.ibin", "39", "40"});
}

TEST_F(IndexFiles, OptionsOfAProjectionIndexAreRefusedForOthers) {
  for (const std::string kind : {"flat", "sketch"}) {
    expect_failure("build --data b.hdf5 --out x.ks --list-length 5 --index " + kind, 2,
                   {"--list-length", "--index", kind});
    build(kind);
    for (const std::string option : {"--target-recall 0.9", "--max-scanned 20", "--scan-novel",
                                     "--probes 3", "--lists 3", "--expand 3", "--pool 30"}) {
      const std::string name = option.substr(0, option.find(' '));
      for (const std::string threads : {" --threads 1", " --threads 2"}) {
        expect_failure("search --index x.ks --queries q.fbin --k 10 " + option + threads, 2,
                       {name, "projection", "x.ks", kind});
      }
    }
    expect_failure("verify x.ks --data b.hdf5 --k 10 --target-recall 0.9", 2,
                   {"--target-recall", "projection", "x.ks", kind});
  }
}

TEST_F(IndexFiles, ATruthOfOtherKeysIsRefused) {
  build("flat");
  Matrix<Id> truth(40, 10);
  truth.row(7)[3] = 400;
  for (const std::string name : {"t.ibin", "t.npy"}) {
    io::write_ids(path(name), truth);
    expect_failure("search --index x.ks --queries q.fbin --k 10 --truth " + name, 2,
                   {name + " row 7", "key 400", "400 keys"});
  }
  truth.row(7)[3] = kNoId;  // no key is no other key
  io::write_ids(path("t.ibin"), truth);
  (void)report("search --index x.ks --queries q.fbin --k 10 --truth t.ibin");
  write("few.fbin", normal_matrix(100, 16, 1));
  (void)report("build --keys few.fbin --index flat --out few.ks");
  expect_failure("search --index few.ks --data b.hdf5 --k 10", 2, {"400", "few.ks", "100"});
}

TEST_F(IndexFiles, Verify) {
  build();
  EXPECT_EQ(report("verify x.ks").at("ok"), true);
  const std::string verify = "verify x.ks --data b.hdf5 --k 10 --target-recall 0.99 ";
  EXPECT_GT(report(verify + "--min-recall 0.9").at("recall_at_k"), 0.9);
  expect_failure(verify + "--min-recall 1.1", 3, {"x.ks", "recall@10", "1.1"});
  expect_failure("verify x.ks --min-recall 0.5", 2, {"--min-recall", "--data"});
  io::Benchmark other = small_benchmark();
  other.keys = AnyMatrix::copy_of(problem_.keys.view().slice(0, 399));
  other.truth_ids = {};
  other.truth_scores = {};
  other.learn_ids = {};
  io::write_benchmark(path("other.hdf5"), other);
  expect_failure("verify x.ks --data other.hdf5 --k 10", 2, {"399", "400"});
}

TEST_F(IndexFiles, DamageIsCode3) {
  for (const std::string kind : {"flat", "projection"}) {
    build(kind);
    Bytes bytes = read_bytes(path("x.ks"));
    const Bytes whole = bytes;
    bytes[bytes.size() / 2] ^= 1;
    write_bytes(path("x.ks"), bytes);
    expect_failure("verify x.ks", 3, {"x.ks"});
    expect_failure("info x.ks", 3, {"x.ks"});
    expect_failure("search --index x.ks --data b.hdf5 --k 5", 3, {"x.ks"});
    expect_failure("search --index x.ks --data b.hdf5 --k 5 --map", 3, {"x.ks"});
    write_bytes(path("x.ks"), std::span(whole).first(whole.size() - 1));
    expect_failure("verify x.ks", 3, {"x.ks"});
    write_bytes(path("x.ks"), {});
    expect_failure("verify x.ks", 3, {"x.ks"});
  }
}

}  // namespace
}  // namespace keyseek::test
