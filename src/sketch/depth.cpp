/// Measures at which places by a sketch the keys stand that are best by their inner products.
#include "sketch/depth.hpp"

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <numeric>
#include <vector>

#include "base/parallel.hpp"
#include "matrix/even_rows.hpp"
#include "score/code_tile.hpp"
#include "score/codes.hpp"
#include "score/range.hpp"
#include "score/rows.hpp"
#include "select/ranked.hpp"

namespace keyseek {
namespace {

constexpr std::size_t kSample = 64;  // queries
constexpr std::size_t kTen = 10, kHundred = 100;
// Of the ranks, so many are reached: some more than are wanted, since the queries to come differ.
constexpr double kShare = 0.998;

using Ranks = std::vector<std::uint32_t>;

/// All keys in order of id, by their inner products with one query.
std::vector<Ranked> by_products(AnyMatrixView keys, MatrixView<float> query) {
  std::vector<float> scores(keys.rows);
  score_rows(rows_of(keys), query, scores.data());
  std::vector<Ranked> items(keys.rows);
  for (std::size_t i = 0; i < keys.rows; ++i) items[i] = ranked(scores[i], static_cast<Id>(i));
  return items;
}

/// Likewise, by the sketch.
std::vector<Ranked> by_sketch(const Sketch& sketch, MatrixView<float> query) {
  EncodedQueries encoded;
  std::vector<float> scores;
  sketch.encode_queries(query, encoded, scores);
  const std::size_t rows = blocked_rows(sketch.size());
  std::vector<Id> ids(rows);
  scores.resize(rows);
  const float all = -std::numeric_limits<float>::infinity();
  std::size_t count = 0;
  kernels().scan_half_blocks({sketch.codes(), sketch.scales(), 0, rows / KeyStore::kBlock},
                             tile_of(encoded, 0, 1),
                             {ids.data(), scores.data(), rows, &all, &count});
  std::vector<Ranked> items(sketch.size(), ranked(all, 0));  // a score that is no number is last
  for (std::size_t i = 0; i < count; ++i) items[ids[i]] = ranked(scores[i], ids[i]);
  return items;
}

/// At which place of `order`, as sorted, each of `some` of its items stands, the best at 1.
Ranks places_of(const std::vector<Ranked>& some, const std::vector<Ranked>& order) {
  std::vector<Ranked> falling = some;
  std::sort(falling.begin(), falling.end(), std::greater<>());
  const auto place = [&](auto found) { return static_cast<std::size_t>(found - falling.begin()); };
  // above[i]: items larger than falling[i], but than none before it.
  Ranks above(falling.size() + 1);
  for (const Ranked item : order)
    ++above[place(std::upper_bound(falling.begin(), falling.end(), item, std::greater<>()))];
  std::partial_sum(above.begin(), above.end(), above.begin());
  Ranks places;
  for (const Ranked item : some)
    places.push_back(
        1 + above[place(std::lower_bound(falling.begin(), falling.end(), item, std::greater<>()))]);
  return places;
}

/// At which places the `count` best keys of one query stand by the sketch, the best first. Of a
/// zero query, which sees all keys alike, none.
Ranks places_of_best(const Sketch& sketch, AnyMatrixView keys, MatrixView<float> query,
                     std::size_t count) {
  if (!(largest_magnitude(AnyMatrixView::of(query)) > 0.0F)) return {};
  std::vector<Ranked> best = by_products(keys, query);
  const auto last = best.begin() + static_cast<std::ptrdiff_t>(std::min(count, best.size()));
  std::partial_sort(best.begin(), last, best.end(), std::greater<>());
  best.erase(last, best.end());
  const std::vector<Ranked> rough = by_sketch(sketch, query);
  for (Ranked& item : best) item = rough[id_of(item)];
  return places_of(best, rough);
}

/// The rank that kShare of them reach; 1 of none.
double reached(Ranks ranks) {
  if (ranks.empty()) return 1.0;
  const auto at = static_cast<std::ptrdiff_t>(kShare * static_cast<double>(ranks.size() - 1));
  std::nth_element(ranks.begin(), ranks.begin() + at, ranks.end());
  return ranks[static_cast<std::size_t>(at)];
}

/// Appends the first `most` of `from`.
void append(const Ranks& from, std::size_t most, Ranks& to) {
  to.insert(to.end(), from.begin(),
            from.begin() + static_cast<std::ptrdiff_t>(std::min(most, from.size())));
}

}  // namespace

Sketch::Depth measure_depth(const Sketch& sketch, AnyMatrixView keys, std::size_t n,
                            MatrixView<float> queries, const Execution& run) {
  const double sampled = static_cast<double>(keys.rows) / static_cast<double>(n);
  const auto of_sample = [&](std::size_t count) {
    const double share = std::round(static_cast<double>(count) * sampled);
    return std::max(std::size_t{1}, static_cast<std::size_t>(share));
  };
  const std::size_t few = of_sample(kTen), many = of_sample(kHundred);
  const Matrix<float> sample = even_rows(AnyMatrixView::of(queries), kSample);
  const double longest =
      double{largest_magnitude(keys)} * std::sqrt(static_cast<double>(keys.cols));
  Matrix<float> moved;
  const MatrixView<float> asked = in_range(sample.view(), longest, moved);
  std::vector<Ranks> found(sample.rows());
  parallel_for(sample.rows(), 1, run, "measuring the sketch",
               [&](std::size_t begin, std::size_t end, int) {
                 for (std::size_t i = begin; i < end; ++i)
                   found[i] = places_of_best(sketch, keys, asked.slice(i, 1), many);
               });
  Ranks ten, hundred;
  for (const Ranks& ranks : found) {
    append(ranks, few, ten);
    append(ranks, many, hundred);
  }
  const auto all = static_cast<double>(keys.rows);
  return {reached(std::move(ten)) / all, reached(std::move(hundred)) / all};
}

std::size_t Sketch::pool(std::size_t k) const noexcept {
  const double ten = parts_.depth.of_ten, hundred = parts_.depth.of_hundred;
  const auto wanted = static_cast<double>(k);
  double share = ten;
  if (k > kTen) share += (hundred - ten) * (wanted - kTen) / (kHundred - kTen);
  if (k > kHundred) share = hundred * wanted / kHundred;
  const double keys = std::ceil(share * static_cast<double>(size_));
  return std::clamp(static_cast<std::size_t>(keys), std::min(k, size_), size_);
}

}  // namespace keyseek
