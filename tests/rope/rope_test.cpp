#include "keyseek/rope.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numbers>
#include <string>
#include <utility>
#include <vector>

#include "base/random.hpp"
#include "data/rope_golden.hpp"
#include "keyseek/error.hpp"

namespace keyseek {
namespace {

Matrix<float> random_matrix(std::size_t rows, std::size_t cols, std::uint64_t seed = 1) {
  Random random(seed);
  Matrix<float> m(rows, cols);
  for (std::size_t i = 0; i < rows * cols; ++i) {
    m.data()[i] = static_cast<float>(2 * random.uniform() - 1);
  }
  return m;
}

Matrix<float> shifted(Matrix<float> m, double shift, const RopeParams& rope) {
  rope_shift(m, std::vector<double>(m.rows(), shift), rope);
  return m;
}

void expect_near(const Matrix<float>& a, const Matrix<float>& b, double tolerance) {
  ASSERT_EQ(a.rows(), b.rows());
  ASSERT_EQ(a.cols(), b.cols());
  for (std::size_t i = 0; i < a.rows() * a.cols(); ++i) {
    ASSERT_NEAR(a.data()[i], b.data()[i], tolerance) << "element " << i;
  }
}

double dot(const float* a, const float* b, std::size_t d) {
  double sum = 0;
  for (std::size_t i = 0; i < d; ++i) sum += static_cast<double>(a[i]) * static_cast<double>(b[i]);
  return sum;
}

template <class F>
void expect_error(F f, const std::string& sentence, ErrorCode code = ErrorCode::invalid_argument) {
  try {
    f();
    FAIL() << "not refused: " << sentence;
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), code);
    EXPECT_EQ(e.what(), sentence);
  }
}

const std::vector<RopeParams> kVariants = {
    {},
    {1e6, 0, RopeLayout::half_split, {}},
    {1e5, 0, RopeLayout::interleaved, {}},
    {1e4, 4, RopeLayout::half_split, {}},
    {1e4, 6, RopeLayout::interleaved, {}},
    {1e4, 0, RopeLayout::half_split, {1.0, 0.3, 0.0, 1e-5}},
    {1e4, 4, RopeLayout::half_split, {}, 3},
    {1e4, 0, RopeLayout::interleaved, {}, 2},
};

TEST(RopeShift, AgreesWithTransformers) {
  for (const auto& golden : test::kRopeGolden) {
    SCOPED_TRACE(golden.name);
    for (const auto& row : golden.rows) {
      Matrix<float> m(1, row.before.size());
      for (std::size_t j = 0; j < row.before.size(); ++j) {
        m.data()[j] = static_cast<float>(row.before[j]);
      }
      rope_shift(m, std::vector{row.shift}, golden.rope);
      for (std::size_t j = 0; j < row.after.size(); ++j) {
        EXPECT_NEAR(m.data()[j], row.after[j], 1e-5) << "shift " << row.shift << ", element " << j;
      }
    }
  }
}

TEST(RopeShift, ByZeroChangesNothing) {
  const auto m = random_matrix(3, 8);
  for (const auto& rope : kVariants) expect_near(shifted(m, 0, rope), m, 0);
}

TEST(RopeShift, ComposesAndReverts) {
  const auto m = random_matrix(5, 8);
  for (const auto& rope : kVariants) {
    const auto once = shifted(m, 20345.25, rope);
    expect_near(shifted(shifted(m, 30000, rope), -9654.75, rope), once, 1e-6);
    expect_near(shifted(once, -20345.25, rope), m, 1e-6);
  }
}

TEST(RopeShift, KeepsInnerProductsWhenBothMove) {
  const auto queries = random_matrix(4, 8, 1);
  const auto keys = random_matrix(4, 8, 2);
  for (const auto& rope : kVariants) {
    const auto q = shifted(queries, 4097, rope);
    const auto k = shifted(keys, 4097, rope);
    for (std::size_t i = 0; i < 4; ++i) {
      EXPECT_NEAR(dot(q.row(i), k.row(i), 8), dot(queries.row(i), keys.row(i), 8), 1e-6);
    }
  }
}

TEST(RopeShift, TurnsThePairByTheAngle) {
  Matrix<float> m(2, 4);
  m.row(0)[0] = 1;
  m.row(1)[1] = 1;  // the second pair, frequency 1/2
  rope_shift(m, std::vector{std::numbers::pi / 2, std::numbers::pi}, {.frequencies = {1.0, 0.5}});
  EXPECT_NEAR(m.row(0)[0], 0, 1e-7);
  EXPECT_NEAR(m.row(0)[2], 1, 1e-7);
  EXPECT_NEAR(m.row(1)[1], 0, 1e-7);
  EXPECT_NEAR(m.row(1)[3], 1, 1e-7);
}

TEST(RopeShift, LeavesTheUnrotatedTail) {
  const auto m = random_matrix(3, 10);
  for (const auto layout : {RopeLayout::half_split, RopeLayout::interleaved}) {
    const auto out = shifted(m, 12.5, {.rotary_dim = 6, .layout = layout});
    for (std::size_t i = 0; i < 3; ++i) {
      for (std::size_t j = 0; j < 6; ++j) EXPECT_NE(out.row(i)[j], m.row(i)[j]);
      for (std::size_t j = 6; j < 10; ++j) EXPECT_EQ(out.row(i)[j], m.row(i)[j]);
    }
  }
}

TEST(RopeShift, MovesOnlyWhatIsRotated) {
  const auto m = random_matrix(3, 10);
  for (const auto layout : {RopeLayout::half_split, RopeLayout::interleaved}) {
    for (const std::size_t first : {std::size_t{1}, std::size_t{4}}) {
      const auto out = shifted(m, 12.5, {.rotary_dim = 6, .layout = layout, .rotary_first = first});
      Matrix<float> part(3, 6);
      for (std::size_t i = 0; i < 3; ++i) std::copy_n(m.row(i) + first, 6, part.row(i));
      part = shifted(std::move(part), 12.5, {.layout = layout});
      for (std::size_t i = 0; i < 3; ++i) {
        for (std::size_t j = 0; j < 10; ++j) {
          const bool inside = j >= first && j < first + 6;
          EXPECT_EQ(out.row(i)[j], inside ? part.row(i)[j - first] : m.row(i)[j]);
        }
      }
    }
  }
}

TEST(RopeShift, LayoutsDifferByAPermutation) {
  constexpr std::size_t kDim = 12, kPairs = 6;
  const auto split = random_matrix(3, kDim);
  const auto interleave = [](const Matrix<float>& from) {
    Matrix<float> to(from.rows(), kDim);
    for (std::size_t i = 0; i < from.rows(); ++i) {
      for (std::size_t j = 0; j < kPairs; ++j) {
        to.row(i)[2 * j] = from.row(i)[j];
        to.row(i)[2 * j + 1] = from.row(i)[j + kPairs];
      }
    }
    return to;
  };
  expect_near(shifted(interleave(split), 77, {.layout = RopeLayout::interleaved}),
              interleave(shifted(split, 77, {})), 0);
}

TEST(RopeShift, GivesEveryRowItsOwnShift) {
  const auto m = random_matrix(4, 8);
  const std::vector<double> shifts{5, 5, -3, 5};
  Matrix<float> out = m;
  rope_shift(out, shifts, {});
  for (std::size_t i = 0; i < 4; ++i) {
    const auto alone = shifted(m, shifts[i], {});
    for (std::size_t j = 0; j < 8; ++j) EXPECT_EQ(out.row(i)[j], alone.row(i)[j]);
  }
}

TEST(RopeFrequencies, FollowTheta) {
  const auto f = rope_frequencies({.theta = 1e6}, 64);
  ASSERT_EQ(f.size(), 32U);
  EXPECT_EQ(f[0], 1.0);
  EXPECT_NEAR(f[16], 1e-3, 1e-15);
  EXPECT_EQ(rope_frequencies({.rotary_dim = 16}, 64).size(), 8U);
}

TEST(RopeFrequencies, ATableReplacesTheta) {
  const auto table = rope_frequencies({.theta = 5e5}, 8);
  EXPECT_EQ(rope_frequencies({.frequencies = table}, 8), table);
  const auto m = random_matrix(2, 8);
  expect_near(shifted(m, 999, {.frequencies = table}), shifted(m, 999, {.theta = 5e5}), 0);
}

TEST(RopeParams, RefusesWhatDoesNotFit) {
  const auto check = [](const RopeParams& rope, std::size_t d) {
    return [=] { rope.validate(d); };
  };
  expect_error(check({.theta = 0}, 8), "theta is 0, must be positive and finite");
  expect_error(check({.theta = -1}, 8), "theta is -1, must be positive and finite");
  expect_error(check({.theta = std::nan("")}, 8), "theta is nan, must be positive and finite");
  expect_error(check({.theta = HUGE_VAL}, 8), "theta is inf, must be positive and finite");
  expect_error(check({.rotary_dim = 10}, 8), "rotary_dim is 10, but vectors have dimension 8");
  expect_error(check({.rotary_dim = 3}, 8),
               "rotary_dim is 3 (vectors of dimension 8), must be even");
  expect_error(check({.rotary_dim = 4, .rotary_first = 5}, 8),
               "rotary_first is 5 and rotary_dim 4, but vectors have dimension 8");
  expect_error(check({.rotary_first = 9}, 8),
               "rotary_first is 9 and rotary_dim 0, but vectors have dimension 8");
  expect_error(check({.rotary_first = 8}, 8), "no element is rotated: rotary_first is 8 of 8");
  expect_error(check({.rotary_first = 3}, 8),
               "rotary_dim is 5 (vectors of dimension 8), must be even");
  expect_error(check({}, 7), "rotary_dim is 7 (vectors of dimension 7), must be even");
  expect_error(check({}, 0), "vectors have dimension 0");
  expect_error(check({.frequencies = {1, 2, 3}}, 8),
               "frequencies has 3 values, rotary_dim 8 needs 4");
  expect_error(check({.frequencies = {1, 2, HUGE_VAL, 4}}, 8),
               "frequencies[2] is inf, must be finite");
  EXPECT_NO_THROW(check({.rotary_dim = 4, .frequencies = {1, 0}}, 7)());
}

TEST(RopeShift, RefusesWrongInputAndLeavesItAlone) {
  const auto m = random_matrix(3, 8);
  Matrix<float> out = m;
  expect_error([&] { rope_shift(out, std::vector<double>(2), {}); },
               "shifts has 2 values, but queries has 3 rows");
  expect_error(
      [&] {
        rope_shift(out, std::vector{1.0, 2.0, std::nan("")}, {});
      },
      "shifts[2] is nan, must be finite");
  expect_near(out, m, 0);
  out.row(1)[7] = std::numeric_limits<float>::infinity();
  expect_error([&] { rope_shift(out, std::vector<double>(3), {}); },
               "queries row 1 holds NaN or infinity", ErrorCode::not_finite);
}

TEST(RopeShift, NoRowsAreFine) {
  Matrix<float> none;
  EXPECT_NO_THROW(rope_shift(none, {}, {}));
}

}  // namespace
}  // namespace keyseek
