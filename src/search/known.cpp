/// Scores the keys that the previous step found, and says what of them a new key has to beat.
#include "search/known.hpp"

#include <algorithm>

#include "score/rows.hpp"

namespace keyseek {

void score_known(const KeyStore& store, MatrixView<float> queries, SearchScratch::State& s) {
  s.known.scores.resize(s.known.ids.size() * queries.rows);
  score_rows(rows_of(store.stored(), s.known.ids), queries, s.known.scores.data());
}

void score_previous(const KeyStore& store, MatrixView<float> queries, SearchScratch::State& s) {
  s.floor.assign(queries.rows, kNothing);
  // Scores of queries that were moved would say nothing about those that are asked.
  if (s.asked.data != queries.data) return;
  s.known.ids.reserve(s.previous.size());
  s.members.resize(store.size());
  for (const Id id : s.previous) s.members.add(id);
  s.members.drain(s.known.ids);
  score_known(store, queries, s);
}

float kth_of_known(std::size_t g, std::size_t group, std::size_t k, SearchScratch::State& s) {
  const std::size_t n = s.known.ids.size();
  if (n < k) return kNothing;
  s.best.resize(n);
  for (std::size_t i = 0; i < n; ++i)
    s.best[i] = ranked(s.known.scores[i * group + g], s.known.ids[i]);
  Ranked bar = 0;
  s.best.resize(kernels().keep_top(s.best.data(), n, k, k + k / 16, &bar));
  s.floor[g] = score_of(*std::min_element(s.best.begin(), s.best.end()));
  return s.floor[g];
}

}  // namespace keyseek
