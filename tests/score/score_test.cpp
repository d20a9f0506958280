// Inner products of stored keys with f32 queries, at every instruction set.
#include "keyseek/score.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <memory>

#include "file/temporary_directory.hpp"
#include "score/kernels.hpp"
#include "support/random_data.hpp"
#include "support/reference.hpp"

namespace keyseek {
namespace {

using test::expect_error;
using test::normal_matrix;
using test::rounding_bound;

constexpr Dtype kDtypes[] = {Dtype::f32, Dtype::f16, Dtype::bf16, Dtype::i8};

/// Rows with gaps between them and `offset` elements before them, in memory that ends with the
/// last element: what an address sanitizer watches, and no row is aligned.
class LooseRows {
 public:
  LooseRows(MatrixView<float> m, Dtype dtype, std::size_t offset, std::size_t gap)
      : bytes_(new std::byte[size(m, dtype, offset, gap)]()) {
    view_ = {bytes_.get() + offset * size_of(dtype), dtype, m.rows, m.cols, m.cols + gap};
    for (std::size_t i = 0; i < m.rows; ++i) {
      std::byte* out = bytes_.get() + (offset + i * view_.stride) * size_of(dtype);
      for (std::size_t j = 0; j < m.cols; ++j) out += test::store_value(m.row(i)[j], dtype, out);
    }
  }
  [[nodiscard]] AnyMatrixView view() const { return view_; }
  [[nodiscard]] MatrixView<float> floats() const {
    return {static_cast<const float*>(view_.data), view_.rows, view_.cols, view_.stride};
  }

 private:
  static std::size_t size(MatrixView<float> m, Dtype dtype, std::size_t offset, std::size_t gap) {
    return (offset + m.rows * m.cols + (m.rows - 1) * gap) * size_of(dtype);
  }
  std::unique_ptr<std::byte[]> bytes_;
  AnyMatrixView view_;
};

void run_kernel(Isa isa, AnyMatrixView keys, const Id* ids, std::size_t n,
                MatrixView<float> queries, float* out) {
  kernels_for(isa).score_rows[static_cast<std::size_t>(keys.dtype)]({keys, ids, n}, queries, out);
}

/// Every level against f64 for one dimension, all sizes of groups, and rows that lie badly.
void check_dimension(std::size_t d) {
  constexpr std::size_t kKeys = 11, kGroup = 9;
  const Matrix<float> values = normal_matrix(kKeys, d, d);
  Matrix<float> scaled = values;
  for (std::size_t i = 0; i < kKeys * d; ++i) scaled.data()[i] *= 40.0F;
  const LooseRows queries(normal_matrix(kGroup, d, d + 5000), Dtype::f32, d % 3, d % 4);
  for (const Dtype dtype : kDtypes) {
    const LooseRows keys(dtype == Dtype::i8 ? scaled : values, dtype, d % 5, d % 7);
    test::Product expected[kKeys][kGroup];
    for (std::size_t i = 0; i < kKeys; ++i) {
      for (std::size_t g = 0; g < kGroup; ++g) {
        expected[i][g] = test::product(keys.view(), i, queries.floats().row(g));
      }
    }
    for (const Isa isa : available_isas()) {
      for (std::size_t group = 1; group <= kGroup; ++group) {
        std::vector<float> out(kKeys * group, NAN);
        run_kernel(isa, keys.view(), nullptr, kKeys, queries.floats().slice(0, group), out.data());
        for (std::size_t i = 0; i < kKeys; ++i) {
          for (std::size_t g = 0; g < group; ++g) {
            ASSERT_NEAR(out[i * group + g], expected[i][g].value, rounding_bound(expected[i][g], d))
                << to_string(isa) << " " << to_string(dtype) << " d " << d << " G " << group
                << " key " << i << " query " << g;
          }
        }
      }
    }
  }
}

TEST(Score, EveryLevelAgreesWithF64UpToD130) {
  for (std::size_t d = 1; d <= 130; ++d) check_dimension(d);
}

TEST(Score, EveryLevelAgreesWithF64UpToD1024) {
  for (std::size_t d = 131; d <= 1024; d += 37) check_dimension(d);
  for (const std::size_t d : {192U, 255U, 256U, 257U, 511U, 512U, 768U, 1023U, 1024U}) {
    check_dimension(d);
  }
}

/// Every finite value of a 16-bit type, alone in its row: converted without any error, on the
/// wide path (d = 32) and on the one for what is left over (d = 1).
void check_all_values(Dtype dtype, std::uint32_t exponent, float (*convert)(std::uint16_t)) {
  for (const std::size_t d : {1U, 32U}) {
    std::vector<std::uint16_t> keys(65536 * d);
    for (std::uint32_t bits = 0; bits < 65536; ++bits) {
      const bool finite = (bits & exponent) != exponent;
      keys[bits * d + bits % d] = static_cast<std::uint16_t>(finite ? bits : 0);
    }
    const std::vector<float> query(d, 1.0F);
    std::vector<float> out(65536);
    for (const Isa isa : available_isas()) {
      run_kernel(isa, {keys.data(), dtype, 65536, d, d}, nullptr, 65536, {query.data(), 1, d},
                 out.data());
      for (std::size_t i = 0; i < out.size(); ++i) {
        ASSERT_EQ(out[i], convert(keys[i * d + i % d]))
            << to_string(isa) << " bits " << i << " d " << d;
      }
    }
  }
}

TEST(Score, EveryHalfIsConvertedExactly) {
  check_all_values(Dtype::f16, 0x7c00, [](std::uint16_t bits) { return to_float(Half{bits}); });
}

TEST(Score, EveryBFloat16IsConvertedExactly) {
  check_all_values(Dtype::bf16, 0x7f80,
                   [](std::uint16_t bits) { return to_float(BFloat16{bits}); });
}

TEST(Score, IdsNameRowsInAnyOrder) {
  constexpr std::size_t kGroup = 3;
  const Matrix<float> values = normal_matrix(50, 67, 1);
  const Matrix<float> queries = normal_matrix(kGroup, 67, 2);
  Random random(3);
  for (const Dtype dtype : kDtypes) {
    const LooseRows keys(values, dtype, 1, 3);
    for (const Isa isa : available_isas()) {
      std::vector<float> all(50 * kGroup);
      run_kernel(isa, keys.view(), nullptr, 50, queries, all.data());
      for (std::size_t n = 0; n <= 37; ++n) {
        std::vector<Id> ids(n);
        for (Id& id : ids) id = static_cast<Id>(random.below(50));  // with repetitions
        std::vector<float> out(n * kGroup + 1, -7.0F);
        run_kernel(isa, keys.view(), ids.data(), n, queries, out.data());
        for (std::size_t j = 0; j < n; ++j) {
          for (std::size_t g = 0; g < kGroup; ++g) {
            ASSERT_EQ(out[j * kGroup + g], all[ids[j] * kGroup + g])
                << to_string(isa) << " n " << n;
          }
        }
        ASSERT_EQ(out.back(), -7.0F);
      }
    }
  }
}

TEST(Score, AScoreDoesNotDependOnItsTile) {
  const Matrix<float> values = normal_matrix(23, 75, 4), queries = normal_matrix(9, 75, 5);
  for (const Dtype dtype : kDtypes) {
    const AnyMatrix keys = test::stored_as(values, dtype);
    std::vector<float> out(23 * 9), by_id(23 * 9);
    score(keys.view(), queries, out.data());
    std::vector<Id> ids(23);
    for (std::size_t i = 0; i < 23; ++i) ids[i] = static_cast<Id>(22 - i);
    score_ids(keys.view(), ids, queries, by_id.data());
    for (std::size_t i = 0; i < 23; ++i) {
      for (std::size_t g = 0; g < 9; ++g) {
        ASSERT_EQ(out[i * 9 + g], inner_product(keys.view(), i, queries.row(g)));
        ASSERT_EQ(out[i * 9 + g], by_id[(22 - i) * 9 + g]);
      }
    }
  }
}

TEST(Score, NothingGivesNothing) {
  const Matrix<float> keys = normal_matrix(3, 5, 6), queries = normal_matrix(2, 5, 7);
  float out[6] = {1, 1, 1, 1, 1, 1};
  score(test::any(keys.view().slice(0, 0)), queries, out);
  score(test::any(keys), queries.view().slice(0, 0), out);
  score_ids(test::any(keys), {}, queries, out);
  for (const float x : out) EXPECT_EQ(x, 1.0F);
}

TEST(Score, RefusesWhatDoesNotFit) {
  const Matrix<float> keys = normal_matrix(3, 5, 8), queries = normal_matrix(2, 4, 9);
  const Matrix<float> right = normal_matrix(2, 5, 9);
  float out[6] = {};
  const std::vector<Id> ids = {0, 3};
  expect_error(ErrorCode::invalid_argument, {"queries have dimension 4", "keys have 5"},
               [&] { score(test::any(keys), queries, out); });
  expect_error(ErrorCode::invalid_argument, {"queries have dimension 4"},
               [&] { score_ids(test::any(keys), {}, queries, out); });
  expect_error(ErrorCode::invalid_argument, {"ids hold 3", "3 keys"},
               [&] { score_ids(test::any(keys), ids, right, out); });
  expect_error(ErrorCode::invalid_argument, {"i is 3", "3 keys"},
               [&] { (void)inner_product(test::any(keys), 3, right.row(0)); });
  for (const float x : out) EXPECT_EQ(x, 0.0F);
}

}  // namespace
}  // namespace keyseek
