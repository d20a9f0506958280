/// Indexes: keys that can be searched, saved and mapped.
///
/// `FlatIndex` scans every key (8-bit, the group's queries batched, threshold seeded by
/// the previous step, exact rerank). `SketchIndex` scans a sketch of every key, a fraction of its
/// codes, and scores the best of each query again. `ProjectionIndex` looks at a few per cent of
/// them: key store + graph + router + dials as one value. All have the same `search`.
///
/// Searching is const, thread-safe and takes no lock that another search or an append
/// holds for long: it works on a snapshot. `append` is for one writer at a time, beside
/// any number of searches; a search sees all of an append or nothing of it.
///
/// An index owns its keys and everything else; copies share the bytes until one appends.
///
///     auto index = keyseek::ProjectionIndex::build(keys, training);
///     index.save("head.ks");
///     auto mapped = keyseek::ProjectionIndex::map("head.ks");
///     keyseek::SearchScratch scratch;
///     keyseek::Hits hits;
///     mapped.search(queries, {.k = 100, .target_recall = 0.99}, scratch, hits);
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "keyseek/execution.hpp"
#include "keyseek/graph.hpp"
#include "keyseek/key_store.hpp"
#include "keyseek/knn.hpp"
#include "keyseek/matrix.hpp"
#include "keyseek/rope.hpp"
#include "keyseek/router.hpp"
#include "keyseek/search.hpp"
#include "keyseek/sketch.hpp"
#include "keyseek/snapshot.hpp"

namespace keyseek {

class ContainerReader;
class IndexFileWriter;

class FlatIndex {
 public:
  FlatIndex() = default;  ///< empty; using it is an Error
  /// Copies and encodes `keys` [n, d].
  [[nodiscard]] static FlatIndex build(AnyMatrixView keys, const Execution& run = {});

  [[nodiscard]] std::size_t size() const;
  [[nodiscard]] std::size_t dim() const;
  [[nodiscard]] AnyMatrix keys() const;     ///< as stored; shares the index's memory
  [[nodiscard]] std::size_t bytes() const;  ///< all of it, stored keys included

  /// `queries` [G, d], 1 <= G <= 64; fills `hits`.
  void search(MatrixView<float> queries, const SearchParams& params, SearchScratch& scratch,
              Hits& hits) const;
  void append(AnyMatrixView keys);

  void save(const std::filesystem::path& path) const;
  /// Reads and checks everything.
  [[nodiscard]] static FlatIndex load(const std::filesystem::path& path);
  /// Maps the file; checks everything as `load` does, then pages are shared and evictable.
  [[nodiscard]] static FlatIndex map(const std::filesystem::path& path);
  /// What `save` would write, to be sent or kept elsewhere, and its way back.
  [[nodiscard]] std::vector<std::byte> to_bytes() const;
  [[nodiscard]] static FlatIndex from_bytes(std::span<const std::byte> bytes);
  /// Its sections, in a file that holds more than an index (HeadCache's).
  void write(IndexFileWriter& file) const;
  [[nodiscard]] static FlatIndex read(const ContainerReader& file);

 private:
  struct State;
  explicit FlatIndex(std::shared_ptr<const State> state);
  [[nodiscard]] std::shared_ptr<const State> state() const;  ///< throws when empty
  Snapshot<State> state_;
};

/// Every key is looked at, but not as closely: at 5 % left out by the sketch, recall is .99 and
/// more, and what it misses are keys like others that it found. So it misses no key of weight, also
/// for a query unlike all that came before, where a ProjectionIndex may.
class SketchIndex {
 public:
  SketchIndex() = default;  ///< empty; using it is an Error
  /// Copies and encodes `keys` [n, d], for queries like `queries` [m, d]. Throws Error on empty or
  /// mismatching input.
  [[nodiscard]] static SketchIndex build(AnyMatrixView keys, MatrixView<float> queries,
                                         const SketchParams& params = {},
                                         const Execution& run = {});

  [[nodiscard]] std::size_t size() const;
  [[nodiscard]] std::size_t dim() const;
  [[nodiscard]] std::size_t sketch_dim() const;  ///< coordinates of a key in the sketch
  [[nodiscard]] AnyMatrix keys() const;          ///< as stored; shares the index's memory
  [[nodiscard]] std::size_t bytes() const;       ///< all of it, stored keys included

  /// `queries` [G, d], 1 <= G <= 64; fills `hits`. Of each query the best 400 + 4 k by the sketch
  /// are scored in 8 bits for all of the group.
  void search(MatrixView<float> queries, const SearchParams& params, SearchScratch& scratch,
              Hits& hits) const;
  void append(AnyMatrixView keys);

  void save(const std::filesystem::path& path) const;
  /// Reads and checks everything.
  [[nodiscard]] static SketchIndex load(const std::filesystem::path& path);
  /// Maps the file; checks everything as `load` does, then pages are shared and evictable.
  [[nodiscard]] static SketchIndex map(const std::filesystem::path& path);
  /// What `save` would write, to be sent or kept elsewhere, and its way back.
  [[nodiscard]] std::vector<std::byte> to_bytes() const;
  [[nodiscard]] static SketchIndex from_bytes(std::span<const std::byte> bytes);
  /// Its sections, in a file that holds more than an index (HeadCache's).
  void write(IndexFileWriter& file) const;
  [[nodiscard]] static SketchIndex read(const ContainerReader& file);

 private:
  struct State;
  explicit SketchIndex(std::shared_ptr<const State> state);
  [[nodiscard]] std::shared_ptr<const State> state() const;  ///< throws when empty
  Snapshot<State> state_;
};

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

/// Dials that reached a recall on the held-out queries, and at what cost.
struct OperatingPoint {
  double target_recall = 0;
  double recall = 0;            ///< measured on the held-out queries
  double scanned_fraction = 0;  ///< keys scanned per step / n, likewise
  Dials dials;
  /// By the cost model a FlatIndex is the better choice, or no dials reached the target.
  bool flat_is_better = false;
};

struct BuildReport {
  GraphReport graph;
  std::size_t training_queries = 0;
  std::size_t tuning_queries = 0;
  /// Seconds, of this build only (not stored with the index).
  double lists_s = 0, graph_s = 0, router_s = 0, tune_s = 0, total_s = 0;
};

class ProjectionIndex {
 public:
  ProjectionIndex() = default;  ///< empty; using it is an Error

  /// Builds on `keys` [n, d] from `training`. Throws Error on empty or mismatching input.
  [[nodiscard]] static ProjectionIndex build(AnyMatrixView keys, const TrainingQueries& training,
                                             const ProjectionParams& params = {},
                                             const Execution& run = {},
                                             BuildReport* report = nullptr);
  /// The same from exact lists that the caller already has: `lists` [training.train.rows(), k].
  [[nodiscard]] static ProjectionIndex build_from_lists(AnyMatrixView keys,
                                                        const TrainingQueries& training,
                                                        MatrixView<Id> lists,
                                                        const ProjectionParams& params = {},
                                                        const Execution& run = {},
                                                        BuildReport* report = nullptr);

  [[nodiscard]] std::size_t size() const;
  [[nodiscard]] std::size_t dim() const;
  [[nodiscard]] AnyMatrix keys() const;           ///< as stored; shares the index's memory
  [[nodiscard]] std::size_t bytes() const;        ///< all of it, stored keys included
  [[nodiscard]] std::size_t extra_bytes() const;  ///< beyond the keys as given
  [[nodiscard]] std::size_t unreachable() const;  ///< keys no entry point leads to, counted now
  /// Tuned dials, by rising target recall; empty when built without held-out queries.
  [[nodiscard]] std::vector<OperatingPoint> dials() const;

  /// `queries` [G, d], 1 <= G <= 64; fills `hits`.
  void search(MatrixView<float> queries, const SearchParams& params, SearchScratch& scratch,
              Hits& hits) const;

  /// Adds `keys` [m, d]; their ids follow the present ones. `training` (may be empty, [r, d])
  /// are queries that want the new keys, from which they get their links; without any they
  /// are linked to keys near them.
  void append(AnyMatrixView keys, MatrixView<float> training, const Execution& run = {});

  void save(const std::filesystem::path& path) const;
  [[nodiscard]] static ProjectionIndex load(const std::filesystem::path& path);
  [[nodiscard]] static ProjectionIndex map(const std::filesystem::path& path);
  /// What `save` would write, to be sent or kept elsewhere, and its way back.
  [[nodiscard]] std::vector<std::byte> to_bytes() const;
  [[nodiscard]] static ProjectionIndex from_bytes(std::span<const std::byte> bytes);
  /// Its sections, in a file that holds more than an index (HeadCache's).
  void write(IndexFileWriter& file) const;
  [[nodiscard]] static ProjectionIndex read(const ContainerReader& file);

 private:
  struct State;
  explicit ProjectionIndex(std::shared_ptr<const State> state);
  [[nodiscard]] std::shared_ptr<const State> state() const;  ///< throws when empty
  Snapshot<State> state_;
};

/// Kind of an index file: "flat", "sketch" or "projection". Throws Error when it is none of them.
[[nodiscard]] std::string index_kind(const std::filesystem::path& path);

}  // namespace keyseek
