// Vectors and ids as other programs write them, and whether parts from several files fit.
#include <gtest/gtest.h>

#include <cstdint>
#include <cstring>
#include <limits>
#include <numeric>

#include "file/temporary_directory.hpp"
#include "keyseek/io.hpp"

namespace keyseek::io {
namespace {

using test::Bytes;
using test::expect_error;
using test::read_bytes;
using test::TemporaryDirectory;
using test::write_bytes;

Matrix<float> counted(std::size_t rows, std::size_t cols) {
  Matrix<float> m(rows, cols);
  std::iota(m.data(), m.data() + rows * cols, 0.0F);
  return m;
}

AnyMatrixView any(const Matrix<float>& m) { return AnyMatrixView::of(m.view()); }

void expect_floats(const AnyMatrix& read, const Matrix<float>& m) {
  ASSERT_EQ(read.dtype(), Dtype::f32);
  ASSERT_EQ(read.rows(), m.rows());
  ASSERT_EQ(read.cols(), m.cols());
  EXPECT_EQ(std::memcmp(read.view().data, m.data(), read.bytes()), 0);
}

void add(Bytes& bytes, const auto& value) {
  const auto* const from = reinterpret_cast<const char*>(&value);
  bytes.insert(bytes.end(), from, from + sizeof(value));
}

TEST(OwnData, FvecsAndBvecsRoundTrip) {
  const TemporaryDirectory directory;
  const auto small = counted(5, 3), large = counted(3000, 200);
  for (const std::string name : {"a.fvecs", "a.bvecs", "a.u8bin", "A.FVECS", "b.hdf5:train"}) {
    SCOPED_TRACE(name);
    write_vectors(directory / name, any(small));
    expect_floats(read_vectors(directory / name), small);
  }
  write_vectors(directory / "large.fvecs", any(large));
  expect_floats(read_vectors(directory / "large.fvecs"), large);
  // The only dataset needs no name.
  expect_floats(read_vectors(directory / "b.hdf5"), small);
}

TEST(OwnData, FvecsRepeatTheDimension) {
  const TemporaryDirectory directory;
  Bytes expected;
  for (const float x : {1.0F, 3.0F}) {
    add(expected, std::uint32_t{2});
    add(expected, x);
    add(expected, x + 1);
  }
  Matrix<float> m(2, 2);
  std::iota(m.data(), m.data() + 4, 1.0F);
  write_vectors(directory / "a.fvecs", any(m));
  EXPECT_EQ(read_bytes(directory / "a.fvecs"), expected);
}

TEST(OwnData, RaggedAndShortVecsAreRefused) {
  const TemporaryDirectory directory;
  const auto path = directory / "a.fvecs";
  Bytes ragged;
  for (const std::uint32_t d : {2U, 3U, 1U}) {
    add(ragged, d);
    for (std::uint32_t j = 0; j < d; ++j) add(ragged, 1.0F);
  }
  write_bytes(path, ragged);
  expect_error(ErrorCode::corrupt, {"a.fvecs", "row 1 has dimension 3", "row 0 has 2"},
               [&] { (void)read_vectors(path); });
  write_vectors(path, any(counted(2, 3)));
  const auto bytes = read_bytes(path);
  for (std::size_t length = 0; length < bytes.size(); ++length) {
    if (length == bytes.size() / 2) continue;  // a row less is a file of its own
    write_bytes(path, std::span(bytes).first(length));
    expect_error(ErrorCode::corrupt, {"a.fvecs"}, [&] { (void)read_vectors(path); });
  }
}

TEST(OwnData, OnlyWholeNumbersAreBytes) {
  const TemporaryDirectory directory;
  for (const float bad : {-1.0F, 256.0F, 0.5F, std::numeric_limits<float>::quiet_NaN()}) {
    Matrix<float> m(2, 1);
    m.row(1)[0] = bad;
    expect_error(ErrorCode::invalid_argument, {"row 1", "whole number from 0 to 255"},
                 [&] { write_vectors(directory / "a.bvecs", any(m)); });
  }
  EXPECT_FALSE(std::filesystem::exists(directory / "a.bvecs"));
}

TEST(OwnData, NpyOfUnsignedBytes) {
  const TemporaryDirectory directory;
  const std::string header = "{'descr': '|u1', 'fortran_order': False, 'shape': (1, 2), }\n";
  Bytes bytes;
  for (const char c : std::string("\x93NUMPY\x01\x00", 8)) add(bytes, c);
  add(bytes, static_cast<std::uint16_t>(header.size()));
  for (const char c : header) add(bytes, c);
  add(bytes, std::uint8_t{3});
  add(bytes, std::uint8_t{255});
  write_bytes(directory / "a.npy", bytes);
  Matrix<float> expected(1, 2);
  expected.row(0)[0] = 3;
  expected.row(0)[1] = 255;
  expect_floats(read_vectors(directory / "a.npy"), expected);
}

TEST(OwnData, IdsRoundTrip) {
  const TemporaryDirectory directory;
  Matrix<Id> ids(2, 2);
  ids.row(0)[1] = 7;
  ids.row(1)[0] = kNoId;
  for (const std::string name : {"a.ivecs", "a.hdf5:neighbors"}) {
    write_ids(directory / name, ids);
    const auto back = read_ids(directory / name);
    EXPECT_EQ(std::memcmp(back.data(), ids.data(), 16), 0) << name;
  }
  ids.row(1)[1] = 0x80000000U;
  expect_error(ErrorCode::invalid_argument, {"row 1", "2147483648"},
               [&] { write_ids(directory / "b.ivecs", ids); });
}

TEST(OwnData, DatasetsAreNamed) {
  const TemporaryDirectory directory;
  Benchmark b;
  b.keys = AnyMatrix::copy_of(any(counted(4, 2)));
  b.queries = counted(3, 2);
  write_benchmark(directory / "b.hdf5", b);
  EXPECT_EQ(read_vectors(directory / "b.hdf5:test").rows(), 3U);
  expect_error(ErrorCode::invalid_argument, {"b.hdf5", "test, train", "b.hdf5:train"},
               [&] { (void)read_vectors(directory / "b.hdf5"); });
  expect_error(ErrorCode::invalid_argument, {"no dataset 'learn'", "test, train"},
               [&] { (void)read_vectors(directory / "b.hdf5:learn"); });
  expect_error(ErrorCode::invalid_argument, {"b.hdf5", "is there already"},
               [&] { write_vectors(directory / "b.hdf5:more", any(counted(1, 1))); });
  expect_error(ErrorCode::invalid_argument, {"one dataset"},
               [&] { (void)read_data((directory / "b.hdf5:train").string(), {}); });
}

TEST(OwnData, PartsHaveToFit) {
  Benchmark b;
  b.keys = AnyMatrix::copy_of(any(counted(4, 2)));
  b.queries = counted(4, 2);
  b.group = 2;
  b.truth_ids = Matrix<Id>(4, 1);
  const PartNames names{.keys = "k.fbin", .queries = "q.npy", .train = "t.npy", .truth = "i.ibin"};
  EXPECT_NO_THROW(require_matching(b, names));
  const auto refuses = [&](const auto& change, const std::vector<std::string>& parts,
                           ErrorCode code = ErrorCode::invalid_argument) {
    Benchmark bad = b;
    change(bad);
    expect_error(code, parts, [&] { require_matching(bad, names); });
  };
  refuses([](Benchmark& x) { x.queries = counted(4, 3); },
          {"q.npy has dimension 3", "k.fbin has 2"});
  refuses([](Benchmark& x) { x.queries = counted(3, 2); }, {"q.npy has 3 rows", "group = 2"});
  refuses([](Benchmark& x) { x.learn = counted(4, 1); }, {"t.npy has dimension 1"});
  refuses([](Benchmark& x) { x.truth_ids = Matrix<Id>(2, 1); },
          {"i.ibin has 2 rows", "q.npy has 4"});
  refuses([](Benchmark& x) { x.truth_ids.row(3)[0] = 4; }, {"i.ibin", "4"});
  refuses([](Benchmark& x) { x.queries.row(2)[1] = std::numeric_limits<float>::infinity(); },
          {"q.npy", "row 2"}, ErrorCode::not_finite);
}

TEST(OwnData, PlainQueriesAreHeldOutInSteps) {
  const TrainingQueries set = training_set(counted(30, 2).view(), 3);
  EXPECT_EQ(set.train.rows(), 24U);
  EXPECT_EQ(set.tuning.rows(), 6U);
  EXPECT_EQ(set.tuning.row(0)[0], 24.0F);  // the fifth step's first row is row 12
  EXPECT_EQ(set.group, 3U);
  EXPECT_EQ(set.tuning_steps, 1U);
  EXPECT_TRUE(training_set(counted(4, 2).view()).tuning.empty());
  expect_error(ErrorCode::invalid_argument, {"queries has 4 rows", "group = 3"},
               [] { (void)training_set(counted(4, 2).view(), 3); });
}

}  // namespace
}  // namespace keyseek::io
