/// Computes what queries lose when only their best keys, and perhaps a tail, are attended.
#include <algorithm>

#include "attention/observed.hpp"
#include "base/fail.hpp"
#include "keyseek/tail.hpp"

namespace keyseek {

void require_values(const Observations& seen, ValuesView values) {
  require(values.rows.rows == seen.mass.rows(), "values has {} rows, {} were observed",
          values.rows.rows, seen.mass.rows());
  require(values.rows.cols == seen.rest.out.cols(), "values have dimension {}, {} was observed",
          values.rows.cols, seen.rest.out.cols());
}

void require_kept(const Observations& seen, std::span<const std::size_t> kept) {
  require(kept.size() == seen.queries.rows(), "kept has {} numbers, {} queries were observed",
          kept.size(), seen.queries.rows());
  for (const std::size_t k : kept)
    require(k <= seen.top_ids.cols(), "k is {}, but the {} best keys were observed", k,
            seen.top_ids.cols());
}

std::vector<float> attention_errors(const Observations& seen, ValuesView values, const Tail& tail,
                                    const Retrieve& retrieve) {
  require_values(seen, values);
  const std::size_t group = seen.group;
  AttendScratch scratch;
  Partial retrieved, summary;
  Hits hits;
  std::vector<float> errors;
  errors.reserve(seen.queries.rows());
  for (std::size_t first = 0; first < seen.queries.rows(); first += group) {
    retrieve(first / group, hits);
    Partial part = seen.exact.slice(first, group), full = part;
    merge(seen.rest.slice(first, group), full);
    attend_hits(hits, values, seen.logits, scratch, retrieved);
    merge(retrieved, part);
    if (!tail.empty()) {
      attend_tail(seen.queries.view().slice(first, group), hits, retrieved, tail, scratch, summary);
      merge(summary, part);
    }
    for (std::size_t g = 0; g < group; ++g) {
      errors.push_back(
          static_cast<float>(relative_error(part.out.row(g), full.out.row(g), full.out.cols())));
    }
  }
  return errors;
}

std::vector<float> attention_errors(const Observations& seen, ValuesView values,
                                    std::span<const std::size_t> kept, const Tail& tail) {
  require_kept(seen, kept);
  const std::size_t group = seen.group, k = seen.top_ids.cols();
  return attention_errors(seen, values, tail, [&](std::size_t step, Hits& hits) {
    hits.group = group;
    hits.k = k;
    const std::size_t first = step * group;
    hits.ids.assign(seen.top_ids.row(first), seen.top_ids.row(first) + group * k);
    hits.scores.assign(seen.top_scores.row(first), seen.top_scores.row(first) + group * k);
    const auto counts = kept.subspan(first, group);
    hits.count.assign(counts.begin(), counts.end());
  });
}

std::vector<float> attention_errors(const Observations& seen, ValuesView values, std::size_t k,
                                    const Tail& tail) {
  return attention_errors(seen, values, std::vector<std::size_t>(seen.queries.rows(), k), tail);
}

}  // namespace keyseek
