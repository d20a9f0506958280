/// The projection index: key store, graph, router and tuned dials, from the exact lists of training
/// queries.
#include <algorithm>
#include <chrono>

#include "base/saved_count.hpp"
#include "graph/lists.hpp"
#include "index/kinds.hpp"
#include "index/pack.hpp"
#include "index/tuning.hpp"
#include "knn/knn_of_store.hpp"
#include "score/range.hpp"
#include "search/projection_search.hpp"

namespace keyseek {
namespace {

/// What a projection index has beside its key store.
struct ProjectionParts {
  Graph graph;
  Router router;
  std::vector<OperatingPoint> points;
  ProjectionParams params;
  std::optional<BuildReport> report;
};

/// Where the last of the k keys wanted stands among all, when the allowed ones are like the others.
std::size_t rank_of_last(const SearchParams& params, std::size_t n) {
  if (params.allowed == nullptr) return params.k;
  const std::size_t allowed = std::max<std::size_t>(1, params.allowed->count());
  return std::min(n, (params.k * n + allowed - 1) / allowed);
}

class ProjectionState final : public IndexState {
 public:
  /// `store` is in rows.
  ProjectionState(KeyStore rows, ProjectionParts parts)
      : IndexState(std::move(rows)), p_(std::move(parts)) {}

  [[nodiscard]] IndexKind kind() const noexcept override { return IndexKind::projection; }
  [[nodiscard]] std::size_t extra_bytes() const override {
    return store().code_bytes() + p_.graph.bytes() + p_.router.bytes();
  }
  [[nodiscard]] std::vector<IndexFact> facts() const override {
    return {{"unreachable", count_unreachable(p_.graph)}};
  }
  [[nodiscard]] std::vector<OperatingPoint> operating_points() const override { return p_.points; }
  [[nodiscard]] std::optional<BuildReport> build_report() const override { return p_.report; }

  void search(MatrixView<float> queries, const SearchParams& params, SearchScratch::State& scratch,
              Hits& hits) const override {
    const auto options = params.projection.value_or(ProjectionSearchParams{});
    const Dials dials =
        options.dials ? *options.dials
                      : choose_dials(p_.points, p_.params.tuning_k,
                                     rank_of_last(params, store().size()), options.target_recall);
    search_projection({store(), p_.graph, p_.router}, queries, params, dials, scratch, hits,
                      params.k);
  }

  [[nodiscard]] std::shared_ptr<const IndexState> appended(AnyMatrixView keys,
                                                           MatrixView<float> training,
                                                           const Execution& run) const override;
  [[nodiscard]] std::shared_ptr<const IndexState> truncated(std::size_t keys,
                                                            const Execution& run) const override;

  void write(IndexFileWriter& file) const override {
    file.add(store());
    file.add(p_.graph);
    file.add(p_.router);
    file.add(p_.points);
    file.add(p_.params);
  }

 private:
  ProjectionParts p_;
};

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
  require_range(keys, "keys");
  require_range(AnyMatrixView::of(training.train.view()), "training.train");
  require_products(training.train, keys, "training.train");
  require(training.group >= 1 && training.group <= 64, "training.group is {}, must be in [1, 64]",
          training.group);
  if (!training.lists.empty()) {
    require(training.lists.rows() == training.train.rows(),
            "training.lists has {} rows, training.train {}", training.lists.rows(),
            training.train.rows());
    require_lists(training.lists, keys.rows);
  }
  if (training.tuning.empty()) return;
  require(training.tuning.cols() == keys.cols, "training.tuning has dimension {}, keys have {}",
          training.tuning.cols(), keys.cols);
  require(training.tuning.rows() % training.group == 0,
          "training.tuning has {} rows, no multiple of group = {}", training.tuning.rows(),
          training.group);
  require_range(AnyMatrixView::of(training.tuning.view()), "training.tuning");
  require_products(training.tuning, keys, "training.tuning");
}

KnnLists lists_of(const KeyStore& store, MatrixView<float> queries, const ProjectionParams& params,
                  const Execution& run) {
  return knn_of(store, queries,
                {.k = std::min(params.list_length, store.size()), .method = params.list_method},
                run);
}

std::shared_ptr<const IndexState> build(IndexBuilder& builder, const IndexParams& given) {
  const Execution& run = builder.run();
  const TrainingQueries& training = builder.training();
  ProjectionParts parts;
  parts.params = params_of<ProjectionParams>(given, IndexKind::projection);
  parts.params.validate();
  require_training(builder.keys().view(), training);
  BuildReport report;
  Stopwatch watch;
  KeyStore store = KeyStore::encode(builder.keys(), training.train, CodeLayout::rows, run);
  report.graph_s = watch.lap();
  MatrixView<Id> lists = training.lists;
  Matrix<Id> found;
  if (training.lists.empty()) {
    found = lists_of(store, training.train, parts.params, run).ids;
    lists = found;
    report.lists_s = watch.lap();
  }
  BuiltGraph built = build_graph(lists, store, parts.params.graph, run);
  parts.graph = std::move(built.graph);
  report.graph = built.report;
  report.graph_s += watch.lap();
  parts.router =
      Router::build(training.train, lists, builder.keys().view(), parts.params.router, run);
  report.router_s = watch.lap();
  pack(store, parts.graph, parts.router);
  parts.points = tune({store, parts.graph, parts.router}, training, parts.params, run);
  report.tune_s = watch.lap();
  report.training_queries = training.train.rows();
  report.tuning_queries = training.tuning.rows();
  report.total_s = report.lists_s + report.graph_s + report.router_s + report.tune_s;
  parts.report = report;
  return std::make_shared<ProjectionState>(std::move(store), std::move(parts));
}

/// Lists that the dials were tuned on name no key that came later, and none in the place of one
/// that went, but links lead to them.
void expand_beyond_lists(std::vector<OperatingPoint>& points) {
  for (OperatingPoint& point : points)
    point.dials.expand = std::max(point.dials.expand, Dials().expand);
}

std::shared_ptr<const IndexState> ProjectionState::appended(AnyMatrixView keys,
                                                            MatrixView<float> training,
                                                            const Execution& run) const {
  ProjectionParts parts = p_;
  KeyStore longer = store().appended(keys);
  const std::size_t n = longer.size();
  Links links = p_.graph.thaw();
  links.resize(n);
  if (!training.empty()) {
    const ProjectionParams& params = p_.params;
    const KnnLists lists =
        exact_knn(longer.stored(), training,
                  {.k = std::min(params.list_length, n), .method = params.list_method}, run);
    Links fresh = project_cooccurrence(lists.ids, n, params.graph, run);
    // Keys that were there keep their links: only the new ones take theirs from here.
    for (std::size_t i = 0; i < store().size(); ++i) fresh[i].clear();
    prune(fresh, longer, params.graph.degree, run);
    link_new(links, fresh, store().size(), params.graph.max_degree);
    parts.router = p_.router.extended(training, lists.ids, n, run);
  }
  expand_beyond_lists(parts.points);
  const auto entry_points = p_.graph.entry_points();
  attach(links, entry_points, longer, run);
  parts.graph = Graph::freeze(links, {entry_points.begin(), entry_points.end()});
  pack(longer, parts.graph, parts.router);
  return std::make_shared<ProjectionState>(std::move(longer), std::move(parts));
}

std::shared_ptr<const IndexState> ProjectionState::truncated(std::size_t keys,
                                                             const Execution& run) const {
  ProjectionParts parts = p_;
  KeyStore shorter = store().truncated(keys);
  Links links = p_.graph.thaw();
  std::vector<Id> entry_points(p_.graph.entry_points().begin(), p_.graph.entry_points().end());
  drop_keys(links, entry_points, keys, p_.params.graph.entry_points);
  attach(links, entry_points, shorter, run);
  parts.graph = Graph::freeze(links, std::move(entry_points));
  parts.router = p_.router.truncated(keys);
  expand_beyond_lists(parts.points);
  pack(shorter, parts.graph, parts.router);
  return std::make_shared<ProjectionState>(std::move(shorter), std::move(parts));
}

std::shared_ptr<const IndexState> read(const ContainerReader& file, KeyStore store) {
  ProjectionParts parts;
  parts.graph = read_graph(file, store.size());
  parts.router = read_router(file, store);
  parts.points = read_points(file);
  parts.params = read_params(file);
  return std::make_shared<ProjectionState>(std::move(store), std::move(parts));
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

constinit const KindOfIndex kProjectionKind = {IndexKind::projection, "projection",
                                               CodeLayout::rows, build, read};

}  // namespace keyseek
