#include <fmt/format.h>
#include <nanobind/stl/filesystem.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/variant.h>
#include <nanobind/stl/vector.h>

#include <filesystem>
#include <string>
#include <variant>
#include <vector>

#include "arrays.hpp"
#include "bindings.hpp"
#include "errors.hpp"
#include "gil.hpp"
#include "keyseek/index.hpp"
#include "names.hpp"
#include "pickle.hpp"
#include "scratch.hpp"
#include "work.hpp"

namespace keyseek::python {
namespace {

using Path = std::filesystem::path;
using Training = std::variant<const TrainingQueries*, Array>;
using Unlocked = nb::call_guard<GilReleased>;

constexpr const char* kBuildDoc =
    R"(Builds on keys [n, d]: float32, float16, bfloat16 or int8, which are copied.

training: TrainingQueries, or an array [m, d] float32 that is copied (an index that was built
without held-out queries is not tuned and uses default dials).
list_length: k of the training queries' exact lists, found by list_method ("int8" or "f32").
target_recalls, tuning_k: what the dials are tuned for.
threads: 0 for as many as there are. progress(stage, done, total) may return False to stop.)";

constexpr const char* kFromListsDoc = R"(As build, from exact lists that are there already.

lists: [rows of training.train, k] ids of keys, best first, padded with -1.)";

constexpr const char* kSearchDoc =
    R"(The k best keys found for each of the queries [G, d] float32, 1 <= G <= 64.

target_recall: chooses among the tuned dials (see operating_points). dials: used instead of them.
previous: the hits of the previous step, a warm start. beta: of the k best only keys with
q.k >= max - beta. max_scanned: upper bound on keys scanned. scan_novel: scan all keys for a
query that is less like the training queries than a hundredth of the held-out ones.)";

constexpr const char* kAppendDoc =
    R"(Adds keys [m, d] of the index's dtype; their ids follow the present ones.

training: queries [r, d] float32 that want the new keys; without any they are linked to keys near
them. For one writer at a time; a search beside it sees all of the keys or none.)";

/// The training queries in C++, kept here when they come as an array.
class TrainingArgument {
 public:
  explicit TrainingArgument(const Training& training) {
    if (const auto* given = std::get_if<const TrainingQueries*>(&training)) {
      view_ = *given;
    } else {
      own_.train = copy_matrix(borrow_floats(std::get<Array>(training), "training").view);
    }
  }
  [[nodiscard]] const TrainingQueries& get() const { return view_ != nullptr ? *view_ : own_; }

 private:
  const TrainingQueries* view_ = nullptr;
  TrainingQueries own_;
};

ProjectionParams projection_params(const std::optional<GraphParams>& graph,
                                   const std::optional<RouterParams>& router,
                                   std::vector<double> target_recalls, std::int64_t tuning_k) {
  return {.graph = graph.value_or(GraphParams{}),
          .router = router.value_or(RouterParams{}),
          .target_recalls = std::move(target_recalls),
          .tuning_k = count_of(tuning_k, "tuning_k")};
}

ReportedIndex build(const Array& keys, const Training& training, std::int64_t list_length,
                    const std::string& list_method, const std::optional<GraphParams>& graph,
                    const std::optional<RouterParams>& router, std::vector<double> target_recalls,
                    std::int64_t tuning_k, int threads, const ProgressCallback& progress) {
  const auto rows = borrow_vectors(keys, "keys");
  const TrainingArgument queries(training);
  ProjectionParams params = projection_params(graph, router, std::move(target_recalls), tuning_k);
  params.list_length = count_of(list_length, "list_length");
  params.list_method = knn_method_of(list_method, "list_method");
  return run_long(threads, progress, [&](const Execution& run) {
    BuildReport report;
    auto index = ProjectionIndex::build(rows.view, queries.get(), params, run, &report);
    return ReportedIndex{std::move(index), report};
  });
}

ReportedIndex build_from_lists(const Array& keys, const Training& training, const Array& lists,
                               const std::optional<GraphParams>& graph,
                               const std::optional<RouterParams>& router,
                               std::vector<double> target_recalls, std::int64_t tuning_k,
                               int threads, const ProgressCallback& progress) {
  const auto rows = borrow_vectors(keys, "keys");
  const TrainingArgument queries(training);
  const Matrix<Id> ids = copy_ids(lists, "lists");
  const auto params = projection_params(graph, router, std::move(target_recalls), tuning_k);
  return run_long(threads, progress, [&](const Execution& run) {
    BuildReport report;
    auto index =
        ProjectionIndex::build_from_lists(rows.view, queries.get(), ids, params, run, &report);
    return ReportedIndex{std::move(index), report};
  });
}

Hits search(const ReportedIndex& self, const Array& queries, std::int64_t k, double target_recall,
            const std::optional<Dials>& dials, const Hits* previous, std::optional<float> beta,
            std::optional<std::int64_t> max_scanned, bool scan_novel) {
  const auto rows = borrow_floats(queries, "queries");
  return search_step(
      self.index, rows.view,
      search_params(k, target_recall, dials, beta, max_scanned, scan_novel, previous));
}

void append(ReportedIndex& self, const Array& keys, const std::optional<Array>& training,
            int threads, const ProgressCallback& progress) {
  const auto rows = borrow_vectors(keys, "keys");
  Borrowed<MatrixView<float>> queries;
  if (training) queries = borrow_floats(*training, "training");
  run_long(threads, progress,
           [&](const Execution& run) { self.index.append(rows.view, queries.view, run); });
}

void bind_building(nb::class_<ReportedIndex>& index) {
  const ProjectionParams defaults;
  index
      .def_static("build", &build, nb::arg("keys"), nb::arg("training"), nb::kw_only(),
                  nb::arg("list_length") = defaults.list_length, nb::arg("list_method") = "int8",
                  nb::arg("graph") = nb::none(), nb::arg("router") = nb::none(),
                  nb::arg("target_recalls") = defaults.target_recalls,
                  nb::arg("tuning_k") = defaults.tuning_k, nb::arg("threads") = 0,
                  nb::arg("progress") = nb::none(), kBuildDoc)
      .def_static("build_from_lists", &build_from_lists, nb::arg("keys"), nb::arg("training"),
                  nb::arg("lists"), nb::kw_only(), nb::arg("graph") = nb::none(),
                  nb::arg("router") = nb::none(),
                  nb::arg("target_recalls") = defaults.target_recalls,
                  nb::arg("tuning_k") = defaults.tuning_k, nb::arg("threads") = 0,
                  nb::arg("progress") = nb::none(), kFromListsDoc)
      .def("append", &append, nb::arg("keys"), nb::arg("training") = nb::none(), nb::kw_only(),
           nb::arg("threads") = 0, nb::arg("progress") = nb::none(), kAppendDoc);
}

void bind_files(nb::class_<ReportedIndex>& index) {
  index
      .def(
          "save", [](const ReportedIndex& self, const Path& path) { self.index.save(path); },
          nb::arg("path"), Unlocked(),
          "Writes a temporary file and renames it: `path` has all of the index or stays as it was.")
      .def_static(
          "load",
          [](const Path& path) {
            return ReportedIndex{ProjectionIndex::load(path), {}};
          },
          nb::arg("path"), Unlocked(), "Reads a saved index and checks all of it.")
      .def_static(
          "map",
          [](const Path& path) {
            return ReportedIndex{ProjectionIndex::map(path), {}};
          },
          nb::arg("path"), Unlocked(),
          "As load, but the file's pages are shared and can be evicted.");
}

void bind_properties(nb::class_<ReportedIndex>& index) {
  index.def("__len__", [](const ReportedIndex& self) { return self.index.size(); })
      .def_prop_ro("dim", [](const ReportedIndex& self) { return self.index.dim(); })
      .def_prop_ro(
          "nbytes", [](const ReportedIndex& self) { return self.index.bytes(); },
          "All of it, the keys included.")
      .def_prop_ro(
          "extra_bytes", [](const ReportedIndex& self) { return self.index.extra_bytes(); },
          "Beyond the keys as given.")
      .def_prop_ro(
          "unreachable", [](const ReportedIndex& self) { return self.index.unreachable(); },
          "Keys that no entry point leads to, counted now.")
      .def_prop_ro(
          "operating_points", [](const ReportedIndex& self) { return self.index.dials(); },
          "Tuned dials, by rising target recall; empty when built without held-out queries.")
      .def_ro("report", &ReportedIndex::report,
              "What building found out; None when the index comes from a file.")
      .def("__repr__", [](const ReportedIndex& self) {
        return fmt::format("ProjectionIndex({} x {})", self.index.size(), self.index.dim());
      });
}

/// With what building found out, which a file does not hold.
void bind_copies(nb::class_<ReportedIndex>& index) {
  using State = std::tuple<nb::bytes, std::optional<BuildReport>>;
  index
      .def("__getstate__",
           [](const ReportedIndex& self) { return State(pickled(self.index), self.report); })
      .def("__setstate__", [](ReportedIndex& self, const State& state) {
        new (&self)
            ReportedIndex{unpickled<ProjectionIndex>(std::get<0>(state)), std::get<1>(state)};
      });
  copy_by_value(index);
}

}  // namespace

void bind_projection_index(nb::module_& m) {
  nb::class_<ReportedIndex> index(
      m, "ProjectionIndex",
      R"(A few per cent of the keys are scanned: those that queries like these want.

Searching is thread-safe; `append` is for one writer at a time beside any number of searches.)");
  bind_building(index);
  index.def("search", &search, nb::arg("queries"), nb::arg("k") = 100, nb::kw_only(),
            nb::arg("target_recall") = SearchParams{}.target_recall, nb::arg("dials") = nb::none(),
            nb::arg("previous").none() = nb::none(), nb::arg("beta") = nb::none(),
            nb::arg("max_scanned") = nb::none(), nb::arg("scan_novel") = SearchParams{}.scan_novel,
            kSearchDoc);
  bind_files(index);
  bind_copies(index);
  bind_properties(index);
}

}  // namespace keyseek::python
