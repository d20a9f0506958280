// info, convert and knn: what the tool does with files that hold vectors.
#include "cli/run_tool.hpp"
#include "cli/small_problem.hpp"
#include "io/small_capture.hpp"

namespace keyseek::test {
namespace {

class Files : public Tool {
 protected:
  void write(const std::string& name, const Matrix<float>& m) const {
    io::write_vectors(path(name), AnyMatrixView::of(m.view()));
  }
  void cut(const std::string& name, std::size_t bytes) const {
    std::filesystem::resize_file(path(name), std::filesystem::file_size(path(name)) - bytes);
  }
};

TEST_F(Files, InfoOfVectorsAndIds) {
  write("v.fbin", normal_matrix(5, 3, 1));
  write("v.npy", normal_matrix(5, 3, 1));
  io::write_ids(path("t.ibin"), Matrix<Id>(4, 2));
  io::write_ids(path("t.npy"), Matrix<Id>(4, 2));
  for (const char* name : {"v.fbin", "v.npy"}) {
    const auto info = report("info " + std::string(name));
    EXPECT_EQ(info.at("kind"), "vectors");
    EXPECT_EQ(info.at("rows"), 5);
    EXPECT_EQ(info.at("dim"), 3);
    EXPECT_EQ(info.at("dtype"), "f32");
  }
  for (const char* name : {"t.ibin", "t.npy"}) {
    const auto info = report("info " + std::string(name));
    EXPECT_EQ(info.at("kind"), "ids");
    EXPECT_EQ(info.at("k"), 2);
  }
}

TEST_F(Files, InfoOfBenchmarkAndCapture) {
  io::write_benchmark(path("b.hdf5"), small_benchmark());
  const auto benchmark = report("info b.hdf5");
  EXPECT_EQ(benchmark.at("kind"), "benchmark");
  EXPECT_EQ(benchmark.at("keys"), "400 x 16");
  EXPECT_EQ(benchmark.at("group"), 2);
  EXPECT_EQ(benchmark.at("tuning"), "32 x 16");

  SmallCapture().write(path("c.attn.h5"));
  const auto capture = report("info c.attn.h5");
  EXPECT_EQ(capture.at("kind"), "capture");
  EXPECT_EQ(capture.at("prefill"), 24);
  ASSERT_EQ(capture.at("heads").size(), 4U);
  EXPECT_EQ(capture.at("heads")[0].at("head"), "L2/K0");
  EXPECT_THAT(run("info c.attn.h5").out, testing::HasSubstr("L10/K1"));
}

TEST_F(Files, InfoOfNonsense) {
  std::ofstream(path("x.ks")) << "no index at all, but long enough to have a header of 64 bytes...";
  expect_failure("info x.ks", 3, {"x.ks"});
  std::ofstream(path("x.h5")) << "no HDF5";
  expect_failure("info x.h5", 3, {"x.h5"});
  std::ofstream(path("x.fbin")) << "short";
  expect_failure("info x.fbin", 3, {"x.fbin"});
  expect_failure("info .", 4, {"."});
}

TEST_F(Files, ConvertVectors) {
  const auto v = normal_matrix(6, 3, 1);
  write("v.fbin", v);
  EXPECT_EQ(report("convert v.fbin v.npy").at("rows"), 6);
  EXPECT_EQ(report("convert v.npy v.f16bin").at("dim"), 3);
  const AnyMatrix half = io::read_vectors(path("v.f16bin"));
  EXPECT_EQ(half.dtype(), Dtype::f16);
  EXPECT_NEAR(to_f32(half.view()).row(5)[2], v.row(5)[2], 1e-3);
}

TEST_F(Files, ConvertIds) {
  Matrix<Id> ids(2, 2);
  ids.row(1)[1] = kNoId;
  io::write_ids(path("t.ibin"), ids);
  (void)report("convert t.ibin t.npy");
  (void)report("convert t.npy u.ibin");
  EXPECT_EQ(read_bytes(path("t.ibin")), read_bytes(path("u.ibin")));
}

TEST_F(Files, ConvertCaptureToBenchmark) {
  SmallCapture().write(path("c.attn.h5"));
  const auto done = report("convert c.attn.h5:L2/K1 b.hdf5 --sink 2 --window 4 --share 1 --k 3");
  EXPECT_EQ(done.at("keys"), 18);
  EXPECT_EQ(done.at("group"), 2);
  const io::Benchmark b = io::read_benchmark(path("b.hdf5"));
  EXPECT_EQ(b.truth_ids.cols(), 3U);
  EXPECT_EQ(b.learn.rows() + b.tuning.rows(), 22U * 2);
  // Unshifted training queries are the captured ones.
  (void)report(
      "convert c.attn.h5:L2/K1 n.fbin --part learn --sink 2 --window 4 --share 1 --k 3 --no-shift");
  const auto learn = to_f32(io::read_vectors(path("n.fbin")).view());
  EXPECT_EQ(learn.row(0)[0], SmallCapture::element(0, 2, 0));
}

TEST_F(Files, ConvertParts) {
  const io::Benchmark b = small_benchmark();
  io::write_benchmark(path("b.hdf5"), b);
  EXPECT_EQ(report("convert b.hdf5 keys.fbin --part keys").at("rows"), 400);
  EXPECT_EQ(report("convert b.hdf5 q.npy --part queries").at("rows"), 40);
  EXPECT_EQ(report("convert b.hdf5 l.fbin --part learn").at("rows"), 300);
  EXPECT_EQ(report("convert b.hdf5 t.ibin --part truth --k 4").at("k"), 4);
  EXPECT_EQ(io::read_ids(path("t.ibin")).row(7)[3], b.truth_ids.row(7)[3]);
  EXPECT_EQ(report("convert b.hdf5 t.fbin --part tuning").at("rows"), 32);
}

TEST_F(Files, ConvertOfAMissingPart) {
  io::Benchmark b = small_benchmark();
  b.learn = {};
  b.learn_ids = {};
  io::write_benchmark(path("b.hdf5"), b);
  expect_failure("convert b.hdf5 l.fbin --part learn", 2, {"no vectors of that part"});
}

TEST_F(Files, ConvertRefuses) {
  write("v.fbin", normal_matrix(6, 3, 1));
  io::write_benchmark(path("b.hdf5"), small_benchmark());
  SmallCapture().write(path("c.attn.h5"));
  expect_failure("convert v.fbin v.xyz", 2, {"v.xyz"});
  expect_failure("convert v.xyz v.fbin", 2, {"v.xyz"});
  expect_failure("convert v.fbin b2.hdf5", 2, {"cannot become a benchmark"});
  expect_failure("convert v.fbin w.fbin --part keys", 2, {"has no parts"});
  expect_failure("convert b.hdf5 w.fbin", 2, {"--part"});
  expect_failure("convert b.hdf5 b2.hdf5 --part keys", 2, {"--part"});
  expect_failure("convert b.hdf5 w.fbin --part values", 2, {"--part", "'values'"});
  expect_failure("convert b.hdf5 w.fbin --part keys --no-shift", 2, {"--no-shift", "b.hdf5"});
  expect_failure("convert c.attn.h5 b2.hdf5", 2, {"c.attn.h5:L2/K0"});
  expect_failure("convert c.attn.h5:L3/K0 b2.hdf5 --k 1 --sink 0 --window 0", 2, {"L3"});
  expect_failure("convert c.attn.h5:L2/K0 b2.hdf5", 2, {"sink 128", "window 512"});
  expect_failure("convert c.attn.h5:L2/K0 b2.hdf5 --k 1 --sink 0 --window 0 --share 0", 2,
                 {"share is 0"});
  expect_failure("convert v.fbin none/w.fbin", 4, {"none/w.fbin"});
  EXPECT_FALSE(exists("b2.hdf5"));
  EXPECT_FALSE(exists("w.fbin"));
}

TEST_F(Files, KnnIsExact) {
  const io::Benchmark b = small_benchmark();
  write("q.fbin", b.queries);
  io::write_vectors(path("k.fbin"), b.keys.view());
  const std::string knn = "knn --keys k.fbin --queries q.fbin --k 10 ";
  EXPECT_EQ(report(knn + "--out t.ibin --scores s.fbin").at("queries"), 40);
  const auto ids = io::read_ids(path("t.ibin"));
  EXPECT_EQ(recall(b.truth_ids, ids), 1.0);
  EXPECT_EQ(to_f32(io::read_vectors(path("s.fbin")).view()).row(3)[9], b.truth_scores.row(3)[9]);
  (void)report(knn + "--out t8.ibin --method int8 --threads 2");
  EXPECT_GT(recall(b.truth_ids, io::read_ids(path("t8.ibin"))), 0.999);
}

TEST_F(Files, KnnRefuses) {
  write("q.fbin", normal_matrix(3, 4, 1));
  write("k.fbin", normal_matrix(5, 4, 1));
  write("other.fbin", normal_matrix(3, 6, 1));
  auto infinite = normal_matrix(3, 4, 1);
  infinite.row(2)[1] = INFINITY;
  write("inf.fbin", infinite);
  const std::string knn = "knn --out t.ibin --keys k.fbin --queries ";
  expect_failure(knn + "q.fbin --k 0", 2, {"k is 0"});
  expect_failure(knn + "q.fbin --k 6", 2, {"6", "5"});
  expect_failure(knn + "other.fbin --k 2", 2, {"6", "4"});
  expect_failure(knn + "inf.fbin --k 2", 2, {"inf.fbin", "row 2"});
  expect_failure("knn --out t.ibin --keys inf.fbin --queries q.fbin --k 2", 2,
                 {"inf.fbin", "row 2"});
  cut("k.fbin", 1);
  expect_failure(knn + "q.fbin --k 2", 3, {"k.fbin"});
  write("k.fbin", normal_matrix(5, 4, 1));
  expect_failure("knn --out t.txt --keys k.fbin --queries q.fbin --k 2", 2, {"t.txt", ".ibin"});
  expect_failure(knn + "q.fbin --k 2 --scores s.ibin", 2, {"s.ibin", ".fbin"});
  EXPECT_FALSE(exists("t.ibin"));
}

}  // namespace
}  // namespace keyseek::test
