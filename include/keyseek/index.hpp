/// An index: keys that can be searched, saved and mapped.
///
/// Which kind? With queries of those to come at hand and more than a few thousand keys:
/// `projection`. To miss no key of weight even for a query unlike all that came before: `sketch`.
/// With few keys, or no queries to learn from: `flat`.
///
/// `flat` scans every key (8-bit, the group's queries batched, threshold seeded by the previous
/// step, exact rerank). `sketch` scans a sketch of every key, a fraction of such codes, and scores
/// the best of each query in full: recall is about .99, and what it misses are keys like others
/// that it found. It takes the least memory. `projection` looks at a few per cent of the keys,
/// where training queries and the graph that was made from them lead.
///
/// Searching is const, thread-safe and takes no lock that another search or an append
/// holds for long: it works on a snapshot. `append` and `truncate` are for one writer at a time,
/// beside any number of searches; a search sees all of it or nothing.
///
/// An index owns its keys and everything else, or shares what the caller shares; copies share the
/// bytes until one of them changes.
///
///     auto index = keyseek::Index::build(keyseek::IndexKind::projection, keys, training);
///     index.save("head.ks");
///     auto mapped = keyseek::Index::open("head.ks", keyseek::FileMemory::mapped);
///     keyseek::SearchScratch scratch;
///     keyseek::Hits hits;
///     mapped.search(queries, {.k = 100, .projection = {{.target_recall = 0.99}}}, scratch, hits);
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string_view>
#include <variant>
#include <vector>

#include "keyseek/execution.hpp"
#include "keyseek/graph.hpp"
#include "keyseek/knn.hpp"
#include "keyseek/matrix.hpp"
#include "keyseek/metric.hpp"
#include "keyseek/rope.hpp"
#include "keyseek/router.hpp"
#include "keyseek/search.hpp"
#include "keyseek/sketch.hpp"
#include "keyseek/snapshot.hpp"

namespace keyseek {

enum class IndexKind : std::uint8_t { flat, sketch, projection };
/// All of them.
[[nodiscard]] std::span<const IndexKind> index_kinds() noexcept;
/// "flat", "sketch" or "projection".
[[nodiscard]] std::string_view to_string(IndexKind kind) noexcept;
/// Throws Error(invalid_argument) that names `argument` when `name` is no kind's.
[[nodiscard]] IndexKind index_kind_of(std::string_view name, std::string_view argument);
/// Kind of an index file. Throws Error when it holds none.
[[nodiscard]] IndexKind index_kind(const std::filesystem::path& path);

struct ProjectionParams {
  std::size_t list_length = 100;  ///< k of the training queries' exact lists
  KnnMethod list_method = KnnMethod::int8;
  GraphParams graph = {};
  RouterParams router = {};
  /// Recalls to tune for, each in (0, 1); the dials found are stored with the index.
  std::vector<double> target_recalls = {0.9, 0.95, 0.98, 0.99, 0.995};
  std::size_t tuning_k = 100;

  void validate() const;  ///< throws Error(invalid_argument)
};

/// Of the kind that is built; nothing: its defaults.
using IndexParams = std::variant<std::monostate, SketchParams, ProjectionParams>;

/// Dials that reached a recall on the held-out queries, and at what cost.
struct OperatingPoint {
  double target_recall = 0;
  double recall = 0;            ///< measured on the held-out queries
  double scanned_fraction = 0;  ///< keys scanned per step / n, likewise
  Dials dials;
  /// By the cost model a flat index is the better choice, or no dials reached the target.
  bool flat_is_better = false;
};

/// What building a projection index found out.
struct BuildReport {
  GraphReport graph;
  std::size_t training_queries = 0;
  std::size_t tuning_queries = 0;
  double lists_s = 0, graph_s = 0, router_s = 0, tune_s = 0, total_s = 0;  ///< seconds
};

/// A number that an index of some kind has beside those that all have.
struct IndexFact {
  std::string_view name;
  std::size_t value = 0;
};

/// Results of many queries: rows are padded with kNoId and -infinity.
struct BatchHits {
  Matrix<Id> ids;        ///< [m, k] best first, equal scores by smaller id
  Matrix<float> scores;  ///< [m, k] exact inner products, or what the index's metric says
  SearchStats stats;     ///< over all steps
};

/// Where the bytes of an opened file are: in memory of their own, or in pages of the file that
/// others share and the system may evict. A mapped file may be replaced by a save, and must not be
/// truncated.
enum class FileMemory : std::uint8_t { own, mapped };

class IndexState;
struct IndexContents;

class Index {
 public:
  Index() = default;  ///< empty; using it is an Error

  /// Builds on `keys` [n, d], whose bytes are shared, from queries like those to come. A flat index
  /// needs none (`training` may be empty) and ignores them, a sketch index needs training.train, a
  /// projection index is tuned on training.tuning as well. Throws Error on empty or mismatching
  /// input and on params of another kind.
  ///
  /// metric: what a search is by. Other than the inner product, it is one of vectors that are made
  /// of the keys, in f32, and of all queries (`MetricSpace`), and `Hits::scores` are squared
  /// distances (l2, smallest first) or cosines. training.lists must be empty by l2 and cosine.
  [[nodiscard]] static Index build(IndexKind kind, AnyMatrix keys,
                                   const TrainingQueries& training = {},
                                   const IndexParams& params = {}, const Execution& run = {},
                                   Metric metric = Metric::ip);
  /// Likewise on a copy of `keys`.
  [[nodiscard]] static Index build(IndexKind kind, AnyMatrixView keys,
                                   const TrainingQueries& training = {},
                                   const IndexParams& params = {}, const Execution& run = {},
                                   Metric metric = Metric::ip);

  [[nodiscard]] bool empty() const { return contents_.get() == nullptr; }
  [[nodiscard]] IndexKind kind() const;
  [[nodiscard]] std::size_t size() const;
  [[nodiscard]] std::size_t dim() const;  ///< of the vectors that it is given
  [[nodiscard]] Metric metric() const;
  [[nodiscard]] MetricSpace metric_space() const;
  /// As stored, see `MetricSpace::keys`; shares the index's memory.
  [[nodiscard]] AnyMatrix keys() const;
  [[nodiscard]] std::size_t bytes() const;        ///< all of it, stored keys included
  [[nodiscard]] std::size_t extra_bytes() const;  ///< beyond the stored keys
  /// sketch: "sketch_dim", coordinates of a key in the sketch. projection: "unreachable", keys that
  /// no entry point leads to, counted now.
  [[nodiscard]] std::vector<IndexFact> facts() const;
  /// Tuned dials, by rising target recall; empty when there are none to tune, or when the index was
  /// built without held-out queries.
  [[nodiscard]] std::vector<OperatingPoint> operating_points() const;
  /// Of an index that was built here, if its kind makes one; a file holds none.
  [[nodiscard]] std::optional<BuildReport> build_report() const;

  /// `queries` [G, d], 1 <= G <= 64, are searched together; fills `hits`. Throws Error on an option
  /// that this kind of index cannot honour.
  void search(MatrixView<float> queries, const SearchParams& params, SearchScratch& scratch,
              Hits& hits) const;
  /// `queries` [m, d]: `group` consecutive ones are a step, as above; no step starts from another's
  /// hits (params.previous must be null), and the threads of `run` share the steps.
  [[nodiscard]] BatchHits search_batch(MatrixView<float> queries, std::size_t group,
                                       const SearchParams& params, const Execution& run = {}) const;

  /// Adds `keys` [m, d]; their ids follow the present ones. `training` (may be empty, [r, d])
  /// are queries that want the new keys, from which a projection index links them; without any it
  /// links them to keys near them. Other kinds need none.
  void append(AnyMatrixView keys, MatrixView<float> training = {}, const Execution& run = {});

  /// Takes keys back: the first `keys`, at least 1, stay. Links and lists lose the others; what
  /// no link leads to any more is linked to keys near it.
  void truncate(std::size_t keys, const Execution& run = {});

  void save(const std::filesystem::path& path) const;
  /// Reads an index of any kind and checks everything.
  [[nodiscard]] static Index open(const std::filesystem::path& path,
                                  FileMemory memory = FileMemory::own);
  /// What `save` would write, to be sent or kept elsewhere, and its way back.
  [[nodiscard]] std::vector<std::byte> to_bytes() const;
  [[nodiscard]] static Index from_bytes(std::span<const std::byte> bytes);

 private:
  friend struct IndexAccess;
  explicit Index(std::shared_ptr<const IndexContents> contents);
  [[nodiscard]] std::shared_ptr<const IndexContents> contents() const;  ///< throws when empty
  [[nodiscard]] std::shared_ptr<const IndexState> state() const;
  void replace(const IndexContents& old, std::shared_ptr<const IndexState> state);
  Snapshot<IndexContents> contents_;
};

}  // namespace keyseek
