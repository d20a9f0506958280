/// The index over a head's indexed keys, whichever kind it is.
#pragma once

#include <cstddef>
#include <optional>
#include <utility>

#include "keyseek/decode.hpp"
#include "keyseek/index.hpp"

namespace keyseek {

class ContainerReader;
class IndexFileWriter;

/// The kind of index that a plan with this retriever searches, if any.
[[nodiscard]] std::optional<IndexKind> kind_of(Retriever retriever) noexcept;

/// One of our indexes, the caller's own search, or none. Copies share what was indexed.
class HeadIndex {
 public:
  HeadIndex() = default;  ///< none
  explicit HeadIndex(Index index) : index_(std::move(index)) {}
  explicit HeadIndex(SearchKeys search) : search_(std::move(search)) {}

  [[nodiscard]] bool empty() const { return index_.empty() && !search_; }
  /// Up to plan.stop.k keys per query; the plan must be one for this index. `previous` may be null
  /// or `hits` itself.
  void search(const HeadPlan& plan, MatrixView<float> queries, bool scan_novel,
              const Hits* previous, SearchScratch& scratch, Hits& hits) const;
  /// The keys as the index has them, or `otherwise` where it has none of its own.
  [[nodiscard]] AnyMatrix keys_or(const AnyMatrix& otherwise) const;
  /// Of the index, its keys included; those of `keys` where it has none of its own.
  [[nodiscard]] std::size_t bytes_or(const AnyMatrix& keys) const;
  /// Of the index without its keys.
  [[nodiscard]] std::size_t extra_bytes() const;

  /// Whether it can be made of more keys without being built anew.
  [[nodiscard]] bool can_append() const;
  /// `training`: queries that want the new keys.
  void append(AnyMatrixView keys, MatrixView<float> training, const Execution& run);
  /// Of the first `count` of its keys; it is one of ours.
  [[nodiscard]] HeadIndex truncated(std::size_t count) const;
  /// Whether tuning found a scan cheaper at this recall.
  [[nodiscard]] bool flat_is_better(double recall) const;

  /// Its sections; of none, and of the caller's search, none.
  void write(IndexFileWriter& file) const;
  [[nodiscard]] static HeadIndex read(const ContainerReader& file, Retriever retriever);

 private:
  Index index_;
  SearchKeys search_;
};

}  // namespace keyseek
