#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <csignal>
#include <cstdint>
#include <numeric>
#include <thread>

#include "file/temporary_directory.hpp"
#include "io/hdf5_reader.hpp"
#include "io/hdf5_writer.hpp"

namespace keyseek::io::hdf5 {
namespace {

using test::expect_error;
using test::read_bytes;
using test::TemporaryDirectory;
using test::write_bytes;

/// A file that other programs could have written, by the C API.
class Hdf5 : public testing::Test {
 protected:
  /// Calls body(file) on a new file.
  template <class Body>
  void make(Body body) {
    const Session quiet;
    const Handle file(H5Fcreate(path_.c_str(), H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT), H5Fclose);
    ASSERT_TRUE(file);
    body(file.get());
  }

  /// A dataset "x"; `data` may be null: nothing is written.
  static void put(hid_t file, const std::vector<hsize_t>& extents, hid_t file_type,
                  hid_t memory_type, const void* data, hid_t properties = H5P_DEFAULT) {
    const Handle space(H5Screate_simple(static_cast<int>(extents.size()), extents.data(), nullptr),
                       H5Sclose);
    const Handle dataset(
        H5Dcreate2(file, "x", file_type, space.get(), H5P_DEFAULT, properties, H5P_DEFAULT),
        H5Dclose);
    ASSERT_TRUE(dataset);
    if (data != nullptr) {
      ASSERT_GE(H5Dwrite(dataset.get(), memory_type, H5S_ALL, H5S_ALL, H5P_DEFAULT, data), 0);
    }
  }

  void refuses(ErrorCode code, const std::string& part, std::size_t rank = 2) {
    const Reader reader(path_);
    expect_error(code, {path_.string(), "dataset x", part},
                 [&] { (void)reader.dataset("x", rank); });
  }

  /// Whether writing 400 kB says that it failed, and where.
  [[nodiscard]] bool write_fails() const {
    try {
      const std::vector<float> values(100000);
      Writer writer(path_);
      writer.write("x", {1000, 100}, Element::f32, values.data());
      writer.set("/", "text", std::string("t"));
      writer.commit();
    } catch (const Error& error) {
      const std::string sentence = error.what();
      return error.code() == ErrorCode::io && sentence.find("a.h5") != std::string::npos;
    }
    return false;
  }

  const TemporaryDirectory directory_;
  const std::filesystem::path path_ = directory_ / "a.h5";
  const std::vector<float> six_ = {0, 1, 2, 3, 4, 5};
};

Handle creation() { return {H5Pcreate(H5P_DATASET_CREATE), H5Pclose}; }

TEST_F(Hdf5, EveryTypeOfNumber) {
  const auto reads = [&](hid_t file_type, Dtype dtype) {
    make([&](hid_t file) { put(file, {2, 3}, file_type, H5T_NATIVE_FLOAT, six_.data()); });
    const Reader reader(path_);
    const auto found = reader.dataset("x", 2).read();
    EXPECT_EQ(to_string(found.dtype()), to_string(dtype));
    const auto wide = to_f32(found.view());
    const auto floats = reader.dataset("x", 2).read_floats();
    for (std::size_t i = 0; i < 6; ++i) {
      EXPECT_EQ(wide.data()[i], six_[i]);
      EXPECT_EQ(floats.data()[i], six_[i]);
    }
  };
  const Handle half = half_type();
  const Handle big_half(H5Tcopy(half.get()), H5Tclose);
  H5Tset_order(big_half.get(), H5T_ORDER_BE);
  reads(half.get(), Dtype::f16);
  reads(big_half.get(), Dtype::f32);
  reads(H5T_IEEE_F32LE, Dtype::f32);
  reads(H5T_IEEE_F32BE, Dtype::f32);
  reads(H5T_IEEE_F64LE, Dtype::f32);
  reads(H5T_STD_I8LE, Dtype::i8);
  reads(H5T_STD_U8LE, Dtype::f32);
  reads(H5T_STD_I16BE, Dtype::f32);
  reads(H5T_STD_I64LE, Dtype::f32);
}

TEST_F(Hdf5, HalvesKeepTheirBits) {
  Matrix<Half> halves(256, 256);
  for (std::size_t i = 0; i < 65536; ++i) halves.data()[i].bits = static_cast<std::uint16_t>(i);
  Writer writer(path_);
  writer.write("x", {256, 256}, Element::f16, halves.data());
  writer.commit();
  const auto found = Reader(path_).dataset("x", 2).read();
  ASSERT_EQ(found.dtype(), Dtype::f16);
  for (std::size_t i = 0; i < 256; ++i) {
    EXPECT_EQ(std::memcmp(found.view().row(i), halves.row(i), 512), 0) << "row " << i;
  }
}

TEST_F(Hdf5, CompressedChunks) {
  std::vector<float> values(100 * 30);
  std::iota(values.begin(), values.end(), 0.0F);
  make([&](hid_t file) {
    const Handle properties = creation();
    const std::array<hsize_t, 2> chunk = {16, 7};
    H5Pset_chunk(properties.get(), 2, chunk.data());
    H5Pset_shuffle(properties.get());
    H5Pset_deflate(properties.get(), 4);
    put(file, {100, 30}, H5T_IEEE_F32LE, H5T_NATIVE_FLOAT, values.data(), properties.get());
  });
  const auto found = Reader(path_).dataset("x", 2).read_floats();
  EXPECT_TRUE(std::equal(values.begin(), values.end(), found.data()));
}

TEST_F(Hdf5, WellCompressedZerosAreStillData) {
  const std::vector<float> zeros(1000 * 1000);
  make([&](hid_t file) {
    const Handle properties = creation();
    const std::array<hsize_t, 2> chunk = {1000, 1000};
    H5Pset_chunk(properties.get(), 2, chunk.data());
    H5Pset_deflate(properties.get(), 9);
    put(file, {1000, 1000}, H5T_IEEE_F32LE, H5T_NATIVE_FLOAT, zeros.data(), properties.get());
  });
  EXPECT_EQ(Reader(path_).dataset("x", 2).read_floats().row(999)[999], 0.0F);
}

TEST_F(Hdf5, Planes) {
  Writer writer(path_);
  writer.write("L2/K0/x", {3, 1, 2}, Element::f32, six_.data());
  writer.commit();
  const Reader reader(path_);
  EXPECT_TRUE(reader.has("L2/K0"));
  EXPECT_FALSE(reader.has("L2/K1/x"));
  const Dataset dataset = reader.dataset("L2/K0/x", 3);
  EXPECT_EQ(dataset.planes(), 3U);
  EXPECT_EQ(dataset.read_floats(2).row(0)[1], 5.0F);
}

TEST_F(Hdf5, WrongDatasets) {
  make([&](hid_t file) { put(file, {6}, H5T_IEEE_F32LE, H5T_NATIVE_FLOAT, six_.data()); });
  refuses(ErrorCode::corrupt, "1 dimensions, must be 2");
  make([&](hid_t file) { put(file, {}, H5T_IEEE_F32LE, H5T_NATIVE_FLOAT, six_.data()); });
  refuses(ErrorCode::corrupt, "0 dimensions, must be 3", 3);
  make([&](hid_t file) { put(file, {2, 0}, H5T_IEEE_F32LE, H5T_NATIVE_FLOAT, nullptr); });
  refuses(ErrorCode::corrupt, "2 rows of 0");
  make([&](hid_t file) { put(file, {0, 2, 2}, H5T_IEEE_F32LE, H5T_NATIVE_FLOAT, nullptr); });
  refuses(ErrorCode::corrupt, "0 planes", 3);
  make([&](hid_t) {});
  refuses(ErrorCode::corrupt, "is missing");
  make([&](hid_t file) {
    const Handle group(H5Gcreate2(file, "x", H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT), H5Gclose);
  });
  refuses(ErrorCode::corrupt, "is no dataset");
  make([&](hid_t file) {
    const Handle text(H5Tcopy(H5T_C_S1), H5Tclose);
    put(file, {2, 3}, text.get(), text.get(), "abcdef");
  });
  refuses(ErrorCode::unsupported, "must be floats or integers");
}

TEST_F(Hdf5, ExtentsWithoutBytesBehindThem) {
  const std::vector<hsize_t> huge = {1 << 30, 1 << 30};
  make([&](hid_t file) { put(file, huge, H5T_IEEE_F32LE, H5T_NATIVE_FLOAT, nullptr); });
  refuses(ErrorCode::corrupt, "0 are stored");
  make([&](hid_t file) {
    put(file, {hsize_t{1} << 33, 1}, H5T_IEEE_F32LE, H5T_NATIVE_FLOAT, nullptr);
  });
  refuses(ErrorCode::corrupt, "8589934592 rows");
  make([&](hid_t file) {  // one chunk of many is there
    const Handle properties = creation();
    const std::array<hsize_t, 2> chunk = {2, 3};
    H5Pset_chunk(properties.get(), 2, chunk.data());
    put(file, huge, H5T_IEEE_F32LE, H5T_NATIVE_FLOAT, nullptr, properties.get());
    const Handle dataset(H5Dopen2(file, "x", H5P_DEFAULT), H5Dclose);
    const Handle space(H5Dget_space(dataset.get()), H5Sclose);
    const Handle memory(H5Screate_simple(2, chunk.data(), nullptr), H5Sclose);
    const std::array<hsize_t, 2> start = {0, 0};
    H5Sselect_hyperslab(space.get(), H5S_SELECT_SET, start.data(), nullptr, chunk.data(), nullptr);
    H5Dwrite(dataset.get(), H5T_NATIVE_FLOAT, memory.get(), space.get(), H5P_DEFAULT, six_.data());
  });
  refuses(ErrorCode::corrupt, "24 are stored");
}

TEST_F(Hdf5, UnknownCompression) {
  make([&](hid_t file) {
    const Handle properties = creation();
    const std::array<hsize_t, 2> chunk = {2, 3};
    H5Pset_chunk(properties.get(), 2, chunk.data());
    H5Pset_filter(properties.get(), 32000, H5Z_FLAG_OPTIONAL, 0, nullptr);  // h5py's lzf
    put(file, {2, 3}, H5T_IEEE_F32LE, H5T_NATIVE_FLOAT, six_.data(), properties.get());
  });
  refuses(ErrorCode::unsupported, "filter 32000");
}

TEST_F(Hdf5, ElementsInOtherFiles) {
  make([&](hid_t file) {
    const Handle properties = creation();
    H5Pset_external(properties.get(), "/etc/passwd", 0, 24);
    put(file, {2, 3}, H5T_IEEE_F32LE, H5T_NATIVE_FLOAT, nullptr, properties.get());
  });
  refuses(ErrorCode::unsupported, "in other files");
}

TEST_F(Hdf5, Ids) {
  const std::vector<std::int64_t> ids = {0, -1, 0xfffffffe};
  make([&](hid_t file) { put(file, {1, 3}, H5T_STD_I64LE, H5T_NATIVE_INT64, ids.data()); });
  const auto found = Reader(path_).dataset("x", 2).read_ids();
  EXPECT_EQ(found.row(0)[1], kNoId);
  EXPECT_EQ(found.row(0)[2], 0xfffffffeU);

  for (const std::int64_t wrong : {std::int64_t{-2}, std::int64_t{1} << 32}) {
    make([&](hid_t file) { put(file, {1, 1}, H5T_STD_I64LE, H5T_NATIVE_INT64, &wrong); });
    expect_error(ErrorCode::corrupt, {"dataset x", "row 0", std::to_string(wrong)},
                 [&] { (void)Reader(path_).dataset("x", 2).read_ids(); });
  }
  make([&](hid_t file) { put(file, {2, 3}, H5T_IEEE_F32LE, H5T_NATIVE_FLOAT, six_.data()); });
  expect_error(ErrorCode::corrupt, {"dataset x", "must be integers"},
               [&] { (void)Reader(path_).dataset("x", 2).read_ids(); });
}

TEST_F(Hdf5, Attributes) {
  Writer writer(path_);
  writer.set("/", "text", std::string("keys \xc3\xa9"));
  writer.set("/", "empty", std::string());
  writer.set("/", "whole", std::size_t{7168});
  writer.set("/", "real", 0.125);
  writer.set("/", "negative", -1.0);
  writer.commit();
  const Reader reader(path_);
  EXPECT_EQ(reader.text("/", "text"), "keys \xc3\xa9");
  EXPECT_EQ(reader.text("/", "empty"), "");
  EXPECT_EQ(reader.count("/", "whole"), 7168U);
  EXPECT_EQ(reader.number("/", "whole"), 7168.0);
  EXPECT_EQ(reader.number("/", "real"), 0.125);
  EXPECT_EQ(reader.text("/", "absent"), std::nullopt);
  EXPECT_EQ(reader.number("L7", "whole"), std::nullopt);
  const auto refuses_attribute = [&](const std::string& part, auto read) {
    expect_error(ErrorCode::corrupt, {path_.string(), part}, read);
  };
  refuses_attribute("attribute whole: must be text", [&] { (void)reader.text("/", "whole"); });
  refuses_attribute("attribute text: must be a finite", [&] { (void)reader.number("/", "text"); });
  refuses_attribute("attribute real: is 0.125", [&] { (void)reader.count("/", "real"); });
  refuses_attribute("attribute negative: is -1", [&] { (void)reader.count("/", "negative"); });
}

TEST_F(Hdf5, AttributesOfOtherPrograms) {
  make([&](hid_t file) {
    const auto put_attribute = [&](const char* name, hid_t type, const void* value,
                                   hsize_t count = 1) {
      const Handle space(H5Screate_simple(1, &count, nullptr), H5Sclose);
      const Handle attribute(H5Acreate2(file, name, type, space.get(), H5P_DEFAULT, H5P_DEFAULT),
                             H5Aclose);
      ASSERT_GE(H5Awrite(attribute.get(), type, value), 0);
    };
    const Handle variable(H5Tcopy(H5T_C_S1), H5Tclose);
    H5Tset_size(variable.get(), H5T_VARIABLE);
    const char* letters = "of any length";
    put_attribute("variable", variable.get(), static_cast<const void*>(&letters));
    const Handle padded(H5Tcopy(H5T_FORTRAN_S1), H5Tclose);
    H5Tset_size(padded.get(), 6);
    put_attribute("padded", padded.get(), "abc   ");
    const std::uint8_t byte = 200;
    put_attribute("byte", H5T_NATIVE_UINT8, &byte);
    const std::array<double, 2> two = {1, 2};
    put_attribute("two", H5T_NATIVE_DOUBLE, two.data(), 2);
  });
  const Reader reader(path_);
  EXPECT_EQ(reader.text("/", "variable"), "of any length");
  EXPECT_EQ(reader.text("/", "padded"), "abc");
  EXPECT_EQ(reader.count("/", "byte"), 200U);
  expect_error(ErrorCode::corrupt, {"attribute two: must be a single value"},
               [&] { (void)reader.number("/", "two"); });
}

TEST_F(Hdf5, FilesThatAreNone) {
  expect_error(ErrorCode::io, {"a.h5", "No such file"}, [&] { const Reader reader(path_); });
  write_bytes(path_, {});
  expect_error(ErrorCode::corrupt, {"a.h5"}, [&] { const Reader reader(path_); });
  write_bytes(path_, std::string(5000, 'x'));
  expect_error(ErrorCode::corrupt, {"a.h5", "signature"}, [&] { const Reader reader(path_); });
  expect_error(ErrorCode::io, {"a directory"}, [&] { const Reader reader(directory_.path()); });
}

TEST_F(Hdf5, EveryTruncationIsAnError) {
  Writer writer(path_);
  writer.write("x", {2, 3}, Element::f32, six_.data());
  writer.commit();
  const auto bytes = read_bytes(path_);
  for (std::size_t length = 0; length < bytes.size(); length += 7) {
    write_bytes(path_, std::span(bytes).first(length));
    expect_error(ErrorCode::corrupt, {path_.string()},
                 [&] { (void)Reader(path_).dataset("x", 2).read(); });
  }
}

TEST_F(Hdf5, SameContentSameBytes) {
  const auto write = [&](const std::string& name) {
    Writer writer(directory_ / name);
    writer.write("L1/x", {2, 3}, Element::f32, six_.data());
    writer.set("/", "text", std::string("t"));
    writer.commit();
    return read_bytes(directory_ / name);
  };
  EXPECT_EQ(write("a.h5"), write("b.h5"));
}

TEST_F(Hdf5, AFailedWriteLeavesTheOldFile) {
  write_bytes(path_, std::string("old"));
  for (const rlim_t limit : {100U, 6000U, 300000U}) {
    const pid_t child = ::fork();
    if (child == 0) {
      std::signal(SIGXFSZ, SIG_IGN);
      const rlimit limits{limit, limit};
      ::setrlimit(RLIMIT_FSIZE, &limits);
      const bool failed = write_fails();
      H5close();  // as at the end of a process; HDF5 crashes here after a write of its own failed
      ::_exit(failed ? 0 : 1);
    }
    int status = 0;
    ::waitpid(child, &status, 0);
    EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << limit << ": " << status;
    EXPECT_EQ(read_bytes(path_).size(), 3U);
    EXPECT_EQ(directory_.names(), std::vector<std::string>{"a.h5"});
  }
}

TEST_F(Hdf5, ThreadsTakeTurns) {
  {
    Writer writer(path_);  // keeps other threads out while it lives
    writer.write("x", {2, 3}, Element::f32, six_.data());
    writer.commit();
  }
  std::vector<std::jthread> threads;
  threads.reserve(4);
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&] {
      for (int i = 0; i < 20; ++i) {
        EXPECT_EQ(Reader(path_).dataset("x", 2).read_floats().row(1)[2], 5.0F);
      }
    });
  }
}

}  // namespace
}  // namespace keyseek::io::hdf5
