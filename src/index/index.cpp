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
#include "search/allowed_search.hpp"
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

constexpr std::string_view kMetricSection = "metric";

MetricSpace read_space(const ContainerReader& file, const KeyStore& store) {
  if (!file.has(kMetricSection)) return {};
  Numbers numbers(file, kMetricSection);
  const auto metric =
      static_cast<Metric>(numbers.whole_up_to(static_cast<std::size_t>(Metric::cosine)));
  const double w = numbers.real();
  numbers.check(w > 0, "holds a number that is out of range");
  numbers.finish();
  const MetricSpace space = MetricSpace::of(metric, w);
  numbers.check(space.metric() == Metric::ip ||
                    (store.stored().dtype == Dtype::f32 && store.dim() > space.extra_dim()),
                "does not match the keys");
  return space;
}

Index read_any(const ContainerReader& file) {
  const auto state =
      IndexAccess::state(read_index(entry_of_file(file.kind(), file.path()).kind, file));
  return IndexAccess::make({state, read_space(file, state->store())});
}

void write_contents(const IndexContents& contents, IndexFileWriter& file) {
  contents.state->write(file);
  const MetricSpace& space = contents.space;
  if (space.metric() == Metric::ip) return;
  file.add_numbers(std::string(kMetricSection),
                   {static_cast<double>(static_cast<int>(space.metric())), space.w()});
}

/// A step in the vectors that the state holds.
void search_state(const IndexState& state, MatrixView<float> queries, const SearchParams& params,
                  SearchScratch::State& scratch, Hits& hits) {
  require_step(queries, params, state.store());
  require_honoured(params, state.kind());
  begin_step(state.store(), queries, params, scratch, hits);
  const bool bounded = params.projection && params.projection->max_scanned < state.store().size();
  if (params.allowed != nullptr && !bounded && are_few(*params.allowed, state.store().size()))
    return search_allowed(state.store(), queries, params, scratch, hits);
  state.search(queries, params, scratch, hits);
}

/// Inner products of all rows into what the metric says; what throws leaves no hits behind.
void convert(const MetricSpace& space, MatrixView<float> queries, AnyMatrixView keys, Hits& hits) {
  try {
    for (std::size_t g = 0; g < hits.group; ++g) {
      space.convert({queries.row(g), queries.cols}, keys,
                    std::span(hits.ids).subspan(g * hits.k, hits.k),
                    std::span(hits.scores).subspan(g * hits.k, hits.k));
    }
  } catch (...) {
    std::fill(hits.ids.begin(), hits.ids.end(), kNoId);
    std::fill(hits.count.begin(), hits.count.end(), std::size_t{0});
    throw;
  }
}

/// Queries of another metric, as they are to be trained with.
TrainingQueries moved(const MetricSpace& space, const TrainingQueries& training) {
  require(training.lists.empty(),
          "training.lists is given, but lists by another metric than ip are made by the build");
  TrainingQueries out{.train = {}, .tuning = {}, .group = training.group};
  if (!training.train.empty()) out.train = space.queries(training.train, "training.train");
  if (!training.tuning.empty()) out.tuning = space.queries(training.tuning, "training.tuning");
  out.tuning_steps = training.tuning_steps;
  return out;
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

Index IndexBuilder::build(IndexKind kind, const IndexParams& params) {
  run_.validate();
  require(keys_.rows() > 0, "keys is empty");
  require(training_.train.empty() || training_.train.cols() == keys_.cols(),
          "training.train has dimension {}, keys have {}", training_.train.cols(), keys_.cols());
  return IndexAccess::make(entry_of(kind).build(*this, params));
}

Index::Index(std::shared_ptr<const IndexContents> contents) : contents_(std::move(contents)) {}

std::shared_ptr<const IndexContents> Index::contents() const {
  auto contents = contents_.get();
  require(contents != nullptr, "the Index is empty: build or open one first");
  return contents;
}

std::shared_ptr<const IndexState> Index::state() const { return contents()->state; }

void Index::replace(const IndexContents& old, std::shared_ptr<const IndexState> state) {
  contents_.set(std::make_shared<const IndexContents>(IndexContents{std::move(state), old.space}));
}

Index Index::build(IndexKind kind, AnyMatrix keys, const TrainingQueries& training,
                   const IndexParams& params, const Execution& run, Metric metric) {
  if (metric == Metric::ip) return IndexBuilder(std::move(keys), training, run).build(kind, params);
  require(keys.rows() > 0, "keys is empty");
  for (const auto& [name, part] : {std::pair("training.train", &training.train),
                                   std::pair("training.tuning", &training.tuning)}) {
    require(part->empty() || part->cols() == keys.cols(), "{} has dimension {}, keys have {}", name,
            part->cols(), keys.cols());
  }
  const MetricSpace space = MetricSpace::of(metric, keys.view());
  const TrainingQueries own = moved(space, training);
  const Index index = IndexBuilder(space.keys(keys.view()), own, run).build(kind, params);
  return IndexAccess::make({index.state(), space});
}

Index Index::build(IndexKind kind, AnyMatrixView keys, const TrainingQueries& training,
                   const IndexParams& params, const Execution& run, Metric metric) {
  return build(kind, AnyMatrix::copy_of(keys), training, params, run, metric);
}

IndexKind Index::kind() const { return state()->kind(); }
std::size_t Index::size() const { return state()->store().size(); }
std::size_t Index::dim() const {
  const auto contents = this->contents();
  return contents->state->store().dim() - contents->space.extra_dim();
}
Metric Index::metric() const { return contents()->space.metric(); }
MetricSpace Index::metric_space() const { return contents()->space; }
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
  const auto contents = this->contents();
  const MetricSpace& space = contents->space;
  const KeyStore& store = contents->state->store();
  if (space.metric() == Metric::ip)
    return search_state(*contents->state, queries, params, scratch.state(), hits);
  if (params.beta) {
    fail(ErrorCode::invalid_argument,
         "beta is {}, a difference of inner products, but the index is by {}", *params.beta,
         to_string(space.metric()));
  }
  require(queries.cols + space.extra_dim() == store.dim(),
          "queries have dimension {}, the index has {}", queries.cols,
          store.dim() - space.extra_dim());
  const Matrix<float> asked = space.queries(queries);
  search_state(*contents->state, asked, params, scratch.state(), hits);
  convert(space, queries, store.stored(), hits);
}

void Index::append(AnyMatrixView keys, MatrixView<float> training, const Execution& run) {
  run.validate();
  const auto old = contents();
  if (keys.rows == 0) return;
  const MetricSpace& space = old->space;
  if (space.metric() == Metric::ip) return replace(*old, old->state->appended(keys, training, run));
  const std::size_t d = old->state->store().dim() - space.extra_dim();
  require(keys.cols == d, "keys have dimension {}, the index has {}", keys.cols, d);
  require(training.empty() || training.cols == d, "training has dimension {}, the index has {}",
          training.cols, d);
  const AnyMatrix made = space.keys(keys);
  const Matrix<float> queries =
      training.empty() ? Matrix<float>() : space.queries(training, "training");
  replace(*old, old->state->appended(made.view(), queries, run));
}

void Index::truncate(std::size_t keys, const Execution& run) {
  run.validate();
  const auto old = contents();
  const std::size_t held = old->state->store().size();
  require(keys >= 1, "keys is 0: an index holds at least one");
  require(keys <= held, "keys is {}, the index holds {}", keys, held);
  if (keys < held) replace(*old, old->state->truncated(keys, run));
}

void Index::save(const std::filesystem::path& path) const {
  const auto contents = this->contents();  // the file looks at its arrays
  IndexFileWriter file{std::string(to_string(contents->state->kind()))};
  write_contents(*contents, file);
  file.save(path);
}

std::vector<std::byte> Index::to_bytes() const {
  const auto contents = this->contents();  // the file looks at its arrays
  IndexFileWriter file{std::string(to_string(contents->state->kind()))};
  write_contents(*contents, file);
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
