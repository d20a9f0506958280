// Attention over a tail, the parts a tail is made of, and what is refused.
#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <limits>

#include "file/temporary_directory.hpp"
#include "keyseek/index.hpp"
#include "keyseek/tail.hpp"
#include "support/attention_reference.hpp"
#include "support/indexes.hpp"
#include "support/search_run.hpp"
#include "support/tail_problem.hpp"

namespace keyseek {
namespace {

using test::elements;
using test::expect_error;
using test::normal_matrix;
using test::TailProblem;

/// A problem, a tail for its kK best keys, and what a step retrieves.
struct Fitted {
  static constexpr std::size_t kK = 24;
  TailProblem problem{{.n = 600, .group = 3, .dtype = Dtype::f16}};
  Tail tail = Tail::fit(problem.train(), problem.keys(), problem.values(), kK, {.vectors = 40});
  Index index = test::flat_index(problem.keys());
  AttendScratch scratch;
  Hits hits;
  Partial retrieved, out;

  void step(MatrixView<float> queries, const Tail& with, std::size_t k = kK) {
    hits = test::search(index, queries, {.k = std::max<std::size_t>(k, 1)});
    for (std::size_t& count : hits.count) count = k;
    attend_hits(hits, problem.values(), TailProblem::kScale, scratch, retrieved);
    attend_tail(queries, hits, retrieved, with, scratch, out);
  }
};

/// The tail's vectors as head g of a softmax sees them: logits with bias, and their LSE.
struct TailLogits {
  std::vector<double> each;
  double lse = 0;
};
TailLogits logits_of(const Tail::Parts& p, const float* query, std::size_t g) {
  TailLogits logits;
  double top = -test::kInfinity, sum = 0;
  for (std::size_t c = 0; c < p.keys.rows(); ++c) {
    const double product = test::product(p.keys.view(), c, query).value;
    logits.each.push_back(double{p.logits.scale} * product + double{p.bias.row(c)[g]});
    top = std::max(top, logits.each.back());
  }
  for (const double x : logits.each) sum += std::exp(x - top);
  logits.lse = top + std::log(sum);
  return logits;
}

/// The correction of the tail's mass before its limits, from the features in tail.cpp.
double correction_of(const Tail::Parts& p, const Fitted& f, std::size_t g, double own) {
  const float* c = p.correction.row(g);
  const auto scores = f.hits.row_scores(g);
  if (scores.empty()) return double{c[0]};
  const auto logit = [&](std::size_t r) {
    return double{p.logits.scale} * double{scores[r]} - own;
  };
  return double{c[0]} + double{c[1]} * (double{f.retrieved.lse[g]} - own) +
         double{c[2]} * logit(0) + double{c[3]} * logit(scores.size() / 4) +
         double{c[4]} * logit(scores.size() / 2) + double{c[5]} * logit(scores.size() - 1);
}

TEST(TailAttend, AppendsItsVectorsToTheSoftmax) {
  Fitted f;
  const Tail::Parts& p = f.tail.parts();
  const std::size_t count = f.tail.vectors(), dv = TailProblem::kValueDim;
  std::size_t inside = 0;
  for (std::size_t s = 0; s < f.problem.data.steps(); ++s) {
    const auto queries = f.problem.data.step(s);
    f.step(queries, f.tail, s % 4 == 3 ? 0 : Fitted::kK);
    Partial merged = f.retrieved;
    merge(f.out, merged);
    for (std::size_t g = 0; g < 3; ++g) {
      const TailLogits logits = logits_of(p, queries.row(g), g);
      const double wanted = correction_of(p, f, g, logits.lse);
      const double least = p.limits.row(g)[0], most = p.limits.row(g)[1];
      const auto scores = f.hits.row_scores(g);
      double shift = std::clamp(wanted, least, most);
      if (!scores.empty()) {
        const double last = double{p.logits.scale} * double{scores.back()};
        shift = std::min(shift, last + double{p.limits.row(g)[2]} - logits.lse);
      }
      inside += shift == wanted ? 1 : 0;
      EXPECT_NEAR(f.out.lse[g], logits.lse + shift, 2e-5 * std::fabs(logits.lse) + 2e-5);
      // One softmax over the retrieved keys and the tail's vectors.
      std::vector<double> sums(dv);
      double total = 0;
      std::vector<float> value(dv);
      const auto add = [&](double logit, AnyMatrixView values, std::size_t row) {
        values.copy_row(row, value.data());
        const double weight = std::exp(logit - logits.lse);
        total += weight;
        for (std::size_t c = 0; c < dv; ++c) sums[c] += weight * double{value[c]};
      };
      for (std::size_t c = 0; c < count; ++c)
        add(logits.each[c] + shift, p.values.view(), g * count + c);
      for (const Id id : f.hits.row_ids(g)) {
        const double product = test::product(f.problem.keys(), id, queries.row(g)).value;
        add(TailProblem::kScale * product, f.problem.values().rows, id);
      }
      for (double& x : sums) x /= total;
      EXPECT_LT(test::relative_error(merged.out.row(g), sums), 5e-5) << "step " << s;
      EXPECT_NEAR(merged.lse[g], logits.lse + std::log(total), 1e-4);
    }
  }
  EXPECT_GT(inside, f.problem.data.steps());  // the regression is at work, not only its limits
}

TEST(TailAttend, TheCorrectionStaysWithinItsLimits) {
  Fitted f;
  for (const float c : {-1000.0F, -0.1F, 0.0F, 0.2F, 1000.0F}) {
    Tail::Parts parts = f.tail.parts();
    for (std::size_t g = 0; g < 3; ++g) {
      std::fill_n(parts.correction.row(g), Tail::kFeatures, 0.0F);
      parts.correction.row(g)[0] = c;
      parts.limits.row(g)[0] = -0.5F;
      parts.limits.row(g)[1] = 0.25F * static_cast<float>(g);
      parts.limits.row(g)[2] = 1e6F;
    }
    const Tail tail = Tail::from_parts(parts);
    const auto queries = f.problem.data.step(0);
    f.step(queries, tail);
    for (std::size_t g = 0; g < 3; ++g) {
      const double shift = std::clamp(c, -0.5F, 0.25F * static_cast<float>(g));
      EXPECT_NEAR(f.out.lse[g], logits_of(parts, queries.row(g), g).lse + shift, 1e-4);
    }
  }
}

TEST(TailAttend, NoQueryGivesItMoreBesideTheLastKeyThanTrainingSaw) {
  Fitted f;
  const Tail::Parts& p = f.tail.parts();
  const Matrix<float> queries = normal_matrix(3, TailProblem::kDim, 77);
  std::size_t limited = 0;
  for (const float size : {0.0F, 1.0F, 100.0F, 1e4F}) {
    Matrix<float> scaled = queries;
    for (std::size_t i = 0; i < 3 * TailProblem::kDim; ++i) scaled.data()[i] *= size;
    f.step(scaled, f.tail);
    for (std::size_t g = 0; g < 3; ++g) {
      const double own = logits_of(p, scaled.row(g), g).lse, slack = 1e-5 * std::fabs(own) + 1e-4;
      const double last = double{p.logits.scale} * double{f.hits.row_scores(g).back()};
      const double most = last + double{p.limits.row(g)[2]};
      EXPECT_LE(double{f.out.lse[g]}, most + slack);
      limited += std::fabs(double{f.out.lse[g]} - most) <= slack ? 1 : 0;
      EXPECT_GE(double{f.out.lse[g]}, std::min(own + double{p.limits.row(g)[0]}, most) - slack);
      EXPECT_LE(double{f.out.lse[g]}, own + double{p.limits.row(g)[1]} + slack);
      for (std::size_t c = 0; c < TailProblem::kValueDim; ++c)
        EXPECT_TRUE(std::isfinite(f.out.out.row(g)[c]));
    }
  }
  EXPECT_GT(limited, 0U);  // or the limit is never at work
}

TEST(TailAttend, AMissingRetrievalIsNoHarm) {
  Fitted f;
  f.step(f.problem.data.step(0), f.tail, 0);
  EXPECT_EQ(f.retrieved.lse[0], -std::numeric_limits<float>::infinity());
  for (std::size_t g = 0; g < 3; ++g) EXPECT_TRUE(std::isfinite(f.out.lse[g]));
}

TEST(TailParts, MakeTheSameTail) {
  Fitted f;
  const Tail copy = Tail::from_parts(f.tail.parts());
  EXPECT_EQ(copy.vectors(), f.tail.vectors());
  EXPECT_EQ(copy.bytes(), f.tail.bytes());
  // Keys and 3 heads' values in 16 bits; biases, corrections and limits in f32.
  EXPECT_EQ(copy.bytes(),
            40U * (32 + 3 * 24) * 2 + (40U * 3 + 3 * (Tail::kFeatures + Tail::kLimits)) * 4);
  f.step(f.problem.data.step(1), f.tail);
  const Partial before = f.out;
  f.step(f.problem.data.step(1), copy);
  EXPECT_EQ(f.out.lse, before.lse);
  EXPECT_EQ(elements(f.out.out), elements(before.out));
}

TEST(TailParts, ContradictionsAreRefused) {
  const Fitted f;
  const auto refused = [&](const std::string& fault, const auto& spoil) {
    Tail::Parts parts = f.tail.parts();
    spoil(parts);
    expect_error(ErrorCode::corrupt, {fault}, [&] { (void)Tail::from_parts(parts); });
  };
  const auto halves = [](std::size_t rows, std::size_t cols) {
    return test::stored_as(Matrix<float>(rows, cols), Dtype::f16);
  };
  refused("no vectors", [](Tail::Parts& p) { p = {}; });
  refused("no vectors", [](Tail::Parts& p) { p.correction = {}; });
  refused("no dimension", [&](Tail::Parts& p) { p.keys = halves(40, 0); });
  refused("no dimension", [&](Tail::Parts& p) { p.values = halves(120, 0); });
  refused("not in f16",
          [](Tail::Parts& p) { p.keys = test::stored_as(Matrix<float>(40, 32), Dtype::bf16); });
  refused("not in f16",
          [](Tail::Parts& p) { p.values = test::stored_as(Matrix<float>(120, 24), Dtype::bf16); });
  refused("biases", [&](Tail::Parts& p) { p.keys = halves(41, 32); });
  refused("biases", [](Tail::Parts& p) { p.bias = Matrix<float>(40, 2); });
  refused("values", [&](Tail::Parts& p) { p.values = halves(119, 24); });
  refused("correction", [](Tail::Parts& p) { p.correction = Matrix<float>(3, 4); });
  refused("limits do not match",
          [](Tail::Parts& p) { p.limits = Matrix<float>(2, Tail::kLimits); });
  refused("limits do not match", [](Tail::Parts& p) { p.limits = Matrix<float>(3, 2); });
  refused("no range", [](Tail::Parts& p) { p.limits.row(2)[0] = p.limits.row(2)[1] + 1.0F; });
  refused("no range", [](Tail::Parts& p) { p.limits.row(0)[1] = std::nanf(""); });
  refused("no range", [](Tail::Parts& p) { p.limits.row(1)[2] = std::nanf(""); });
  refused("scale", [](Tail::Parts& p) { p.logits.scale = 0.0F; });
  refused("scale", [](Tail::Parts& p) { p.logits.scale = std::nanf(""); });
  refused("query heads", [&](Tail::Parts& p) {
    p.correction = Matrix<float>(65, Tail::kFeatures);
    p.limits = Matrix<float>(65, Tail::kLimits);
    p.bias = Matrix<float>(40, 65);
    p.values = halves(40 * 65, 24);
  });
}

const auto refused = [](const std::string& fault, const auto& call) {
  expect_error(ErrorCode::invalid_argument, {fault}, call);
};

TEST(TailInput, OfObserveIsNamed) {
  const TailProblem p({.n = 30, .group = 2, .held_out_steps = 4});
  const MatrixView<float> queries = p.data.test;
  const Partial exact = p.exact(queries);
  const auto run = [&](MatrixView<float> q, std::size_t group, const Partial& f, AnyMatrixView keys,
                       AnyMatrixView values,
                       float scale) { (void)observe(q, group, f, keys, {values}, scale); };
  const AnyMatrixView keys = p.keys(), values = p.values().rows;
  refused("keys is empty", [&] { run(queries, 2, exact, keys.slice(0, 0), values, 1.0F); });
  refused("queries is empty", [&] { run(queries.slice(0, 0), 2, exact, keys, values, 1.0F); });
  refused("group is 0", [&] { run(queries, 0, exact, keys, values, 1.0F); });
  refused("group is 65", [&] { run(queries, 65, exact, keys, values, 1.0F); });
  refused("8 rows, no multiple of group = 3", [&] { run(queries, 3, exact, keys, values, 1.0F); });
  const Matrix<float> narrow = normal_matrix(8, 31, 1);
  refused("dimension 31", [&] { run(narrow, 2, exact, keys, values, 1.0F); });
  refused("29 rows, keys has 30", [&] { run(queries, 2, exact, keys, values.slice(0, 29), 1.0F); });
  refused("exact is of 6", [&] { run(queries, 2, p.exact(queries.slice(0, 6)), keys, values, 1); });
  Partial wide;
  wide.reset(8, 25);
  refused("exact.out is 8 x 25", [&] { run(queries, 2, wide, keys, values, 1.0F); });
  refused("scale is 0", [&] { run(queries, 2, exact, keys, values, 0.0F); });
  refused("scale is inf", [&] { run(queries, 2, exact, keys, values, 1.0F / 0.0F); });
  refused("threads", [&] {
    (void)observe(queries, 2, exact, keys, {values}, 1.0F, {.top = 0}, {.threads = -1});
  });
  Matrix<float> bad = p.data.test;
  bad.row(5)[3] = std::nanf("");
  for (const std::size_t top : {0U, 5U}) {
    expect_error(ErrorCode::not_finite, {"queries row 5"},
                 [&] { (void)observe(bad, 2, exact, keys, {values}, 1.0F, {.top = top}); });
  }
  Matrix<float> bad_keys = to_f32(keys);
  bad_keys.row(7)[31] = -std::numeric_limits<float>::infinity();
  expect_error(ErrorCode::not_finite, {"keys row 7"},
               [&] { run(queries, 2, exact, test::any(bad_keys), values, 1.0F); });
}

TEST(TailInput, OfFitAndErrorsIsNamed) {
  const TailProblem p({.n = 80, .train_steps = 10});
  const Observations seen = p.train(20);
  const auto fit = [&](AnyMatrixView keys, AnyMatrixView values, std::size_t k,
                       const TailParams& params = {}) {
    (void)Tail::fit(seen, keys, {values}, k, params);
  };
  const AnyMatrixView keys = p.keys(), values = p.values().rows;
  refused("tail.vectors is 0", [&] { fit(keys, values, 5, {.vectors = 0}); });
  refused("tail.vectors is 65537", [&] { fit(keys, values, 5, {.vectors = 65537}); });
  refused("tail.iterations is 1001", [&] { fit(keys, values, 5, {.iterations = 1001}); });
  refused("tail.ridge is 0", [&] { fit(keys, values, 5, {.ridge = 0.0}); });
  refused("tail.ridge is nan", [&] { fit(keys, values, 5, {.ridge = std::nan("")}); });
  refused("k is 21, but the 20", [&] { fit(keys, values, 21); });
  refused("keys has 79 rows, 80", [&] { fit(keys.slice(0, 79), values, 5); });
  refused("values has 79 rows, 80", [&] { fit(keys, values.slice(0, 79), 5); });
  const Matrix<float> narrow = normal_matrix(80, 23, 1);
  refused("keys have dimension 23", [&] { fit(test::any(narrow), values, 5); });
  refused("values have dimension 23", [&] { fit(keys, test::any(narrow), 5); });
  refused("seen is empty", [&] { (void)Tail::fit({}, keys, {values}, 0); });
  refused("k is 21", [&] { (void)attention_errors(seen, {values}, 21, {}); });
  refused("values has 79", [&] { (void)attention_errors(seen, {values.slice(0, 79)}, 5, {}); });
  refused("dimension 23", [&] { (void)attention_errors(seen, {test::any(narrow)}, 5, {}); });
}

TEST(TailInput, OfAttendTailIsNamed) {
  Fitted f;
  const auto queries = f.problem.data.step(0);
  f.step(queries, f.tail);
  const auto run = [&](MatrixView<float> q, const Hits& hits, const Partial& retrieved,
                       const Tail& tail) {
    attend_tail(q, hits, retrieved, tail, f.scratch, f.out);
  };
  EXPECT_TRUE(Tail().empty());
  EXPECT_EQ(Tail().vectors(), 0U);
  EXPECT_EQ(Tail().bytes(), 0U);
  refused("tail is empty", [&] { run(queries, f.hits, f.retrieved, {}); });
  refused("2, 3 and 3", [&] { run(queries.slice(0, 2), f.hits, f.retrieved, f.tail); });
  Hits hits = f.hits;
  hits.group = 1;
  refused("3, 1 and 3", [&] { run(queries, hits, f.retrieved, f.tail); });
  Partial retrieved;
  retrieved.reset(4, TailProblem::kValueDim);
  refused("3, 3 and 4", [&] { run(queries, f.hits, retrieved, f.tail); });
  const Matrix<float> narrow = normal_matrix(3, 31, 1);
  refused("dimension 31, the tail has 32", [&] { run(narrow, f.hits, f.retrieved, f.tail); });
}

TEST(TailInput, ObservingCanBeCancelled) {
  const TailProblem p({.n = 60, .held_out_steps = 40});
  std::size_t calls = 0;
  Execution run;
  run.progress = [&](std::string_view stage, std::size_t done, std::size_t total) {
    if (stage != "observing attention") return true;
    EXPECT_EQ(total, 80U);
    EXPECT_LT(done, total);
    return ++calls < 3;
  };
  expect_error(ErrorCode::cancelled, {"observing attention"},
               [&] { (void)p.seen(p.data.test, 10, run); });
  EXPECT_EQ(calls, 3U);
}

}  // namespace
}  // namespace keyseek
