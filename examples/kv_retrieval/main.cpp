// keyseek as the KV retrieval component of an engine, for one KV head: the engine keeps keys and
// values, computes attention over the tokens it is told, and asks which ones these are.
//
//     kv_retrieval CAPTURE.attn.h5:L15/K0
#include <keyseek/keyseek.hpp>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <vector>

namespace {

/// An engine's own attention over a few tokens of its cache; here keyseek's.
float largest_weight(keyseek::MatrixView<float> queries, const keyseek::Hits& hits, float scale) {
  float best = 0;
  for (std::size_t g = 0; g < queries.rows; ++g) {
    double sum = 0;
    for (const float score : hits.row_scores(g))
      sum += std::exp(double{scale} * (double{score} - double{hits.row_scores(g)[0]}));
    best = std::max(best, static_cast<float>(1.0 / sum));
  }
  return best;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2) {
    std::fputs("usage: kv_retrieval CAPTURE.attn.h5:L15/K0\n", stderr);
    return 2;
  }
  try {
    // After prefill: the keys to index, and training queries moved to where decoding will be.
    const auto head = keyseek::io::read_data(argv[1], {});
    const auto training = keyseek::io::training_set(head);
    const auto index = keyseek::Index::build(keyseek::IndexKind::projection, head.keys, training);

    // Every decode step: the group's queries in, token ids and their exact logits out.
    keyseek::SearchScratch scratch;
    keyseek::Hits hits;
    std::size_t scanned = 0;
    const std::size_t steps = std::min<std::size_t>(200, head.queries.rows() / head.group);
    for (std::size_t step = 0; step < steps; ++step) {
      const auto queries = head.queries.view().slice(step * head.group, head.group);
      index.search(queries, {.k = 64, .previous = step > 0 ? &hits : nullptr}, scratch, hits);
      scanned += hits.stats.scanned;
      if (step + 1 == steps) {
        std::printf("step %zu: query 0 attends to token %u first; largest weight %.2f\n", step,
                    hits.row_ids(0)[0], double{largest_weight(queries, hits, 0.125F)});
      }
    }
    std::printf("%zu keys, %zu looked at per step\n", index.size(), scanned / steps);
  } catch (const keyseek::Error& error) {
    std::fprintf(stderr, "kv_retrieval: %s\n", error.what());
    return 1;
  }
}
