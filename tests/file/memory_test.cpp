// What a file would hold, in memory.
#include <gtest/gtest.h>

#include "file/container.hpp"
#include "file/temporary_directory.hpp"
#include "keyseek/decode.hpp"
#include "keyseek/index.hpp"
#include "support/decode_head.hpp"
#include "support/indexes.hpp"
#include "support/search_run.hpp"

namespace keyseek {
namespace {

using test::any;
using test::normal_matrix;

template <class T>
void expect_as_file(const T& value) {
  const test::TemporaryDirectory folder;
  value.save(folder / "file.ks");
  const test::Bytes file = test::read_bytes(folder / "file.ks");
  const std::vector<std::byte> bytes = value.to_bytes();
  ASSERT_EQ(bytes.size(), file.size());
  EXPECT_EQ(std::memcmp(bytes.data(), file.data(), file.size()), 0);
  EXPECT_EQ(T::from_bytes(bytes).to_bytes(), bytes);
}

TEST(BytesInMemory, AreThoseOfTheFile) {
  const Matrix<float> keys = normal_matrix(200, 16, 1), queries = normal_matrix(100, 16, 2);
  TrainingQueries training;
  training.train = normal_matrix(100, 16, 2);
  expect_as_file(test::flat_index(any(keys)));
  expect_as_file(test::sketch_index(any(keys), queries));
  expect_as_file(test::projection_index(any(keys), training, {.list_length = 20}));
  test::DecodeHead head = test::normal_head(200, 2);
  head.params.sink = 4;
  head.params.window = 8;
  head.params.shift = false;
  head.params.given = GivenPlan{.retriever = Retriever::flat, .k = 8};
  expect_as_file(head.prefill(150, head.params));
}

TEST(BytesInMemory, EveryFaultIsNamed) {
  const std::vector<std::byte> whole = test::flat_index(any(normal_matrix(40, 8, 1))).to_bytes();
  for (const std::size_t size : {std::size_t{0}, std::size_t{7}, whole.size() - 1})
    test::expect_error(ErrorCode::corrupt, {"bytes in memory"},
                       [&] { static_cast<void>(Index::from_bytes(std::span(whole).first(size))); });
  for (std::size_t i = 0; i < whole.size(); i += 37) {
    std::vector<std::byte> bytes = whole;
    bytes[i] ^= std::byte{1};
    EXPECT_THROW(static_cast<void>(Index::from_bytes(bytes)), Error) << "byte " << i;
  }
  test::expect_error(ErrorCode::corrupt, {"bytes in memory"},
                     [&] { static_cast<void>(HeadCache::from_bytes(whole)); });
}

}  // namespace
}  // namespace keyseek
