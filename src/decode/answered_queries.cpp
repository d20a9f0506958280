// Moves queries of the prompt to where decoding will ask, and attends to what is exact there.
#include "decode/answered_queries.hpp"

#include <algorithm>

#include "base/random.hpp"

namespace keyseek {

void attend_static(const PlanInput& input, MatrixView<float> queries, std::size_t end,
                   const DecodeParams& params, AttendScratch& scratch, Partial& part,
                   Partial& exact) {
  const Tokens& tokens = input.tokens;
  exact.reset(queries.rows, tokens.indexed.values.rows.cols, params.null_logits);
  tokens.attend(queries, 0, tokens.sink.keys.rows, params.logits(), scratch, part, exact);
  tokens.attend(queries, tokens.size() - tokens.recent.keys.rows, end, params.logits(), scratch,
                part, exact);
}

void put(const Partial& part, std::size_t first, Partial& all) {
  const auto at = static_cast<std::ptrdiff_t>(first);
  std::copy_n(part.out.data(), part.out.rows() * part.out.cols(), all.out.row(first));
  std::copy(part.lse.begin(), part.lse.end(), all.lse.begin() + at);
  std::copy(part.best.begin(), part.best.end(), all.best.begin() + at);
}

AnsweredQueries moved_queries(const PlanInput& input, const std::vector<std::size_t>& rows,
                              std::size_t run, const DecodeParams& params, std::uint64_t seed) {
  const std::size_t group = input.group, d = input.queries.cols;
  const std::size_t now = input.tokens.size(), dv = input.tokens.indexed.values.rows.cols;
  Random random(seed);
  AnsweredQueries answered;
  answered.run = run;
  answered.queries = Matrix<float>(rows.size() * group, d);
  answered.exact.reset(rows.size() * group, dv);
  std::vector<double> shifts(rows.size() * group);
  std::vector<std::size_t> decoded(rows.size());
  std::size_t ahead = 0;
  for (std::size_t i = 0; i < rows.size(); ++i) {
    ahead = i % run == 0 ? random.below(params.horizon) : ahead + 1;
    decoded[i] = ahead;
    for (std::size_t g = 0; g < group; ++g) {
      std::copy_n(input.queries.row(rows[i] * group + g), d, answered.queries.row(i * group + g));
      shifts[i * group + g] =
          static_cast<double>(now + ahead) - static_cast<double>(input.positions[rows[i]]);
    }
  }
  if (params.shift) rope_shift(answered.queries, shifts, params.rope);

  AttendScratch scratch;
  Partial part, exact;
  for (std::size_t i = 0; i < rows.size(); ++i) {
    const std::size_t at = input.positions[rows[i]] + 1;
    const auto moved = answered.queries.view().slice(i * group, group);
    const auto asked = input.queries.slice(rows[i] * group, group);
    attend_static(input, moved, now, params, scratch, part, exact);
    input.tokens.attend(asked, input.tokens.row_of(at - std::min(at, decoded[i] + 1)),
                        input.tokens.row_of(at), params.logits(), scratch, part, exact);
    put(exact, i * group, answered.exact);
  }
  return answered;
}

AnsweredQueries newest_queries(const PlanInput& input, const std::vector<std::size_t>& rows,
                               std::size_t run, const DecodeParams& params) {
  const std::size_t group = input.group, d = input.queries.cols;
  const std::size_t dv = input.tokens.indexed.values.rows.cols;
  AnsweredQueries answered;
  answered.run = run;
  answered.queries = Matrix<float>(rows.size() * group, d);
  answered.exact.reset(rows.size() * group, dv);
  AttendScratch scratch;
  Partial part, exact;
  for (std::size_t i = 0; i < rows.size(); ++i) {
    const auto asked = input.queries.slice(rows[i] * group, group);
    std::copy_n(asked.data, group * d, answered.queries.row(i * group));
    attend_static(input, asked, input.positions[rows[i]] + 1, params, scratch, part, exact);
    put(exact, i * group, answered.exact);
  }
  return answered;
}

AnsweredQueries joined(const AnsweredQueries& first, const AnsweredQueries& second) {
  const std::size_t a = first.queries.rows(), b = second.queries.rows();
  AnsweredQueries all;
  all.run = first.run;
  all.queries = Matrix<float>(a + b, first.queries.cols());
  std::copy_n(first.queries.data(), a * first.queries.cols(), all.queries.data());
  std::copy_n(second.queries.data(), b * first.queries.cols(), all.queries.row(a));
  all.exact.reset(a + b, first.exact.out.cols());
  put(first.exact, 0, all.exact);
  put(second.exact, a, all.exact);
  return all;
}

}  // namespace keyseek
