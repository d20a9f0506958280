#include <gtest/gtest.h>

#include <array>
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

template <class T>
Matrix<T> counted(std::size_t rows, std::size_t cols) {
  Matrix<T> m(rows, cols);
  std::iota(m.data(), m.data() + rows * cols, T{0});
  return m;
}

Matrix<Half> halves(std::size_t rows, std::size_t cols) {
  Matrix<Half> m(rows, cols);
  for (std::size_t i = 0; i < rows * cols; ++i) m.data()[i] = to_half(static_cast<float>(i) / 8);
  return m;
}

template <class T>
AnyMatrixView any(const Matrix<T>& m) {
  return AnyMatrixView::of(m.view());
}

void expect_same(AnyMatrixView a, AnyMatrixView b) {
  ASSERT_EQ(to_string(a.dtype), to_string(b.dtype));
  ASSERT_EQ(a.rows, b.rows);
  ASSERT_EQ(a.cols, b.cols);
  for (std::size_t i = 0; i < a.rows; ++i) {
    EXPECT_EQ(std::memcmp(a.row(i), b.row(i), a.cols * size_of(a.dtype)), 0) << "row " << i;
  }
}

/// A header of two u32, then `body`.
template <class T>
Bytes bin(std::uint32_t rows, std::uint32_t cols, const std::vector<T>& body) {
  Bytes bytes(8 + body.size() * sizeof(T));
  std::memcpy(bytes.data(), &rows, 4);
  std::memcpy(bytes.data() + 4, &cols, 4);
  if (!body.empty()) std::memcpy(bytes.data() + 8, body.data(), body.size() * sizeof(T));
  return bytes;
}

TEST(Vectors, RoundTripInEveryFormat) {
  const TemporaryDirectory directory;
  const auto floats = counted<float>(5, 3);
  const auto bytes = counted<std::int8_t>(7, 2);
  const auto half = halves(4, 6);
  const auto keeps = [&](const std::string& name, AnyMatrixView vectors) {
    SCOPED_TRACE(name);
    write_vectors(directory / name, vectors);
    expect_same(read_vectors(directory / name).view(), vectors);
  };
  keeps("a.fbin", any(floats));
  keeps("a.f16bin", any(half));
  keeps("a.i8bin", any(bytes));
  keeps("f.npy", any(floats));
  keeps("h.npy", any(half));
  keeps("b.npy", any(bytes));
  keeps("A.FBIN", any(floats));
}

TEST(Vectors, LargerThanABlockRoundTrips) {
  const TemporaryDirectory directory;
  const auto floats = counted<float>(3000, 200);
  write_vectors(directory / "a.fbin", any(floats));
  expect_same(read_vectors(directory / "a.fbin").view(), any(floats));
}

TEST(Vectors, FbinIsTwoCountsAndRows) {
  const TemporaryDirectory directory;
  write_vectors(directory / "a.fbin", any(counted<float>(2, 2)));
  EXPECT_EQ(read_bytes(directory / "a.fbin"), bin<float>(2, 2, {0, 1, 2, 3}));
}

TEST(Vectors, U8binIsReadAsFloats) {
  const TemporaryDirectory directory;
  write_bytes(directory / "a.u8bin", bin<std::uint8_t>(1, 3, {0, 128, 255}));
  const auto vectors = read_vectors(directory / "a.u8bin");
  ASSERT_EQ(vectors.dtype(), Dtype::f32);
  const auto* const row = static_cast<const float*>(vectors.view().row(0));
  EXPECT_EQ(row[1], 128.0F);
  EXPECT_EQ(row[2], 255.0F);
}

TEST(Vectors, WrittenAsTheExtensionSays) {
  const TemporaryDirectory directory;
  const auto half = halves(3, 5);
  write_vectors(directory / "a.fbin", any(half));
  expect_same(read_vectors(directory / "a.fbin").view(), any(to_f32(any(half))));
  write_vectors(directory / "a.f16bin", any(to_f32(any(half))));
  expect_same(read_vectors(directory / "a.f16bin").view(), any(half));

  Matrix<BFloat16> brain(1, 2);
  brain.row(0)[1] = to_bfloat16(1.5F);
  write_vectors(directory / "b.npy", any(brain));  // NumPy has no bf16
  expect_same(read_vectors(directory / "b.npy").view(), any(to_f32(any(brain))));
}

TEST(Vectors, StridedRowsAreWrittenWithoutGaps) {
  const TemporaryDirectory directory;
  const auto wide = counted<float>(4, 6);
  const auto left = AnyMatrixView::of(MatrixView<float>(wide.data(), 4, 2, 6));
  write_vectors(directory / "a.fbin", left);
  expect_same(read_vectors(directory / "a.fbin").view(), left);
}

TEST(Vectors, EveryTruncationIsRefused) {
  const TemporaryDirectory directory;
  for (const std::string name : {"a.fbin", "a.npy"}) {
    write_vectors(directory / name, any(counted<float>(2, 3)));
    const auto bytes = read_bytes(directory / name);
    for (std::size_t length = 0; length < bytes.size(); ++length) {
      write_bytes(directory / name, std::span(bytes).first(length));
      expect_error(ErrorCode::corrupt, {name}, [&] { (void)read_vectors(directory / name); });
    }
  }
}

TEST(Vectors, SizesAreCheckedBeforeAnythingIsAllocated) {
  const TemporaryDirectory directory;
  const auto path = directory / "a.fbin";
  const auto refuses = [&](std::uint32_t rows, std::uint32_t cols, const std::string& part) {
    write_bytes(path, bin<float>(rows, cols, {1, 2, 3, 4}));
    expect_error(ErrorCode::corrupt, {path.string(), part}, [&] { (void)read_vectors(path); });
  };
  refuses(0, 4, "0 rows of 4");
  refuses(4, 0, "4 rows of 0");
  refuses(2, 3, "2 rows of 3");
  refuses(1, 3, "1 rows of 3");
  refuses(0xffffffff, 0xffffffff, "4294967295 rows of 4294967295");
  refuses(0x80000000, 0x80000000, "2147483648 rows of 2147483648");  // 2^64 bytes: 0 in 64 bits
  refuses(0xfffffff0, 1, "do not match");
}

TEST(Vectors, WrongFilesAreNamed) {
  const TemporaryDirectory directory;
  expect_error(ErrorCode::io, {"a.fbin", "No such file"},
               [&] { (void)read_vectors(directory / "a.fbin"); });
  expect_error(ErrorCode::invalid_argument, {"'.bin'", ".fbin"},
               [&] { (void)read_vectors(directory / "a.bin"); });
  std::filesystem::create_directory(directory / "d.fbin");
  expect_error(ErrorCode::io, {"a directory"}, [&] { (void)read_vectors(directory / "d.fbin"); });
}

TEST(Vectors, WhatCannotBeWrittenLeavesNoFile) {
  const TemporaryDirectory directory;
  const auto refuses = [&](const std::string& name, AnyMatrixView vectors,
                           const std::vector<std::string>& parts) {
    expect_error(ErrorCode::invalid_argument, parts,
                 [&] { write_vectors(directory / name, vectors); });
  };
  const auto floats = counted<float>(2, 2);
  refuses("a.i8bin", any(floats), {"vectors are f32", "as i8"});
  refuses("a.f16bin", any(counted<std::int8_t>(2, 2)), {"vectors are i8", "as f16"});
  refuses("a.f64bin", any(floats), {"'.f64bin'"});
  refuses("a", any(floats), {"''"});
  refuses("a.fbin", any(Matrix<float>()), {"0 x 0"});
  Matrix<float> large(3, 2);
  large.row(1)[1] = 70000;
  refuses("a.f16bin", any(large), {"row 1", "70000"});
  EXPECT_TRUE(directory.names().empty());
}

TEST(Ids, RoundTripWithNoId) {
  const TemporaryDirectory directory;
  Matrix<Id> ids(2, 2);
  ids.row(0)[1] = 0xfffffffe;
  ids.row(1)[0] = kNoId;
  for (const std::string name : {"a.ibin", "a.npy"}) {
    write_ids(directory / name, ids);
    expect_same(AnyMatrixView{.data = read_ids(directory / name).data(),
                              .dtype = Dtype::f32,  // compared bit by bit
                              .rows = 2,
                              .cols = 2,
                              .stride = 2},
                AnyMatrixView{ids.data(), Dtype::f32, 2, 2, 2});
  }
}

TEST(Ids, WrongFilesAreRefused) {
  const TemporaryDirectory directory;
  expect_error(ErrorCode::invalid_argument, {"'.fbin'", ".ibin"},
               [&] { (void)read_ids(directory / "a.fbin"); });
  expect_error(ErrorCode::invalid_argument, {"'.fbin'"},
               [&] { write_ids(directory / "a.fbin", Matrix<Id>(1, 1)); });
  expect_error(ErrorCode::invalid_argument, {"ids are 0 x 0"},
               [&] { write_ids(directory / "a.ibin", Matrix<Id>()); });
  write_bytes(directory / "a.ibin", bin<Id>(2, 2, {1, 2, 3}));
  expect_error(ErrorCode::corrupt, {"a.ibin", "2 rows of 2"},
               [&] { (void)read_ids(directory / "a.ibin"); });
}

}  // namespace
}  // namespace keyseek::io
