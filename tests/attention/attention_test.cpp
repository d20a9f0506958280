// Partial attention and its merge against sums in f64.
#include "keyseek/attention.hpp"

#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <numeric>

#include "file/temporary_directory.hpp"
#include "keyseek/index.hpp"
#include "score/kernels.hpp"
#include "support/attention_reference.hpp"
#include "support/indexes.hpp"
#include "support/random_data.hpp"

namespace keyseek {
namespace {

using test::any;
using test::expect_close;
using test::expect_error;
using test::kInfinity;
using test::normal_matrix;
using test::range;
using test::reference;

TEST(Attention, EqualsSumsInDoublePrecision) {
  AttendScratch scratch;
  Partial part;
  for (const Dtype dtype : {Dtype::f32, Dtype::f16, Dtype::bf16}) {
    for (const auto& [n, d, dv, group] : {std::array<std::size_t, 4>{1, 1, 1, 1},
                                          {7, 5, 3, 2},
                                          {512, 64, 64, 3},
                                          {1500, 33, 70, 4},
                                          {700, 256, 256, 9},
                                          {130, 16, 17, 64}}) {
      const AnyMatrix keys = test::stored_as(normal_matrix(n, d, 1), dtype);
      const AnyMatrix values = test::stored_as(normal_matrix(n, dv, 2), dtype);
      const Matrix<float> queries = normal_matrix(group, d, 3);
      attend(queries, keys.view(), {values.view()}, 0.25F, scratch, part);
      ASSERT_EQ(part.lse.size(), group);
      for (std::size_t g = 0; g < group; ++g) {
        expect_close(part, g,
                     reference(queries.row(g), keys.view(), {values.view()}, range(0, n), 0.25));
      }
    }
  }
}

TEST(Attention, EveryInstructionSetAgreesWithDoublePrecision) {
  for (const Isa isa : available_isas()) {
    const Kernels& k = kernels_for(isa);
    for (std::size_t n = 1; n < 60; n += 3) {
      for (const std::size_t group : std::array<std::size_t, 5>{1, 2, 3, 5, 64}) {
        const Matrix<float> logits = normal_matrix(n, group, n);
        std::vector<float> weights(logits.data(), logits.data() + n * group);
        std::vector<float> best(group), sum(group);
        k.softmax_rows(weights.data(), n, group, 3.0F, best.data(), sum.data());
        for (std::size_t g = 0; g < group; ++g) {
          float top = logits.row(0)[g];
          for (std::size_t j = 0; j < n; ++j) top = std::max(top, logits.row(j)[g]);
          ASSERT_EQ(best[g], top);
          double total = 0;
          for (std::size_t j = 0; j < n; ++j) {
            const double truth = std::exp(3.0 * (double{logits.row(j)[g]} - double{top}));
            total += truth;
            ASSERT_NEAR(weights[j * group + g], truth, 1e-6) << to_string(isa);
          }
          ASSERT_NEAR(sum[g], total, 1e-5 * total) << to_string(isa);
        }
      }
    }
    for (const Dtype dtype : {Dtype::f32, Dtype::f16, Dtype::bf16, Dtype::i8}) {
      for (std::size_t d = 1; d < 70; ++d) {
        constexpr std::size_t kRows = 19, kGroup = 3;
        Matrix<float> plain = normal_matrix(kRows, d, d);
        for (std::size_t i = 0; i < kRows * d; ++i) plain.data()[i] *= 30.0F;
        const AnyMatrix values = test::stored_as(plain, dtype);
        const Matrix<float> rounded = to_f32(values.view());
        const Matrix<float> weights = normal_matrix(kRows, kGroup, 7);
        const std::vector<Id> ids = {4, 18, 0, 4, 9, 1, 2, 3, 17, 11, 12};
        for (const bool named : {false, true}) {
          const std::size_t count = named ? ids.size() : kRows;
          std::vector<float> sums(kGroup * d, 1.0F);
          k.add_rows[static_cast<std::size_t>(dtype)](
              {values.view(), named ? ids.data() : nullptr, count}, {weights.data(), kGroup},
              sums.data());
          for (std::size_t g = 0; g < kGroup; ++g) {
            for (std::size_t c = 0; c < d; ++c) {
              double truth = 1.0;
              for (std::size_t j = 0; j < count; ++j)
                truth += double{weights.row(j)[g]} * double{rounded.row(named ? ids[j] : j)[c]};
              ASSERT_NEAR(sums[g * d + c], truth, 2e-4) << to_string(isa) << " d " << d;
            }
          }
        }
      }
    }
  }
}

TEST(Attention, ExtremeLogitsNeitherOverflowNorVanish) {
  Matrix<float> keys(3, 1), values(3, 1), queries(1, 1);
  queries.row(0)[0] = 1.0F;
  AttendScratch scratch;
  Partial part;
  for (const float size : {1e-30F, 1.0F, 1e4F, 1e30F}) {
    for (std::size_t i = 0; i < 3; ++i) {
      keys.row(i)[0] = size * static_cast<float>(i);
      values.row(i)[0] = static_cast<float>(i);
    }
    attend(queries, any(keys), {any(values)}, 1.0F, scratch, part);
    expect_close(part, 0, reference(queries.row(0), any(keys), {any(values)}, range(0, 3), 1.0));
  }
}

TEST(Attention, MergedPartsEqualTheWholeInAnyOrder) {
  constexpr std::size_t kTokens = 900, kGroup = 4;
  const AnyMatrix keys = test::stored_as(normal_matrix(kTokens, 64, 1), Dtype::f16);
  const AnyMatrix values = test::stored_as(normal_matrix(kTokens, 48, 2), Dtype::f16);
  Matrix<float> queries = normal_matrix(kGroup, 64, 3);
  for (std::size_t i = 0; i < 64; ++i) queries.row(1)[i] *= 30.0F;  // one token takes all
  AttendScratch scratch;
  std::vector<std::size_t> bounds = {0, 1, 1, 130, 640, 899, 900};
  for (int order = 0; order < 3; ++order) {
    Partial merged;
    for (std::size_t i = 0; i + 1 < bounds.size(); ++i) {
      const std::size_t p = order == 0 ? i : order == 1 ? bounds.size() - 2 - i : (i * 5 + 2) % 6;
      const std::size_t count = bounds[p + 1] - bounds[p];
      Partial part;
      attend(queries, keys.view().slice(bounds[p], count), {values.view().slice(bounds[p], count)},
             0.125F, scratch, part);
      merge(part, merged);
    }
    for (std::size_t g = 0; g < kGroup; ++g) {
      expect_close(
          merged, g,
          reference(queries.row(g), keys.view(), {values.view()}, range(0, kTokens), 0.125));
    }
  }
}

TEST(Attention, NoTokenIsTheNeutralPart) {
  const Matrix<float> queries = normal_matrix(2, 8, 1), keys = normal_matrix(5, 8, 2);
  AttendScratch scratch;
  Partial none, some;
  attend(queries, any(keys).slice(0, 0), {any(keys).slice(0, 0)}, 1.0F, scratch, none);
  EXPECT_EQ(none.lse, std::vector<float>(2, static_cast<float>(-kInfinity)));
  EXPECT_EQ(none.out.row(1)[7], 0.0F);
  attend(queries, any(keys), {any(keys)}, 1.0F, scratch, some);
  const Partial before = some;
  merge(none, some);
  merge(some, none);
  for (const Partial* part : {&some, &none}) {
    EXPECT_EQ(part->lse, before.lse);
    for (std::size_t i = 0; i < 16; ++i) EXPECT_EQ(part->out.data()[i], before.out.data()[i]);
  }
  Partial empty;
  empty.reset(2, 8);
  merge(Partial(empty), empty);  // two empty parts
  EXPECT_EQ(empty.lse[0], static_cast<float>(-kInfinity));
}

TEST(Attention, ScalesOfValuesCount) {
  Matrix<float> plain = normal_matrix(50, 24, 2);
  for (std::size_t i = 0; i < 50 * 24; ++i) plain.data()[i] *= 40.0F;
  const AnyMatrix values = test::stored_as(plain, Dtype::i8);
  const Matrix<float> keys = normal_matrix(50, 16, 1), queries = normal_matrix(3, 16, 3);
  std::vector<float> scales(50);
  std::iota(scales.begin(), scales.end(), 1.0F);
  AttendScratch scratch;
  Partial part;
  const ValuesView view = {values.view(), scales.data()};
  attend(queries, any(keys), view, 0.5F, scratch, part);
  for (std::size_t g = 0; g < 3; ++g)
    expect_close(part, g, reference(queries.row(g), any(keys), view, range(0, 50), 0.5));
  const std::vector<Id> ids = {40, 3, 22};
  attend_ids(queries, any(keys), view, ids, 0.5F, scratch, part);
  for (std::size_t g = 0; g < 3; ++g)
    expect_close(part, g, reference(queries.row(g), any(keys), view, ids, 0.5));
}

TEST(Attention, HitsBringTheirOwnLogits) {
  const Matrix<float> keys = normal_matrix(60, 16, 1), values = normal_matrix(60, 20, 2),
                      queries = normal_matrix(3, 16, 3);
  const auto index = test::flat_index(any(keys));
  SearchScratch search;
  Hits hits;
  index.search(queries, {.k = 10}, search, hits);
  hits.count[1] = 4;  // as a stop rule leaves them
  hits.count[2] = 0;
  AttendScratch scratch;
  Partial part;
  attend_hits(hits, {any(values)}, 0.3F, scratch, part);
  for (std::size_t g = 0; g < 2; ++g) {
    const auto ids = hits.row_ids(g);
    expect_close(
        part, g,
        reference(queries.row(g), any(keys), {any(values)}, {ids.begin(), ids.end()}, 0.3));
  }
  EXPECT_EQ(part.lse[2], static_cast<float>(-kInfinity));
}

TEST(Attention, BadInputIsNamed) {
  const Matrix<float> queries = normal_matrix(2, 8, 1), keys = normal_matrix(5, 8, 2);
  AttendScratch scratch;
  Partial part;
  const auto refused = [&](const std::string& fault, const auto& call) {
    expect_error(ErrorCode::invalid_argument, {fault}, call);
  };
  const auto run = [&](MatrixView<float> q, AnyMatrixView k, AnyMatrixView v, float scale) {
    attend(q, k, {v}, scale, scratch, part);
  };
  refused("dimension 7", [&] { run(normal_matrix(2, 7, 1), any(keys), any(keys), 1.0F); });
  refused("0 rows", [&] { run(queries.view().slice(0, 0), any(keys), any(keys), 1.0F); });
  refused("65 rows", [&] { run(normal_matrix(65, 8, 1), any(keys), any(keys), 1.0F); });
  refused("4 rows", [&] { run(queries, any(keys), any(keys).slice(0, 4), 1.0F); });
  refused("scale is 0", [&] { run(queries, any(keys), any(keys), 0.0F); });
  refused("scale is nan", [&] { run(queries, any(keys), any(keys), std::nanf("")); });
  refused("key 5", [&] {
    attend_ids(queries, any(keys), {any(keys)}, std::vector<Id>{1, 5}, 1.0F, scratch, part);
  });
  Partial narrow, wide;
  narrow.reset(2, 3);
  wide.reset(2, 4);
  refused("3 and 4", [&] { merge(narrow, wide); });
  wide.reset(1, 3);
  refused("2 and 1", [&] { merge(narrow, wide); });
}

}  // namespace
}  // namespace keyseek
