/// Scans all keys in blocks, either in f32 or in 8 bits with an exact rerank.
#include "keyseek/knn.hpp"

#include <algorithm>
#include <unordered_set>
#include <vector>

#include "base/fail.hpp"
#include "base/parallel.hpp"
#include "knn/knn_of_store.hpp"
#include "score/code_tile.hpp"
#include "score/range.hpp"
#include "score/rows.hpp"
#include "search/block_scan.hpp"
#include "search/pools.hpp"
#include "select/rerank.hpp"

namespace keyseek {
namespace {

void store_row(const std::vector<Ranked>& best, std::size_t row, KnnLists& lists) {
  for (std::size_t i = 0; i < best.size(); ++i) {
    lists.ids.row(row)[i] = id_of(best[i]);
    lists.scores.row(row)[i] = score_of(best[i]);
  }
}

/// Every inner product in f32: a piece of keys that fits the cache against a tile of queries.
void scan_f32(AnyMatrixView keys, MatrixView<float> queries, const KnnParams& params,
              const Execution& run, KnnLists& lists) {
  constexpr std::size_t kTile = 16, kPiece = 128;
  parallel_for(
      queries.rows, kTile, run, "exact neighbours", [&](std::size_t begin, std::size_t end, int) {
        const std::size_t group = end - begin;
        std::vector<Pool> pools(group);
        for (Pool& pool : pools) pool.reset(params.k);
        std::vector<float> scores(kPiece * group);
        for (std::size_t first = 0; first < keys.rows; first += kPiece) {
          const std::size_t count = std::min(kPiece, keys.rows - first);
          score_rows(rows_of(keys.slice(first, count)), queries.slice(begin, group), scores.data());
          for (std::size_t i = 0; i < count; ++i) {
            for (std::size_t g = 0; g < group; ++g) {
              if (scores[i * group + g] > pools[g].threshold()) {
                pools[g].add(scores[i * group + g], static_cast<Id>(first + i));
              }
            }
          }
          for (Pool& pool : pools) pool.settle();
        }
        for (std::size_t g = 0; g < group; ++g) {
          keep_best(pools[g].items(), params.k);
          store_row(pools[g].items(), begin + g, lists);
        }
      });
}

/// 8-bit scan of all keys, exact rerank of the best `pool`. The store is in blocks.
void scan_int8(const KeyStore& store, MatrixView<float> queries, const KnnParams& params,
               const Execution& run, KnnLists& lists) {
  const AnyMatrixView keys = store.stored();
  const std::size_t pool =
      std::min(keys.rows, params.pool > 0 ? params.pool : list_pool(params.k, keys.cols));
  constexpr std::size_t kTile = CodeTile::kMaxTile;
  parallel_for(
      queries.rows, kTile, run, "exact neighbours", [&](std::size_t begin, std::size_t end, int) {
        thread_local BlockScanScratch scan_scratch;
        thread_local RerankScratch rerank_scratch;
        Matrix<float> moved;
        const EncodedQueries encoded = store.encode_queries(
            in_range(queries.slice(begin, end - begin), store.longest(), moved));
        Pool pools[kTile];
        for (Pool& p : pools) p.reset(pool);
        scan_blocks(blocks_of(store), tile_of(encoded, 0, end - begin), pools, scan_scratch);
        for (std::size_t g = 0; g < end - begin; ++g) {
          rerank(keys, queries.row(begin + g), params.k, pools[g].items(), rerank_scratch);
          store_row(pools[g].items(), begin + g, lists);
        }
      });
}

}  // namespace

void KnnParams::validate(std::size_t n) const {
  require(k >= 1, "k is 0");
  require(k <= n, "k is {}, but there are only {} keys", k, n);
  require(pool == 0 || pool >= k, "pool is {}, must be 0 or at least k = {}", pool, k);
}

KnnLists exact_knn(AnyMatrixView keys, MatrixView<float> queries, const KnnParams& params,
                   const Execution& run) {
  run.validate();
  require(keys.rows > 0, "keys is empty");
  require(keys.cols > 0, "keys have dimension 0");
  require(queries.rows > 0, "queries is empty");
  require(queries.cols == keys.cols, "queries have dimension {}, keys have {}", queries.cols,
          keys.cols);
  params.validate(keys.rows);
  require_finite(keys, "keys");
  require_finite(AnyMatrixView::of(queries), "queries");
  require_products(queries, keys, "queries");
  KnnLists lists{Matrix<Id>(queries.rows, params.k), Matrix<float>(queries.rows, params.k)};
  if (params.method == KnnMethod::f32) {
    scan_f32(keys, queries, params, run, lists);
  } else {
    const AnyMatrix looked_at = AnyMatrix::look_at(keys);
    scan_int8(KeyStore::encode(looked_at, queries, CodeLayout::blocks, run), queries, params, run,
              lists);
  }
  return lists;
}

KnnLists knn_of(const KeyStore& store, MatrixView<float> queries, const KnnParams& params,
                const Execution& run) {
  if (params.method == KnnMethod::f32) return exact_knn(store.stored(), queries, params, run);
  KnnLists lists{Matrix<Id>(queries.rows, params.k), Matrix<float>(queries.rows, params.k)};
  scan_int8(store.in_blocks(), queries, params, run, lists);
  return lists;
}

void require_ids(MatrixView<Id> ids, std::size_t keys, std::string_view argument) {
  for (std::size_t i = 0; i < ids.rows; ++i) {
    for (std::size_t j = 0; j < ids.cols; ++j) {
      const Id id = ids.row(i)[j];
      require(id == kNoId || id < keys, "{} row {} names key {}, but there are only {} keys",
              argument, i, id, keys);
    }
  }
}

double recall(MatrixView<Id> truth, MatrixView<Id> found, std::size_t keys) {
  require(truth.rows == found.rows, "found has {} rows, truth has {}", found.rows, truth.rows);
  require(truth.rows > 0 && truth.cols > 0, "truth is empty");
  require_ids(truth, keys, "truth");
  require_ids(found, keys, "found");
  std::size_t hits = 0;
  std::unordered_set<Id> wanted;
  for (std::size_t i = 0; i < truth.rows; ++i) {
    wanted.clear();
    wanted.insert(truth.row(i), truth.row(i) + truth.cols);
    wanted.erase(kNoId);
    for (std::size_t j = 0; j < found.cols; ++j) hits += wanted.erase(found.row(i)[j]);
  }
  return static_cast<double>(hits) / static_cast<double>(truth.rows * truth.cols);
}

}  // namespace keyseek
