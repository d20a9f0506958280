/// The shell of every index: what all kinds have in common.
#include "keyseek/index.hpp"

#include <algorithm>
#include <limits>

#include "base/fail.hpp"
#include "base/parallel.hpp"
#include "index/builder.hpp"
#include "index/index_state.hpp"
#include "index/kinds.hpp"
#include "score/range.hpp"
#include "search/scratch.hpp"
#include "search/step.hpp"

namespace keyseek {
namespace {

/// Throws Error for options that the kind cannot honour.
void require_honoured(const SearchParams& params, IndexKind kind) {
  require(!params.projection || kind == IndexKind::projection,
          "the index is of kind {}: target_recall, dials, scan_novel and max_scanned "
          "(params.projection) are of a projection index",
          to_string(kind));
}

Index read_any(const ContainerReader& file) {
  return read_index(entry_of_file(file.kind(), file.path()).kind, file);
}

}  // namespace

void write_index(const Index& index, IndexFileWriter& file) {
  IndexAccess::state(index)->write(file);
}

Index read_index(IndexKind kind, const ContainerReader& file) {
  const KindOfIndex& entry = entry_of(kind);
  KeyStore store = read_store(file);
  if (store.layout() != entry.layout) {
    fail(ErrorCode::corrupt, "{}: the layout of its codes is {}, that of a {} index is {}",
         file.path().string(), to_string(store.layout()), entry.name, to_string(entry.layout));
  }
  return IndexAccess::make(entry.read(file, std::move(store)));
}

const KeyStore& IndexBuilder::trained_store() {
  if (!trained_) trained_ = KeyStore::encode(keys_, training_.train, CodeLayout::rows, run_);
  return *trained_;
}

Index IndexBuilder::build(IndexKind kind, const IndexParams& params) {
  run_.validate();
  require(keys_.rows() > 0, "keys is empty");
  require(training_.train.empty() || training_.train.cols() == keys_.cols(),
          "training.train has dimension {}, keys have {}", training_.train.cols(), keys_.cols());
  return IndexAccess::make(entry_of(kind).build(*this, params));
}

Index::Index(std::shared_ptr<const IndexState> state) : state_(std::move(state)) {}

std::shared_ptr<const IndexState> Index::state() const {
  auto state = state_.get();
  require(state != nullptr, "the Index is empty: build or open one first");
  return state;
}

Index Index::build(IndexKind kind, AnyMatrix keys, const TrainingQueries& training,
                   const IndexParams& params, const Execution& run) {
  return IndexBuilder(std::move(keys), training, run).build(kind, params);
}

Index Index::build(IndexKind kind, AnyMatrixView keys, const TrainingQueries& training,
                   const IndexParams& params, const Execution& run) {
  return build(kind, AnyMatrix::copy_of(keys), training, params, run);
}

IndexKind Index::kind() const { return state()->kind(); }
std::size_t Index::size() const { return state()->store().size(); }
std::size_t Index::dim() const { return state()->store().dim(); }
AnyMatrix Index::keys() const { return state()->store().parts().keys; }
std::size_t Index::bytes() const {
  const auto state = this->state();
  const AnyMatrixView keys = state->store().stored();
  return keys.rows * keys.row_bytes() + state->extra_bytes();
}
std::size_t Index::extra_bytes() const { return state()->extra_bytes(); }
std::vector<IndexFact> Index::facts() const { return state()->facts(); }
std::vector<OperatingPoint> Index::operating_points() const { return state()->operating_points(); }
std::optional<BuildReport> Index::build_report() const { return state()->build_report(); }

void Index::search(MatrixView<float> queries, const SearchParams& params, SearchScratch& scratch,
                   Hits& hits) const {
  const auto state = this->state();
  require_step(queries, params, state->store());
  require_honoured(params, state->kind());
  begin_step(state->store(), queries, params, scratch.state(), hits);
  state->search(queries, params, scratch.state(), hits);
}

void Index::append(AnyMatrixView keys, MatrixView<float> training, const Execution& run) {
  run.validate();
  const auto old = state();
  if (keys.rows > 0) state_.set(old->appended(keys, training, run));
}

void Index::truncate(std::size_t keys, const Execution& run) {
  run.validate();
  const auto old = state();
  require(keys >= 1, "keys is 0: an index holds at least one");
  require(keys <= old->store().size(), "keys is {}, the index holds {}", keys, old->store().size());
  if (keys < old->store().size()) state_.set(old->truncated(keys, run));
}

void Index::save(const std::filesystem::path& path) const {
  const auto state = this->state();  // the file looks at its arrays
  IndexFileWriter file{std::string(to_string(state->kind()))};
  state->write(file);
  file.save(path);
}

std::vector<std::byte> Index::to_bytes() const {
  const auto state = this->state();  // the file looks at its arrays
  IndexFileWriter file{std::string(to_string(state->kind()))};
  state->write(file);
  return file.bytes();
}

Index Index::open(const std::filesystem::path& path, FileMemory memory) {
  (void)index_kind(path);  // what is no index is refused before it is read
  return read_any(memory == FileMemory::mapped ? ContainerReader::map(path)
                                               : ContainerReader::load(path));
}

Index Index::from_bytes(std::span<const std::byte> bytes) {
  return read_any(ContainerReader::copy_of(bytes));
}

}  // namespace keyseek
