// Which positions of the prompt are held out, and which train the tail.
#include "decode/evidence.hpp"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "decode/planted.hpp"

namespace keyseek {
namespace {

// Consecutive positions of a held-out run: enough for warm starts to count.
constexpr std::size_t kRun = 8;
// Steps in which a token is asked for that no query of the prompt wanted.
constexpr std::size_t kPlanted = 24;

double mean(std::span<const float> values) {
  return std::accumulate(values.begin(), values.end(), 0.0) / static_cast<double>(values.size());
}

/// The least value that no more than a share 1 - `share` of the values exceeds.
double reached_by(std::span<const float> values, double share) {
  std::vector<float> sorted(values.begin(), values.end());
  const double rank = std::ceil(share * static_cast<double>(sorted.size()));
  const auto at = sorted.begin() + static_cast<std::ptrdiff_t>(std::max(rank, 1.0)) - 1;
  std::nth_element(sorted.begin(), at, sorted.end());
  return double{*at};
}

/// Rows [first, last) of blocks, `count` of them in runs of `run`, evenly spread.
std::vector<std::size_t> spread(std::size_t first, std::size_t last, std::size_t count,
                                std::size_t run) {
  const std::size_t runs = std::max<std::size_t>(1, std::min(count, last - first) / run);
  std::vector<std::size_t> rows;
  for (std::size_t r = 0; r < runs; ++r) {
    const std::size_t begin = first + (last - first - run) * r / std::max<std::size_t>(1, runs - 1);
    for (std::size_t i = 0; i < run; ++i) rows.push_back(begin + i);
  }
  return rows;
}

/// Those of the last quarter of the window, an eighth of all at most.
std::size_t newest_positions(const PlanInput& input) {
  const std::size_t now = input.tokens.size();
  const std::size_t first = now - std::min(now, input.tokens.recent.keys.rows / 4);
  const auto begin = std::lower_bound(input.positions.begin(), input.positions.end(), first);
  return std::min(static_cast<std::size_t>(input.positions.end() - begin),
                  input.positions.size() / 8);
}

}  // namespace

double Evidence::error(const std::vector<float>& errors, double confidence) const {
  const auto of = [&](std::span<const float> some) {
    return confidence > 0 ? reached_by(some, confidence) : mean(some);
  };
  const std::span<const float> all = errors;
  const double old = of(all.first(old_queries));
  if (old_queries == errors.size()) return old;
  return std::max(old, of(all.subspan(old_queries)));
}

Evidence gather_evidence(const PlanInput& input, const DecodeParams& params, std::size_t k,
                         const Execution& run) {
  const std::size_t positions = input.positions.size(), newest = newest_positions(input);
  Evidence seen;
  seen.first_training = std::max<std::size_t>(2 * kRun, positions / 4);
  seen.last_training = positions - newest;
  const auto old_rows = spread(0, seen.first_training, params.held_out, kRun);
  seen.held = moved_queries(input, old_rows, kRun, params, params.seed + 1);
  seen.old_queries = seen.held.queries.rows();
  if (newest >= kRun) {
    const auto new_rows = spread(seen.last_training, positions, params.held_out, kRun);
    seen.held = joined(seen.held, newest_queries(input, new_rows, kRun, params));
  }
  const auto train_rows = spread(seen.first_training, seen.last_training, params.observed, 1);
  const AnsweredQueries train = moved_queries(input, train_rows, 1, params, params.seed);
  const auto answered = [&](const AnsweredQueries& asked) {
    const Tokens::Piece& indexed = input.tokens.indexed;
    return observe(asked.queries, input.group, asked.exact, indexed.keys, indexed.values,
                   params.logits(), {.top = std::min(k, indexed.keys.rows)}, run);
  };
  seen.train_seen = answered(train);
  seen.held_seen = answered(seen.held);
  seen.planted = planted_queries(input, seen.held, kPlanted, params, params.seed + 2);
  seen.planted_seen = answered(seen.planted);
  return seen;
}

}  // namespace keyseek
