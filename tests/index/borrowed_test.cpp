// Vectors that lie all over somebody else's memory are read as if they lay one behind the other.
#include <gtest/gtest.h>

#include <utility>
#include <vector>

#include "file/temporary_directory.hpp"
#include "keyseek/error.hpp"
#include "keyseek/index.hpp"
#include "score/rows.hpp"
#include "support/random_data.hpp"
#include "support/reference.hpp"

namespace keyseek {
namespace {

using test::normal_matrix;
using test::stored_as;

constexpr std::size_t kRows = 700, kCols = 19, kStride = 2 * kCols;

/// `m` copied, and the same rows in every second place of a larger piece of memory, backwards.
struct Both {
  explicit Both(Dtype dtype) {
    const Matrix<float> wide = normal_matrix(kRows, kStride, 5);
    const AnyMatrix memory = stored_as(wide, dtype);
    AlignedVector<Id> slots(kRows);
    for (std::size_t i = 0; i < kRows; ++i) slots[i] = static_cast<Id>(kRows - 1 - i);
    borrowed = AnyMatrix::borrowed(memory.shared_bytes(), dtype, SharedArray(std::move(slots)),
                                   kCols, kStride);
    copied = AnyMatrix::copy_of(borrowed.view());
  }
  AnyMatrix borrowed, copied;
};

std::vector<std::byte> bytes_of(AnyMatrixView m) {
  std::vector<std::byte> out(m.rows * m.row_bytes());
  EXPECT_EQ(copy_rows(m, out.data()), out.data() + out.size());
  return out;
}

TEST(Borrowed, IsReadAsACopyIs) {
  for (const Dtype dtype : {Dtype::f32, Dtype::f16, Dtype::bf16, Dtype::i8}) {
    const Both both(dtype);
    const AnyMatrixView borrowed = both.borrowed.view(), copied = both.copied.view();
    EXPECT_FALSE(borrowed.is_dense());
    EXPECT_TRUE(copied.is_dense());
    EXPECT_TRUE(bytes_of(borrowed) == bytes_of(copied));
    EXPECT_TRUE(bytes_of(borrowed.slice(3, 40)) == bytes_of(copied.slice(3, 40)));
    EXPECT_EQ(test::elements(to_f32(borrowed)), test::elements(to_f32(copied)));
    EXPECT_EQ(largest_magnitude(borrowed), largest_magnitude(copied));
    EXPECT_EQ(both.borrowed.bytes(), both.copied.bytes());
    EXPECT_EQ(both.borrowed.owned_bytes(), kRows * sizeof(Id));
    EXPECT_EQ(both.copied.owned_bytes(), both.copied.bytes());
    EXPECT_TRUE(bytes_of(AnyMatrix::look_at(borrowed).view()) == bytes_of(copied));
  }
}

TEST(Borrowed, PartsAreBorrowedToo) {
  const Both both(Dtype::bf16);
  const std::vector<std::size_t> some = {9, 2, 699};
  const auto same = [](const AnyMatrix& a, const AnyMatrix& b, bool is_borrowed) {
    EXPECT_EQ(a.is_borrowed(), is_borrowed);
    EXPECT_FALSE(b.is_borrowed());
    EXPECT_EQ(a.rows(), b.rows());
    EXPECT_TRUE(bytes_of(a.view()) == bytes_of(b.view()));
  };
  same(both.borrowed.at(some), both.copied.at(some), true);
  same(both.borrowed.first(17), both.copied.first(17), true);
  const AnyMatrixView more = both.borrowed.view().slice(100, 30);
  same(both.borrowed.joined(more), both.copied.joined(both.copied.view().slice(100, 30)), true);
  same(both.borrowed.first(0).joined(more), both.copied.at({}).joined(more), true);
  same(both.borrowed.first(3).joined(more.slice(0, 0)), both.copied.first(3), true);
  test::expect_error(ErrorCode::invalid_argument, {"not of their memory"},
                     [&] { (void)both.borrowed.joined(both.copied.view()); });
}

TEST(Borrowed, RowsWithGapsAreLookedAt) {
  const Matrix<float> wide = normal_matrix(kRows, kStride, 5);
  const AnyMatrixView rows = {wide.data(), Dtype::f32, kRows, kCols, kStride};
  const AnyMatrix looked_at = AnyMatrix::look_at(rows);
  EXPECT_EQ(looked_at.view().row(7), wide.row(7));
  EXPECT_EQ(looked_at.first(9).view().row(7), wide.row(7));
  EXPECT_TRUE(bytes_of(looked_at.view()) == bytes_of(AnyMatrix::copy_of(rows).view()));
}

TEST(Borrowed, IsScoredAndSummedAsACopyIs) {
  std::vector<Id> ids(kRows);
  for (std::size_t i = 0; i < kRows; ++i) ids[i] = static_cast<Id>(i * 33 % kRows);
  for (const Dtype dtype : {Dtype::f32, Dtype::f16, Dtype::bf16}) {
    const Both both(dtype);
    for (const std::size_t group : {1U, 3U, 9U}) {
      const Matrix<float> queries = normal_matrix(group, kCols, 8);
      const Matrix<float> weights = normal_matrix(kRows, group, 9);
      const auto results = [&](AnyMatrixView m, bool named) {
        const RowsView rows = named ? rows_of(m, ids) : rows_of(m);
        std::vector<float> out(kRows * group), sums(group * kCols);
        score_rows(rows, queries, out.data());
        add_rows(rows, {weights.data(), group}, sums.data());
        out.insert(out.end(), sums.begin(), sums.end());
        return out;
      };
      for (const bool named : {false, true})
        EXPECT_EQ(results(both.borrowed.view(), named), results(both.copied.view(), named));
    }
  }
}

TEST(Borrowed, IsEncodedAndSavedAsACopyIs) {
  const Both both(Dtype::f16);
  const std::size_t half = kRows / 2;
  const Matrix<float> queries = normal_matrix(20, kCols, 8);
  const auto index_of = [&](const AnyMatrix& m) {
    Index index = Index::build(IndexKind::flat, m.first(half), {});
    index.append(m.view().slice(half, kRows - half));
    return index;
  };
  const Index borrowed = index_of(both.borrowed), copied = index_of(both.copied);
  EXPECT_TRUE(borrowed.keys().is_borrowed());
  EXPECT_TRUE(borrowed.to_bytes() == copied.to_bytes());
  test::expect_error(ErrorCode::invalid_argument, {"not of their memory"}, [&] {
    Index index = borrowed;
    index.append(both.copied.view());
  });
}

}  // namespace
}  // namespace keyseek
