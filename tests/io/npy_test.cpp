#include <gtest/gtest.h>

#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <vector>

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
std::string raw(const std::vector<T>& values) {
  return {reinterpret_cast<const char*>(values.data()), values.size() * sizeof(T)};
}

/// A file of the given version with `dictionary` as header.
std::string npy(int version, const std::string& dictionary, const std::string& data) {
  std::string bytes = "\x93NUMPY";
  bytes += static_cast<char>(version);
  bytes += '\0';
  const auto length = static_cast<std::uint32_t>(dictionary.size());
  bytes += raw(std::vector{length}).substr(0, version == 1 ? 2 : 4);
  return bytes + dictionary + data;
}

class Npy : public testing::Test {
 protected:
  AnyMatrix vectors(const std::string& bytes) {
    write_bytes(path_, bytes);
    return read_vectors(path_);
  }
  Matrix<Id> ids(const std::string& bytes) {
    write_bytes(path_, bytes);
    return read_ids(path_);
  }
  void refuses(ErrorCode code, const std::string& part, const std::string& bytes) {
    SCOPED_TRACE(bytes);
    expect_error(code, {path_.string(), part}, [&] { (void)vectors(bytes); });
  }

  const TemporaryDirectory directory_;
  const std::filesystem::path path_ = directory_ / "a.npy";
  const std::string six_ = raw<float>({0, 1, 2, 3, 4, 5});
};

TEST_F(Npy, AsNumPyWritesIt) {
  // numpy.save of arange(6, dtype='f4').reshape(2, 3)
  std::string dictionary = "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }";
  dictionary.resize(128 - 10 - 1, ' ');
  const std::string golden = npy(1, dictionary + '\n', six_);
  const auto read = vectors(golden);
  ASSERT_EQ(read.rows(), 2U);
  ASSERT_EQ(read.cols(), 3U);
  EXPECT_EQ(static_cast<const float*>(read.view().row(1))[2], 5.0F);
  write_vectors(path_, read.view());
  EXPECT_EQ(read_bytes(path_), Bytes(golden.begin(), golden.end()));
}

TEST_F(Npy, HeadersThatOtherProgramsWrite) {
  for (const std::string dictionary : {
           "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3)}",
           "{'shape':(2,3),'fortran_order':False,'descr':'<f4'}\n",
           "{\"descr\": \"<f4\", \"fortran_order\": False, \"shape\": (2, 3,),}   \n",
           "{ 'descr' : '=f4' , 'fortran_order' : False , 'shape' : ( 2 , 3 ) , }",
       }) {
    for (const int version : {1, 2, 3}) {
      SCOPED_TRACE(dictionary);
      EXPECT_EQ(vectors(npy(version, dictionary, six_)).cols(), 3U);
    }
  }
}

TEST_F(Npy, DoublesBecomeFloats) {
  const auto read = vectors(npy(1, "{'descr': '<f8', 'fortran_order': False, 'shape': (1, 2), }",
                                raw<double>({0.1, -2})));
  ASSERT_EQ(read.dtype(), Dtype::f32);
  EXPECT_EQ(static_cast<const float*>(read.view().row(0))[0], 0.1F);
}

TEST_F(Npy, UnsupportedArrays) {
  const auto with = [&](const std::string& type, const std::string& fortran,
                        const std::string& shape) {
    return npy(
        1, "{'descr': '" + type + "', 'fortran_order': " + fortran + ", 'shape': " + shape + ", }",
        six_);
  };
  refuses(ErrorCode::unsupported, "Fortran order", with("<f4", "True", "(2, 3)"));
  refuses(ErrorCode::unsupported, "'>f4' is big-endian", with(">f4", "False", "(2, 3)"));
  refuses(ErrorCode::unsupported, "'c8'", with("<c8", "False", "(1, 3)"));
  refuses(ErrorCode::unsupported, "'U2'", with("<U2", "False", "(3, 4)"));
  refuses(ErrorCode::unsupported, "1 dimensions", with("<f4", "False", "(6,)"));
  refuses(ErrorCode::unsupported, "3 dimensions", with("<f4", "False", "(1, 2, 3)"));
  refuses(ErrorCode::unsupported, "version 4", npy(4, "{}", ""));
  refuses(ErrorCode::corrupt, "0 rows", with("<f4", "False", "(0, 3)"));
  refuses(ErrorCode::corrupt, "do not match", with("<f4", "False", "(2, 4)"));
  refuses(ErrorCode::corrupt, "do not match", with("<f4", "False", "(2, 2)"));
  refuses(ErrorCode::corrupt, "18446744073709551615",
          with("<f4", "False", "(2, 18446744073709551615)"));
}

TEST_F(Npy, MalformedHeaders) {
  refuses(ErrorCode::corrupt, "wrong magic", "");
  refuses(ErrorCode::corrupt, "wrong magic", "\x93NUMPX and more than twelve bytes");
  refuses(ErrorCode::corrupt, "npy header of", npy(2, "{", "").substr(0, 8) + "\xff\xff\xff\xff{}");
  for (const std::string dictionary : {
           "",
           "{",
           "{}",
           "[]",
           "{'descr': '<f4'",
           "{'descr': '<f4}",
           "{'descr': '<f4', 'shape': (2, 3)}",
           "{'descr': '<f4', 'fortran_order': false, 'shape': (2, 3)}",
           "{'descr': '<f4', 'fortran_order': False, 'shape': (2, -3)}",
           "{'descr': '<f4', 'fortran_order': False, 'shape': (2 3)}",
           "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 99999999999999999999)}",
           "{'descr': [('x', '<f4')], 'fortran_order': False, 'shape': (2, 3)}",
           "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), 'more': 1}",
       }) {
    refuses(ErrorCode::corrupt, "malformed", npy(1, dictionary, six_));
  }
}

TEST_F(Npy, IdsOfEveryWidth) {
  const auto read = [&](const std::string& type, const std::string& data) {
    return ids(
        npy(1, "{'descr': '" + type + "', 'fortran_order': False, 'shape': (1, 2), }", data));
  };
  for (const auto& found :
       {read("<i4", raw<std::int32_t>({7, -1})), read("<u4", raw<std::uint32_t>({7, kNoId})),
        read("<i8", raw<std::int64_t>({7, -1})), read("<u8", raw<std::uint64_t>({7, kNoId}))}) {
    EXPECT_EQ(found.row(0)[0], 7U);
    EXPECT_EQ(found.row(0)[1], kNoId);
  }
  const auto refuses_id = [&](const std::string& part, const std::string& type,
                              const std::string& data) {
    expect_error(ErrorCode::corrupt, {"row 0", part}, [&] { (void)read(type, data); });
  };
  refuses_id("-2", "<i4", raw<std::int32_t>({7, -2}));
  refuses_id("-2", "<i8", raw<std::int64_t>({7, -2}));
  refuses_id("4294967296", "<i8", raw<std::int64_t>({7, 4294967296}));
  refuses_id("18446744073709551615", "<u8", raw<std::uint64_t>({7, ~std::uint64_t{0}}));
  expect_error(ErrorCode::unsupported, {"'f4'", "ids must be"}, [&] {
    (void)read("<f4", raw<float>({1, 2}));
  });
}

}  // namespace
}  // namespace keyseek::io
