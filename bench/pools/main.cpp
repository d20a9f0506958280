/// How deep the true k best keys stand in the order of each look that is not exact: what the rules
/// of src/search/pools.hpp were fitted to.
///
///     keyseek_pools datasets/sample/smollm2-8k-pydoc.attn.h5:L15/K0 100
///
/// For each look it prints how many keys have to go on for a share of the queries to lose none of
/// their k best (all but one in 10,000 of them, for the last column), beside what the rule takes.
#include <fmt/format.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <string>
#include <vector>

#include "keyseek/io.hpp"
#include "keyseek/key_store.hpp"
#include "keyseek/sketch.hpp"
#include "score/code_tile.hpp"
#include "search/block_scan.hpp"
#include "search/pools.hpp"

namespace {

using namespace keyseek;  // NOLINT(google-build-using-namespace): a program of one file

/// Ids of all keys by the codes, best first.
std::vector<Ranked> order(const BlockedCodes& keys, const EncodedQueries& query) {
  Pool all;
  all.reset(keys.n);
  BlockScanScratch scratch;
  scan_blocks(keys, tile_of(query, 0, 1), &all, scratch);
  std::sort(all.items().begin(), all.items().end(), std::greater<>());
  return all.items();
}

/// Ranks of a query's true k best in this order, ascending.
std::vector<std::size_t> ranks(const std::vector<Ranked>& order, const Id* truth, std::size_t k) {
  std::vector<std::size_t> rank(order.size());
  for (std::size_t i = 0; i < order.size(); ++i) rank[id_of(order[i])] = i + 1;
  std::vector<std::size_t> found(k);
  for (std::size_t i = 0; i < k; ++i) found[i] = rank[truth[i]];
  std::sort(found.begin(), found.end());
  return found;
}

std::size_t quantile(std::vector<std::size_t> values, double share) {
  std::sort(values.begin(), values.end());
  return values[static_cast<std::size_t>(share * static_cast<double>(values.size() - 1))];
}

void print_look(const char* name, const io::Benchmark& data, std::size_t k, std::size_t rule,
                const std::function<std::vector<Ranked>(MatrixView<float>)>& look) {
  std::vector<std::size_t> deepest, all;
  for (std::size_t i = 0; i < data.queries.rows(); i += 7) {
    const auto found = ranks(look(data.queries.view().slice(i, 1)), data.truth_ids.row(i), k);
    deepest.push_back(found.back());
    all.insert(all.end(), found.begin(), found.end());
  }
  fmt::print("| {} | {} | {} | {} | {} | {} |\n", name, k, rule, quantile(deepest, 0.5),
             quantile(deepest, 0.99), quantile(all, 0.9999));
}

void print_head(const std::string& name, std::size_t k) {
  const io::Benchmark data = io::read_data(name, {.k = k}, {}, {});
  const TrainingQueries training = io::training_set(data);
  const std::size_t d = data.keys.cols();
  const KeyStore plain = KeyStore::encode(data.keys, {}, CodeLayout::blocks);
  const KeyStore trained = KeyStore::encode(data.keys, training.train, CodeLayout::blocks);
  const Sketch sketch = Sketch::build(data.keys.view(), training.train);
  const auto by_codes = [&](const KeyStore& store) {
    return [&](MatrixView<float> query) {
      return order(blocks_of(store), store.encode_queries(query));
    };
  };
  print_look("codes", data, k, untrained_pool(k), by_codes(plain));
  print_look("codes, trained", data, k, trained_pool(k, d), by_codes(trained));
  print_look("codes, trained, for lists", data, k, list_pool(k, d), by_codes(trained));
  print_look("sketch", data, k, sketch.pool(k), [&](MatrixView<float> query) {
    EncodedQueries encoded;
    std::vector<float> scratch;
    sketch.encode_queries(query, encoded, scratch);
    return order(blocks_of(sketch), encoded);
  });
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 2) {
    std::fprintf(stderr, "usage: keyseek_pools DATA [k ...]\n");
    return 2;
  }
  try {
    fmt::print("| look | k | rule | half of the queries | 99 % | .9999 of their keys |\n");
    fmt::print("|---|---|---|---|---|---|\n");
    for (int i = 2; i < std::max(argc, 3); ++i)
      print_head(argv[1], argc > i ? std::strtoul(argv[i], nullptr, 10) : 100);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "keyseek_pools: %s\n", error.what());
    return 1;
  }
  return 0;
}
