// HDF5 files that another process takes apart: the same content, and no harm from what it meets.
#include "io/hdf5_helper.hpp"

#include <gtest/gtest.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include <chrono>
#include <thread>

#include "cli/small_problem.hpp"
#include "file/temporary_directory.hpp"
#include "io/hdf5_reader.hpp"
#include "io/hdf5_writer.hpp"

namespace keyseek::io::hdf5 {
namespace {

using test::expect_error;
using test::TemporaryDirectory;

Hdf5Access helped(double seconds = 60) {
  return {.helper = KEYSEEK_HDF5_HELPER, .seconds = seconds};
}

template <class T>
void expect_same(const Matrix<T>& a, const Matrix<T>& b) {
  ASSERT_EQ(a.rows(), b.rows());
  ASSERT_EQ(a.cols(), b.cols());
  EXPECT_TRUE(std::equal(a.data(), a.data() + a.rows() * a.cols(), b.data()));
}

void expect_same(const Benchmark& a, const Benchmark& b) {
  EXPECT_EQ(to_string(a.keys.dtype()), to_string(b.keys.dtype()));
  expect_same(to_f32(a.keys.view()), to_f32(b.keys.view()));
  expect_same(a.queries, b.queries);
  expect_same(a.learn, b.learn);
  expect_same(a.tuning, b.tuning);
  expect_same(a.truth_ids, b.truth_ids);
  expect_same(a.truth_scores, b.truth_scores);
  expect_same(a.learn_ids, b.learn_ids);
  EXPECT_EQ(a.group, b.group);
  EXPECT_EQ(a.tuning_steps, b.tuning_steps);
}

/// Open descriptors of this process.
std::size_t descriptors() {
  std::size_t count = 0;
  for (const auto& entry : std::filesystem::directory_iterator("/proc/self/fd")) {
    count += entry.path().empty() ? 0 : 1;
  }
  return count;
}

TEST(Hdf5Helper, ReadsWhatTheLibraryReads) {
  const TemporaryDirectory directory;
  const auto path = directory / "b.hdf5";
  write_benchmark(path, test::small_benchmark());
  const std::size_t before = descriptors();
  expect_same(read_benchmark(path, helped()), read_benchmark(path));
  const CaptureInfo a = capture_info(KEYSEEK_SAMPLE, helped()), b = capture_info(KEYSEEK_SAMPLE);
  EXPECT_EQ(a.model, b.model);
  ASSERT_EQ(a.heads.size(), b.heads.size());
  const auto head = read_capture(KEYSEEK_SAMPLE, a.heads[0].layer, 0, helped());
  const auto same = read_capture(KEYSEEK_SAMPLE, a.heads[0].layer, 0);
  expect_same(to_f32(head.keys.view()), to_f32(same.keys.view()));
  expect_same(head.queries[1], same.queries[1]);
  EXPECT_EQ(head.scale, same.scale);
  EXPECT_EQ(descriptors(), before);
  EXPECT_EQ(::waitpid(-1, nullptr, WNOHANG), -1) << "a process is left";
}

TEST(Hdf5Helper, SeveralThreadsReadAtOnce) {
  std::vector<std::jthread> threads;
  threads.reserve(4);
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([] {
      for (int i = 0; i < 3; ++i)
        EXPECT_FALSE(capture_info(KEYSEEK_SAMPLE, helped()).heads.empty());
    });
  }
}

TEST(Hdf5Helper, FilesMadeToDoHarmAreErrors) {
  const auto folder = std::filesystem::path(KEYSEEK_TEST_DATA) / "hdf5";
  std::size_t files = 0;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    const auto path = entry.path();
    const auto begin = std::chrono::steady_clock::now();
    try {
      if (path.filename().string().ends_with(".attn.h5")) {
        for (const auto& head : capture_info(path, helped(3)).heads)
          (void)read_capture(path, head.layer, head.kv_head, helped(3));
      } else {
        (void)read_benchmark(path, helped(3));
      }
      ADD_FAILURE() << path << " was read";
    } catch (const Error& e) {
      EXPECT_NE(std::string(e.what()).find(path.filename().string()), std::string::npos)
          << e.what();
    }
    EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(60)) << path;
    ++files;
  }
  EXPECT_GE(files, 3U);
}

/// A helper that does what `script` says.
class BadHelper : public testing::Test {
 protected:
  void expect(const std::string& script, ErrorCode code, const std::vector<std::string>& parts) {
    const auto path = directory_ / "helper";
    test::write_bytes(path, "#!/bin/sh\n" + script + "\n");
    ASSERT_EQ(::chmod(path.c_str(), 0755), 0);
    const std::size_t before = descriptors();
    expect_error(code, parts,
                 [&] { (void)capture_info(KEYSEEK_SAMPLE, {.helper = path, .seconds = 1}); });
    EXPECT_EQ(descriptors(), before);
    EXPECT_EQ(::waitpid(-1, nullptr, WNOHANG), -1) << "a process is left";
  }
  const TemporaryDirectory directory_;
  const std::string sample_ = std::filesystem::path(KEYSEEK_SAMPLE).filename().string();
};

TEST_F(BadHelper, ThatCrashes) {
  expect("kill -SEGV $$", ErrorCode::corrupt, {sample_, "crashed", "signal 11"});
  expect("kill -ABRT $$", ErrorCode::corrupt, {sample_, "crashed", "signal 6"});
}
TEST_F(BadHelper, ThatHangs) {
  expect("exec sleep 100", ErrorCode::corrupt, {sample_, "no answer within 1 s"});
}
TEST_F(BadHelper, ThatEnds) { expect("exit 7", ErrorCode::io, {sample_, "exit code 7"}); }
TEST_F(BadHelper, ThatSaysNonsense) {
  expect("head -c 100 /dev/zero >&4; sleep 3", ErrorCode::corrupt, {"breaks off"});
  expect("head -c 100 /dev/zero | tr '\\0' '\\377' >&4; sleep 3", ErrorCode::corrupt,
         {sample_, "an answer of"});
}
TEST_F(BadHelper, ThatIsNotThere) {
  expect_error(ErrorCode::io, {"no/such/helper", "No such file"},
               [&] { (void)capture_info(KEYSEEK_SAMPLE, {.helper = "/no/such/helper"}); });
}

TEST(Hdf5Helper, MemoryHasALimit) {
#if defined(__SANITIZE_ADDRESS__)
  GTEST_SKIP() << "a sanitizer's own memory has no limit";
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
  GTEST_SKIP() << "a sanitizer's own memory has no limit";
#endif
#endif
  const TemporaryDirectory directory;
  const auto path = directory / "zeros.hdf5";
  constexpr hsize_t kSide = 8000;  // 256 MB, compressed to some 250 kB
  {
    const Session quiet;
    const Handle file(H5Fcreate(path.c_str(), H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT), H5Fclose);
    const std::vector<hsize_t> sides = {kSide, kSide};
    const Handle space(H5Screate_simple(2, sides.data(), nullptr), H5Sclose);
    const Handle properties(H5Pcreate(H5P_DATASET_CREATE), H5Pclose);
    H5Pset_chunk(properties.get(), 2, sides.data());
    H5Pset_deflate(properties.get(), 1);
    const Handle dataset(H5Dcreate2(file.get(), "x", H5T_IEEE_F32LE, space.get(), H5P_DEFAULT,
                                    properties.get(), H5P_DEFAULT),
                         H5Dclose);
    const std::vector<float> zeros(kSide * kSide);
    ASSERT_GE(
        H5Dwrite(dataset.get(), H5T_NATIVE_FLOAT, H5S_ALL, H5S_ALL, H5P_DEFAULT, zeros.data()), 0);
  }
  Hdf5Access access = helped();
  access.memory = std::uint64_t{200} << 20U;
  expect_error(ErrorCode::corrupt, {"zeros.hdf5"},
               [&] { (void)Reader(path, access).dataset("x", 2).read(); });
  access.memory = std::uint64_t{2} << 30U;
  EXPECT_EQ(Reader(path, access).dataset("x", 2).read_floats().row(7999)[7999], 0.0F);
}

/// Both ways of reading.
class Hdf5Refusals : public testing::TestWithParam<bool> {
 protected:
  [[nodiscard]] static Hdf5Access access() { return GetParam() ? helped() : Hdf5Access(); }
};
INSTANTIATE_TEST_SUITE_P(Helped, Hdf5Refusals, testing::Bool());

TEST_P(Hdf5Refusals, LinksToOtherFiles) {
  const TemporaryDirectory directory;
  const auto path = directory / "links.hdf5", other = directory / "other.hdf5";
  write_benchmark(other, test::small_benchmark());
  {
    const Session quiet;
    const Handle file(H5Fcreate(path.c_str(), H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT), H5Fclose);
    H5Lcreate_external(other.c_str(), "/", file.get(), "outside", H5P_DEFAULT, H5P_DEFAULT);
    H5Lcreate_external(other.c_str(), "/train", file.get(), "train", H5P_DEFAULT, H5P_DEFAULT);
    H5Lcreate_soft("/outside/train", file.get(), "hidden", H5P_DEFAULT, H5P_DEFAULT);
  }
  const Reader reader(path, access());
  for (const std::string name : {"train", "outside", "outside/train"}) {
    expect_error(ErrorCode::unsupported, {"links.hdf5", "link to another file"},
                 [&] { (void)reader.dataset(name, 2); });
  }
  EXPECT_FALSE(reader.has("hidden"));
  expect_error(ErrorCode::corrupt, {"links.hdf5", "hidden"},
               [&] { (void)reader.dataset("hidden", 2); });
  expect_error(ErrorCode::unsupported, {"link to another file"},
               [&] { (void)reader.text("outside", "distance"); });
}

TEST_P(Hdf5Refusals, NumbersBeyondF32) {
  const TemporaryDirectory directory;
  const auto path = directory / "wide.hdf5";
  std::vector<double> values = {1, 2, 3, INFINITY, 5, 1e300};
  const auto write = [&] {
    const Session quiet;
    const Handle file(H5Fcreate(path.c_str(), H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT), H5Fclose);
    const std::vector<hsize_t> sides = {3, 2};
    const Handle space(H5Screate_simple(2, sides.data(), nullptr), H5Sclose);
    const Handle dataset(H5Dcreate2(file.get(), "x", H5T_IEEE_F64LE, space.get(), H5P_DEFAULT,
                                    H5P_DEFAULT, H5P_DEFAULT),
                         H5Dclose);
    H5Dwrite(dataset.get(), H5T_NATIVE_DOUBLE, H5S_ALL, H5S_ALL, H5P_DEFAULT, values.data());
  };
  write();
  for (const bool floats : {false, true}) {
    expect_error(ErrorCode::unsupported, {"dataset x", "row 2 holds 1e+300"}, [&] {
      const Reader reader(path, access());
      if (floats) (void)reader.dataset("x", 2).read_floats();
      (void)reader.dataset("x", 2).read();
    });
  }
  values[5] = -INFINITY;  // as it was, infinity is read as it is
  write();
  EXPECT_EQ(Reader(path, access()).dataset("x", 2).read_floats().row(2)[1], -INFINITY);
}

}  // namespace
}  // namespace keyseek::io::hdf5
