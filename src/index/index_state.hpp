/// What an Index holds: the state of one kind, which never changes.
#pragma once

#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "index/index_file.hpp"
#include "keyseek/index.hpp"

namespace keyseek {

class IndexState {
 public:
  explicit IndexState(KeyStore store) : store_(std::move(store)) {}
  virtual ~IndexState() = default;
  IndexState(const IndexState&) = delete;
  IndexState& operator=(const IndexState&) = delete;

  [[nodiscard]] virtual IndexKind kind() const noexcept = 0;
  [[nodiscard]] const KeyStore& store() const noexcept { return store_; }
  /// Beyond the stored keys.
  [[nodiscard]] virtual std::size_t extra_bytes() const { return store_.code_bytes(); }
  [[nodiscard]] virtual std::vector<IndexFact> facts() const { return {}; }
  [[nodiscard]] virtual std::vector<OperatingPoint> operating_points() const { return {}; }
  [[nodiscard]] virtual std::optional<BuildReport> build_report() const { return {}; }

  /// Searches a step that is checked and begun.
  virtual void search(MatrixView<float> queries, const SearchParams& params,
                      SearchScratch::State& scratch, Hits& hits) const = 0;
  [[nodiscard]] virtual std::shared_ptr<const IndexState> appended(AnyMatrixView keys,
                                                                   MatrixView<float> training,
                                                                   const Execution& run) const = 0;
  /// Of the first `keys`, which are fewer than there are.
  [[nodiscard]] virtual std::shared_ptr<const IndexState> truncated(std::size_t keys,
                                                                    const Execution& run) const = 0;
  /// Its sections.
  virtual void write(IndexFileWriter& file) const { file.add(store_); }

 private:
  KeyStore store_;
};

/// All that an Index is: a state, and what its vectors are made of.
struct IndexContents {
  std::shared_ptr<const IndexState> state;
  MetricSpace space = {};
};

/// The way from an Index to its state and back, for the files that hold more than an index.
struct IndexAccess {
  [[nodiscard]] static std::shared_ptr<const IndexState> state(const Index& index) {
    return index.state();
  }
  [[nodiscard]] static Index make(std::shared_ptr<const IndexState> state) {
    return make(IndexContents{std::move(state), {}});
  }
  [[nodiscard]] static Index make(IndexContents contents) {
    return Index(std::make_shared<const IndexContents>(std::move(contents)));
  }
};

/// The sections of an index, in a file that holds more than one (HeadCache's). The index lives
/// until the file is saved.
void write_index(const Index& index, IndexFileWriter& file);
[[nodiscard]] Index read_index(IndexKind kind, const ContainerReader& file);

}  // namespace keyseek
