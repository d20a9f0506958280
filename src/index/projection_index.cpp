#include <algorithm>
#include <chrono>

#include "base/fail.hpp"
#include "base/saved_count.hpp"
#include "graph/lists.hpp"
#include "index/index_file.hpp"
#include "index/pack.hpp"
#include "index/step.hpp"
#include "index/tuning.hpp"
#include "keyseek/index.hpp"
#include "score/range.hpp"
#include "search/projection_search.hpp"
#include "search/scratch.hpp"

namespace keyseek {

struct ProjectionIndex::State {
  KeyStore store;  ///< in rows
  Graph graph;
  Router router;
  std::vector<OperatingPoint> points;
  ProjectionParams params;

  [[nodiscard]] SearchSpace space() const { return {store, graph, router}; }
};

namespace {

constexpr const char* kKind = "projection";

/// Seconds since it was made or last asked.
class Stopwatch {
 public:
  double lap() {
    const auto now = std::chrono::steady_clock::now();
    const double seconds = std::chrono::duration<double>(now - last_).count();
    last_ = now;
    return seconds;
  }

 private:
  std::chrono::steady_clock::time_point last_ = std::chrono::steady_clock::now();
};

void require_training(AnyMatrixView keys, const TrainingQueries& training) {
  require(keys.rows > 0, "keys is empty");
  require_dimension(keys.cols);
  require(!training.train.empty(), "training.train is empty");
  require(training.train.cols() == keys.cols, "training.train has dimension {}, keys have {}",
          training.train.cols(), keys.cols);
  require_range(keys, "keys");
  require_range(AnyMatrixView::of(training.train.view()), "training.train");
  require_products(training.train, keys, "training.train");
  require(training.group >= 1 && training.group <= 64, "training.group is {}, must be in [1, 64]",
          training.group);
  if (training.tuning.empty()) return;
  require(training.tuning.cols() == keys.cols, "training.tuning has dimension {}, keys have {}",
          training.tuning.cols(), keys.cols);
  require(training.tuning.rows() % training.group == 0,
          "training.tuning has {} rows, no multiple of group = {}", training.tuning.rows(),
          training.group);
  require_range(AnyMatrixView::of(training.tuning.view()), "training.tuning");
  require_products(training.tuning, keys, "training.tuning");
}

}  // namespace

void ProjectionParams::validate() const {
  require(list_length >= 1, "list_length is 0");
  require_saveable("list_length", list_length);
  require(tuning_k >= 1, "tuning_k is 0");
  require_saveable("tuning_k", tuning_k);
  require(list_method <= KnnMethod::int8, "list_method is {}, which is none",
          static_cast<int>(list_method));
  for (const double target : target_recalls) {
    require(target > 0.0 && target < 1.0, "target_recalls hold {}, must be in (0, 1)", target);
  }
  graph.validate();
  router.validate();
}

ProjectionIndex::ProjectionIndex(std::shared_ptr<const State> state) : state_(std::move(state)) {}

std::shared_ptr<const ProjectionIndex::State> ProjectionIndex::state() const {
  auto state = state_.get();
  require(state != nullptr, "the ProjectionIndex is empty: build or load one first");
  return state;
}

ProjectionIndex ProjectionIndex::build(AnyMatrixView keys, const TrainingQueries& training,
                                       const ProjectionParams& params, const Execution& run,
                                       BuildReport* report) {
  params.validate();
  run.validate();
  require_training(keys, training);
  Stopwatch watch;
  const KnnLists lists =
      exact_knn(keys, training.train,
                {.k = std::min(params.list_length, keys.rows), .method = params.list_method}, run);
  const double lists_s = watch.lap();
  ProjectionIndex index = build_from_lists(keys, training, lists.ids, params, run, report);
  if (report != nullptr) {
    report->lists_s = lists_s;
    report->total_s += lists_s;
  }
  return index;
}

ProjectionIndex ProjectionIndex::build_from_lists(AnyMatrixView keys,
                                                  const TrainingQueries& training,
                                                  MatrixView<Id> lists,
                                                  const ProjectionParams& params,
                                                  const Execution& run, BuildReport* report) {
  params.validate();
  run.validate();
  require_training(keys, training);
  require(lists.rows == training.train.rows(), "lists has {} rows, training.train {}", lists.rows,
          training.train.rows());
  require_lists(lists, keys.rows);

  Stopwatch watch;
  BuildReport seen;
  auto state = std::make_shared<State>();
  state->params = params;
  state->store = KeyStore::encode(keys, training.train, CodeLayout::rows, run);
  BuiltGraph built = build_graph(lists, state->store, params.graph, run);
  state->graph = std::move(built.graph);
  seen.graph = built.report;
  seen.graph_s = watch.lap();
  state->router = Router::build(training.train, lists, keys, params.router, run);
  seen.router_s = watch.lap();
  pack(state->store, state->graph, state->router);
  state->points = tune(state->space(), training, params, run);
  seen.tune_s = watch.lap();
  seen.training_queries = training.train.rows();
  seen.tuning_queries = training.tuning.rows();
  seen.total_s = seen.graph_s + seen.router_s + seen.tune_s;
  if (report != nullptr) *report = seen;
  return ProjectionIndex(std::move(state));
}

std::size_t ProjectionIndex::size() const { return state()->store.size(); }
std::size_t ProjectionIndex::dim() const { return state()->store.dim(); }
AnyMatrix ProjectionIndex::keys() const { return state()->store.parts().keys; }

std::size_t ProjectionIndex::bytes() const {
  const AnyMatrixView keys = state()->store.stored();
  return keys.rows * keys.row_bytes() + extra_bytes();
}

std::size_t ProjectionIndex::extra_bytes() const {
  const auto state = this->state();
  return state->store.code_bytes() + state->graph.bytes() + state->router.bytes();
}

std::size_t ProjectionIndex::unreachable() const { return count_unreachable(state()->graph); }
std::vector<OperatingPoint> ProjectionIndex::dials() const { return state()->points; }

void ProjectionIndex::search(MatrixView<float> queries, const SearchParams& params,
                             SearchScratch& scratch, Hits& hits) const {
  const auto state = this->state();
  require_step(queries, params, state->store);
  const Dials dials = params.dials ? *params.dials
                                   : choose_dials(state->points, state->params.tuning_k, params.k,
                                                  params.target_recall);
  begin_step(state->store, queries, params, scratch.state(), hits);
  search_projection(state->space(), queries, params, dials, scratch.state(), hits, params.k);
}

void ProjectionIndex::append(AnyMatrixView keys, MatrixView<float> training, const Execution& run) {
  run.validate();
  const auto old = state();
  if (keys.rows == 0) return;
  auto state = std::make_shared<State>(*old);
  state->store = old->store.appended(keys);
  const std::size_t n = state->store.size();
  Links links = old->graph.thaw();
  links.resize(n);
  if (!training.empty()) {
    const ProjectionParams& params = old->params;
    const KnnLists lists =
        exact_knn(state->store.stored(), training,
                  {.k = std::min(params.list_length, n), .method = params.list_method}, run);
    Links fresh = project_cooccurrence(lists.ids, n, params.graph, run);
    // Keys that were there keep their links: only the new ones take theirs from here.
    for (std::size_t i = 0; i < old->store.size(); ++i) fresh[i].clear();
    prune(fresh, state->store, params.graph.degree, run);
    link_new(links, fresh, old->store.size(), params.graph.max_degree);
    state->router = old->router.extended(training, lists.ids, n, run);
  }
  // The lists that the dials were tuned on do not name the new keys, but links lead to them.
  for (OperatingPoint& point : state->points) {
    point.dials.expand = std::max(point.dials.expand, Dials().expand);
  }
  const auto entry_points = old->graph.entry_points();
  attach(links, entry_points, state->store, run);
  state->graph = Graph::freeze(links, {entry_points.begin(), entry_points.end()});
  pack(state->store, state->graph, state->router);
  state_.set(std::move(state));
}

void ProjectionIndex::write(IndexFileWriter& file) const {
  const auto state = this->state();
  file.add(state->store);
  file.add(state->graph);
  file.add(state->router);
  file.add(state->points);
  file.add(state->params);
}

void ProjectionIndex::save(const std::filesystem::path& path) const {
  IndexFileWriter file(kKind);
  const ProjectionIndex kept = *this;  // the file looks at its arrays
  kept.write(file);
  file.save(path);
}

std::vector<std::byte> ProjectionIndex::to_bytes() const {
  IndexFileWriter file(kKind);
  const ProjectionIndex kept = *this;  // the file looks at its arrays
  kept.write(file);
  return file.bytes();
}

ProjectionIndex ProjectionIndex::read(const ContainerReader& file) {
  auto state = std::make_shared<State>();
  state->store = read_store(file);
  if (state->store.layout() != CodeLayout::rows) {
    fail(ErrorCode::corrupt, "{}: the codes of a projection index are not in rows",
         file.path().string());
  }
  state->graph = read_graph(file, state->store.size());
  state->router = read_router(file, state->store);
  state->points = read_points(file);
  state->params = read_params(file);
  return ProjectionIndex(std::move(state));
}

ProjectionIndex ProjectionIndex::load(const std::filesystem::path& path) {
  return read(ContainerReader::load(path, kKind));
}
ProjectionIndex ProjectionIndex::map(const std::filesystem::path& path) {
  return read(ContainerReader::map(path, kKind));
}
ProjectionIndex ProjectionIndex::from_bytes(std::span<const std::byte> bytes) {
  return read(ContainerReader::copy_of(bytes, kKind));
}

}  // namespace keyseek
