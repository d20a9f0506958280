// Soft-capped logits and null logits in attention, observations and the tail, against sums in f64.
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <functional>
#include <memory>

#include "file/temporary_directory.hpp"
#include "score/kernels.hpp"
#include "support/attention_reference.hpp"
#include "support/indexes.hpp"
#include "support/random_data.hpp"
#include "support/search_run.hpp"
#include "support/tail_problem.hpp"

namespace keyseek {
namespace {

using test::any;
using test::expect_close;
using test::expect_error;
using test::NaiveLogits;
using test::normal_matrix;
using test::range;
using test::reference;
using test::TailProblem;

TEST(Cap, EveryInstructionSetAgreesWithDoublePrecision) {
  for (const Isa isa : available_isas()) {
    for (std::size_t n = 0; n < 70; ++n) {
      for (const float softcap : {1e-6F, 1.0F, 50.0F, 1e6F}) {
        Matrix<float> products = normal_matrix(1, n, n);
        for (std::size_t i = 0; i < n; ++i) {
          const std::array<float, 6> sizes = {0.0F, 1e-30F, 1e-3F, 1.0F, 100.0F, 1e30F};
          products.data()[i] *= sizes[i % sizes.size()];
        }
        // No more memory than promised, for an address sanitizer to watch.
        const std::unique_ptr<float[]> capped(new float[n]);
        std::copy_n(products.data(), n, capped.get());
        kernels_for(isa).cap(capped.get(), n, 0.3F, softcap);
        for (std::size_t i = 0; i < n; ++i) {
          const double scaled = double{0.3F} * double{products.data()[i]};
          const double truth = double{softcap} * std::tanh(scaled / double{softcap});
          // Of the smallest numbers over a large cap few bits are left.
          const double bound = 1e-6 * std::fabs(truth) + 1e-44 * double{softcap};
          ASSERT_NEAR(capped[i], truth, bound) << to_string(isa) << " " << softcap;
          ASSERT_NEAR(Logits(0.3F, softcap).of(products.data()[i]), truth, 1e-6 * bound);
        }
      }
    }
  }
}

TEST(Logits, AreRefusedByName) {
  const auto refused = [](const std::string& fault, Logits logits) {
    expect_error(ErrorCode::invalid_argument, {fault}, [&] { logits.validate(); });
  };
  for (const float x : {0.0F, -1.0F, std::nanf(""), HUGE_VALF}) refused("scale is", {x});
  for (const float x : {-1.0F, std::nanf(""), HUGE_VALF}) refused("softcap is", {1.0F, x});
  const Matrix<float> keys = normal_matrix(4, 8, 1);
  AttendScratch scratch;
  Partial part;
  expect_error(ErrorCode::invalid_argument, {"softcap is -2"}, [&] {
    attend(keys, any(keys), {any(keys)}, {1.0F, -2.0F}, scratch, part);
  });
  part.reset(4, 8);
  expect_error(ErrorCode::invalid_argument, {"softcap is -2"}, [&] {
    (void)observe(keys, 1, part, any(keys), {any(keys)}, {1.0F, -2.0F});
  });
}

TEST(SoftCap, AttentionEqualsSumsInDoublePrecision) {
  constexpr std::size_t kN = 700, kD = 32, kDv = 24;
  const Matrix<float> keys = normal_matrix(kN, kD, 1), values = normal_matrix(kN, kDv, 2);
  const auto index = test::flat_index(any(keys));
  AttendScratch scratch;
  Partial part;
  for (std::size_t group = 1; group <= 8; ++group) {
    const Matrix<float> queries = normal_matrix(group, kD, 3 + group);
    for (const float softcap : {0.0F, 1.0F, 50.0F}) {
      const Logits logits = {3.0F, softcap};  // far beyond a cap of 1, and near one of 50
      const NaiveLogits naive = {.scale = 3.0, .softcap = double{softcap}};
      const auto truth = [&](std::size_t g, const std::vector<Id>& ids) {
        return reference(queries.row(g), any(keys), {any(values)}, ids, naive);
      };
      attend(queries, any(keys), {any(values)}, logits, scratch, part);
      for (std::size_t g = 0; g < group; ++g) expect_close(part, g, truth(g, range(0, kN)));
      const std::vector<Id> ids = {3, 600, 17, 18, 19, 2};
      attend_ids(queries, any(keys), {any(values)}, ids, logits, scratch, part);
      for (std::size_t g = 0; g < group; ++g) expect_close(part, g, truth(g, ids));
      const Hits hits = test::search(index, queries, {.k = 20});
      attend_hits(hits, {any(values)}, logits, scratch, part);
      for (std::size_t g = 0; g < group; ++g) {
        const auto found = hits.row_ids(g);
        expect_close(part, g, truth(g, {found.begin(), found.end()}));
      }
    }
  }
}

TEST(NullLogits, AreOneMorePart) {
  const Matrix<float> keys = normal_matrix(300, 16, 1), values = normal_matrix(300, 8, 2);
  const Matrix<float> queries = normal_matrix(6, 16, 3);
  AttendScratch scratch;
  for (const float level : {-1e30F, -5.0F, 0.0F, 5.0F, 20.0F}) {
    const std::vector<float> nulls = {level, level / 2, 0.25F * level};
    Partial all, part;
    all.reset(6, 8, nulls);  // two steps of a group of three
    attend(queries, any(keys), {any(values)}, 0.5F, scratch, part);
    merge(part, all);
    for (std::size_t g = 0; g < 6; ++g) {
      const NaiveLogits naive = {.scale = 0.5, .null = double{nulls[g % 3]}};
      expect_close(all, g,
                   reference(queries.row(g), any(keys), {any(values)}, range(0, 300), naive));
    }
  }
  // A head that attends to nothing else gives nothing.
  Partial alone;
  alone.reset(2, 8, std::vector<float>{4.0F});
  EXPECT_EQ(alone.lse, std::vector<float>(2, 4.0F));
  EXPECT_EQ(alone.best, std::vector<float>(2, static_cast<float>(-test::kInfinity)));
  EXPECT_EQ(alone.out.row(1)[3], 0.0F);
}

/// A problem whose exact part has null logits and whose logits are capped.
struct CappedProblem {
  static constexpr std::size_t kGroup = 3, kK = 24;
  TailProblem problem{{.n = 600, .group = kGroup}};
  Logits logits{TailProblem::kScale, 4.0F};
  std::vector<float> nulls = {2.0F, 5.0F, -1.0F};

  [[nodiscard]] Observations seen(MatrixView<float> queries, Logits how) const {
    Partial exact;
    exact.reset(queries.rows, TailProblem::kValueDim, nulls);
    merge(test::attend_many(queries, problem.all_keys.view().slice(0, TailProblem::kExact),
                            {problem.all_values.view().slice(0, TailProblem::kExact)}, how),
          exact);
    return observe(queries, kGroup, exact, problem.keys(), problem.values(), how, {.top = 64});
  }
};

TEST(SoftCap, ObservationsEqualSumsInDoublePrecision) {
  const CappedProblem capped;
  const Matrix<float>& queries = capped.problem.data.test;
  const Observations seen = capped.seen(queries, capped.logits);
  const std::size_t n = capped.problem.keys().rows, exact = TailProblem::kExact;
  const AnyMatrixView all = capped.problem.all_keys.view();
  const ValuesView values = {capped.problem.all_values.view()};
  Matrix<double> mass(n, CappedProblem::kGroup);
  for (std::size_t q = 0; q < queries.rows(); ++q) {
    const std::size_t g = q % CappedProblem::kGroup;
    NaiveLogits naive = {.scale = 0.5, .softcap = 4.0};
    expect_close(seen.rest, q,
                 reference(queries.row(q), all, values, range(exact, exact + n), naive));
    naive.null = double{capped.nulls[g]};
    const auto full = reference(queries.row(q), all, values, range(0, exact + n), naive);
    for (std::size_t i = 0; i < n; ++i)
      mass.row(i)[g] +=
          std::exp(naive.of(test::product(all, exact + i, queries.row(q)).value) - full.lse);
  }
  for (std::size_t i = 0; i < n; ++i)
    for (std::size_t g = 0; g < CappedProblem::kGroup; ++g)
      ASSERT_NEAR(seen.mass.row(i)[g], mass.row(i)[g], 1e-4 * mass.row(i)[g] + 1e-7);
}

// What was learned from capped logits is of use for these alone.
TEST(SoftCap, ATailIsTrainedForCappedLogits) {
  const CappedProblem capped;
  const auto fitted = [&](Logits logits) {
    return Tail::fit(capped.seen(capped.problem.data.training.train, logits), capped.problem.keys(),
                     capped.problem.values(), CappedProblem::kK, {.vectors = 40});
  };
  const Observations held = capped.seen(capped.problem.data.test, capped.logits);
  const auto error = [&](const Tail& tail) {
    return test::mean(attention_errors(held, capped.problem.values(), CappedProblem::kK, tail));
  };
  const Tail tail = fitted(capped.logits), other = fitted(capped.logits.scale);
  EXPECT_EQ(tail.parts().logits, capped.logits);
  EXPECT_LT(error(tail), 0.1);
  EXPECT_LT(error(tail), 0.3 * error({}));
  EXPECT_LT(error(tail), 0.5 * error(other));
  // The tail used with logits it was not trained for.
  Tail::Parts parts = tail.parts();
  parts.logits.softcap = 0;
  EXPECT_LT(error(tail), 0.5 * error(Tail::from_parts(parts)));
  parts.logits.softcap = -1;
  expect_error(ErrorCode::corrupt, {"soft-cap"}, [&] { (void)Tail::from_parts(parts); });
}

// Biases give the centroids, over all training queries, the mass of the keys that are not kept; and
// no query may see more mass beside its last kept key than one of these did.
TEST(SoftCap, ATailHasTheMassThatItsKeysHave) {
  constexpr std::size_t kK = CappedProblem::kK, kGroup = CappedProblem::kGroup;
  const CappedProblem capped;
  const TailProblem& problem = capped.problem;
  const Matrix<float>& queries = problem.data.training.train;
  const Observations seen = capped.seen(queries, capped.logits);
  const Tail tail = Tail::fit(seen, problem.keys(), problem.values(), kK, {.vectors = 40});
  const Tail::Parts& p = tail.parts();
  const AnyMatrixView all = problem.all_keys.view();
  const NaiveLogits naive = {.scale = 0.5, .softcap = 4.0};
  std::vector<double> given(kGroup), wanted(kGroup), most(kGroup, -test::kInfinity);
  for (std::size_t q = 0; q < queries.rows(); ++q) {
    const std::size_t g = q % kGroup;
    const float* query = queries.row(q);
    NaiveLogits with_null = naive;
    with_null.null = double{capped.nulls[g]};
    const double total =
        reference(query, all, {problem.all_values.view()}, range(0, all.rows), with_null).lse;
    std::vector<double> logits;
    for (std::size_t i = 0; i < problem.keys().rows; ++i)
      logits.push_back(naive.of(test::product(problem.keys(), i, query).value));
    std::sort(logits.begin(), logits.end(), std::greater<>());
    double left = 0;
    for (std::size_t i = kK; i < logits.size(); ++i) left += std::exp(logits[i]);
    wanted[g] += left / std::exp(total);
    most[g] = std::max(most[g], std::log(left) - logits[kK - 1]);
    for (std::size_t c = 0; c < tail.vectors(); ++c)
      given[g] += std::exp(naive.of(test::product(p.keys.view(), c, query).value) +
                           double{p.bias.row(c)[g]} - total);
  }
  for (std::size_t g = 0; g < kGroup; ++g) {
    EXPECT_NEAR(given[g], wanted[g], 1e-3 * wanted[g]);
    EXPECT_NEAR(p.limits.row(g)[2], most[g], 1e-3);
  }
}

TEST(SoftCap, AttentionOverATailIsThatOfCappedLogitsWithABias) {
  const CappedProblem capped;
  const TailProblem& problem = capped.problem;
  const Tail tail = Tail::fit(capped.seen(problem.data.training.train, capped.logits),
                              problem.keys(), problem.values(), CappedProblem::kK, {.vectors = 40});
  const Tail::Parts& p = tail.parts();
  const auto index = test::flat_index(problem.keys());
  AttendScratch scratch;
  Partial retrieved, out;
  for (std::size_t s = 0; s < 10; ++s) {
    const MatrixView<float> queries = problem.data.step(s);
    const Hits hits = test::search(index, queries, {.k = CappedProblem::kK});
    attend_hits(hits, problem.values(), capped.logits, scratch, retrieved);
    attend_tail(queries, hits, retrieved, tail, scratch, out);
    for (std::size_t g = 0; g < CappedProblem::kGroup; ++g) {
      const NaiveLogits naive = {.scale = 0.5, .softcap = 4.0};
      double sum = 0;
      std::vector<double> truth(TailProblem::kValueDim);
      std::vector<float> value(TailProblem::kValueDim);
      for (std::size_t c = 0; c < tail.vectors(); ++c) {
        const double weight =
            std::exp(naive.of(test::product(p.keys.view(), c, queries.row(g)).value) +
                     double{p.bias.row(c)[g]});
        sum += weight;
        p.values.view().copy_row(g * tail.vectors() + c, value.data());
        for (std::size_t i = 0; i < value.size(); ++i) truth[i] += weight * double{value[i]};
      }
      for (double& x : truth) x /= sum;
      EXPECT_LT(test::relative_error(out.out.row(g), truth), 1e-5);
      // Its mass: corrected by where the capped logits of what was retrieved lie, within limits.
      const double own = std::log(sum);
      const auto scores = hits.row_scores(g);
      const auto logit = [&](std::size_t rank) { return naive.of(double{scores[rank]}); };
      const std::array<double, Tail::kFeatures> features = {1.0,
                                                            double{retrieved.lse[g]} - own,
                                                            logit(0) - own,
                                                            logit(scores.size() / 4) - own,
                                                            logit(scores.size() / 2) - own,
                                                            logit(scores.size() - 1) - own};
      double shift = 0;
      for (std::size_t i = 0; i < features.size(); ++i)
        shift += features[i] * double{p.correction.row(g)[i]};
      const float* limits = p.limits.row(g);
      shift = std::clamp(shift, double{limits[0]}, double{limits[1]});
      EXPECT_NEAR(out.lse[g], std::min(own + shift, logit(scores.size() - 1) + double{limits[2]}),
                  1e-4);
    }
  }
}

}  // namespace
}  // namespace keyseek
