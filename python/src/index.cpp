/// The class Index: any kind of index on NumPy arrays.
#include "keyseek/index.hpp"

#include <fmt/format.h>
#include <nanobind/stl/filesystem.h>
#include <nanobind/stl/map.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/variant.h>
#include <nanobind/stl/vector.h>

#include <filesystem>
#include <map>
#include <string>
#include <variant>
#include <vector>

#include "arrays.hpp"
#include "bindings.hpp"
#include "errors.hpp"
#include "gil.hpp"
#include "keyseek/io.hpp"
#include "pickle.hpp"
#include "scratch.hpp"
#include "work.hpp"

namespace keyseek::python {
namespace {

using Path = std::filesystem::path;
using Training = std::variant<std::monostate, const TrainingQueries*, Array>;
using Params = std::variant<std::monostate, SketchParams, ProjectionParams>;
using Unlocked = nb::call_guard<GilReleased>;

constexpr const char* kClassDoc =
    R"(Keys that can be searched, saved and mapped. Its kind says how they are searched:

"flat": every key is scanned, in 8 bits, the group's queries together, then reranked.
"sketch": every key is looked at through a sketch of it, the best again in full. Needs queries like
those to come, but none that wanted the key: what "projection" may miss is found.
"projection": a few per cent of the keys are scanned, those that queries like these want.

Searching is thread-safe; `append` and `truncate` are for one writer at a time beside any number of
searches.)";

constexpr const char* kTruncateDoc = R"(Takes keys back: the first `keys`, at least 1, stay.

Links and lists lose the others; what no link leads to any more is linked to keys near it.)";

constexpr const char* kBuildDoc =
    R"(Builds on keys [n, d]: float32, float16, bfloat16 or int8, which are copied.

kind: "flat", "sketch" or "projection". training: queries like those to come, as TrainingQueries or
as an array [m, d] float32, of which a projection index holds every fifth out to tune on (400 at
most); a flat index needs none. A projection index built of TrainingQueries without held-out ones is
not tuned and uses default dials. params: SketchParams or ProjectionParams, of the kind that is built.
metric: "ip", the largest inner product; "l2", the smallest Euclidean distance, whose square scores
are; "cosine". By the last two, keys are stored in float32, as vectors whose inner products order
them alike. threads: 0 for as many as there are. progress(stage, done, total) may return False to stop.)";

constexpr const char* kSearchDoc =
    R"(The k best keys found for each of the queries [G, d], 1 <= G <= 64: float32, or
float16 or bfloat16, which are converted.

Scores are inner products, or what the index's metric says. previous: the hits of the previous step,
a warm start. beta: of the k best only keys with q.k >= max - beta. allowed: the only keys that may
be found, as bool [len(index)] or as int64 row numbers; where they are fewer than k, rows are padded.
The rest is for projection indexes, others refuse it.
target_recall: chooses among the tuned dials (see operating_points). dials: used instead of them.
max_scanned: upper bound on keys scanned. scan_novel: scan all keys for a query that is less like
the training queries than a hundredth of the held-out ones.)";

constexpr const char* kBatchDoc =
    R"(The k best keys of each of many queries [m, d], on several threads.

group: consecutive queries that form a step and are searched together; a step does not start from
another's hits. threads: 0 for as many as there are. The rest as in search.)";

constexpr const char* kAppendDoc =
    R"(Adds keys [m, d] of the index's dtype; their ids follow the present ones.

training: queries [r, d] float32 that want the new keys, by which a projection index links them;
without any it links them to keys near them. Other kinds need none. A search beside it sees all of
the keys or none.)";

/// The training queries in C++, kept here when they come as an array.
class TrainingArgument {
 public:
  /// Some of a plain array is held out for an index that is tuned.
  TrainingArgument(const Training& training, IndexKind kind) {
    if (const auto* given = std::get_if<const TrainingQueries*>(&training)) view_ = *given;
    const auto* rows = std::get_if<Array>(&training);
    if (rows == nullptr) return;
    const auto queries = borrow_queries(*rows, "training");
    if (kind == IndexKind::projection && !queries.view.empty()) {
      require_finite(AnyMatrixView::of(queries.view), "training.train");  // by its own rows
      own_ = io::training_set(queries.view);
    } else {
      own_.train = copy_matrix(queries.view);
    }
  }
  [[nodiscard]] const TrainingQueries& get() const { return view_ != nullptr ? *view_ : own_; }

 private:
  const TrainingQueries* view_ = nullptr;
  TrainingQueries own_;
};

/// The keys that may be found, where they are given; lives as long as the search.
class AllowedArgument {
 public:
  AllowedArgument(const std::optional<Array>& allowed, const Index& index, SearchParams& params) {
    if (!allowed) return;
    keys_ = copy_allowed(*allowed, "allowed", index.size());
    params.allowed = &keys_;
  }
  AllowedArgument(const AllowedArgument&) = delete;
  AllowedArgument& operator=(const AllowedArgument&) = delete;

 private:
  AllowedKeys keys_;
};

Index build(const std::string& kind, const Array& keys, const Training& training,
            const Params& params, const std::string& metric, const Whole& threads,
            const ProgressCallback& progress) {
  const IndexKind wanted = index_kind_of(kind, "kind");
  const Metric by = metric_of(metric, "metric");
  const auto rows = borrow_vectors(keys, "keys");
  const TrainingArgument queries(training, wanted);
  return run_long(threads, progress, [&](const Execution& run) {
    return Index::build(wanted, rows.view, queries.get(), params, run, by);
  });
}

Hits search(const Index& self, const Array& queries, const Whole& k, const Hits* previous,
            std::optional<float> beta, const std::optional<Array>& allowed,
            const ProjectionOptions& projection) {
  const auto rows = borrow_queries(queries, "queries");
  SearchParams params = search_params(k, beta, projection);
  params.previous = previous;
  const AllowedArgument only(allowed, self, params);
  Hits hits;
  const GilReleased released;
  self.search(rows.view, params, thread_scratch(), hits);
  return hits;
}

BatchHits search_batch(const Index& self, const Array& queries, const Whole& k, const Whole& group,
                       std::optional<float> beta, const std::optional<Array>& allowed,
                       const ProjectionOptions& projection, const Whole& threads,
                       const ProgressCallback& progress) {
  const auto rows = borrow_queries(queries, "queries");
  SearchParams params = search_params(k, beta, projection);
  const AllowedArgument only(allowed, self, params);
  const std::size_t step = count_of(group, "group");
  return run_long(threads, progress, [&](const Execution& run) {
    return self.search_batch(rows.view, step, params, run);
  });
}

void append(Index& self, const Array& keys, const std::optional<Array>& training,
            const Whole& threads, const ProgressCallback& progress) {
  const auto rows = borrow_vectors(keys, "keys");
  Queries queries;
  if (training) queries = borrow_queries(*training, "training");
  run_long(threads, progress,
           [&](const Execution& run) { self.append(rows.view, queries.view, run); });
}

void truncate(Index& self, const Whole& keys, const Whole& threads,
              const ProgressCallback& progress) {
  const std::size_t kept = count_of(keys, "keys");
  run_long(threads, progress, [&](const Execution& run) { self.truncate(kept, run); });
}

std::map<std::string, std::size_t> facts(const Index& self) {
  std::map<std::string, std::size_t> named;
  for (const IndexFact& fact : self.facts()) named.emplace(fact.name, fact.value);
  return named;
}

void bind_building(nb::class_<Index>& index) {
  index
      .def_static("build", &build, nb::arg("kind"), nb::arg("keys"),
                  nb::arg("training") = nb::none(), nb::kw_only(), nb::arg("params") = nb::none(),
                  nb::arg("metric") = "ip", nb::arg("threads") = 0,
                  nb::arg("progress") = nb::none(), kBuildDoc)
      .def("append", &append, nb::arg("keys"), nb::arg("training") = nb::none(), nb::kw_only(),
           nb::arg("threads") = 0, nb::arg("progress") = nb::none(), kAppendDoc)
      .def("truncate", &truncate, nb::arg("keys"), nb::kw_only(), nb::arg("threads") = 0,
           nb::arg("progress") = nb::none(), kTruncateDoc);
}

void bind_searching(nb::class_<Index>& index) {
  index.def(
      "search",
      [](const Index& self, const Array& queries, const Whole& k, const Hits* previous,
         std::optional<float> beta, const std::optional<Array>& allowed,
         std::optional<double> target_recall, const std::optional<Dials>& dials,
         const std::optional<Whole>& max_scanned, std::optional<bool> scan_novel) {
        return search(self, queries, k, previous, beta, allowed,
                      {target_recall, dials, max_scanned, scan_novel});
      },
      nb::arg("queries"), nb::arg("k") = 100, nb::kw_only(),
      nb::arg("previous").none() = nb::none(), nb::arg("beta") = nb::none(),
      nb::arg("allowed") = nb::none(), nb::arg("target_recall") = nb::none(),
      nb::arg("dials") = nb::none(), nb::arg("max_scanned") = nb::none(),
      nb::arg("scan_novel") = nb::none(), kSearchDoc);
  index.def(
      "search_batch",
      [](const Index& self, const Array& queries, const Whole& k, const Whole& group,
         std::optional<float> beta, const std::optional<Array>& allowed,
         std::optional<double> target_recall, const std::optional<Dials>& dials,
         const std::optional<Whole>& max_scanned, std::optional<bool> scan_novel,
         const Whole& threads, const ProgressCallback& progress) {
        return search_batch(self, queries, k, group, beta, allowed,
                            {target_recall, dials, max_scanned, scan_novel}, threads, progress);
      },
      nb::arg("queries"), nb::arg("k") = 100, nb::kw_only(), nb::arg("group") = 1,
      nb::arg("beta") = nb::none(), nb::arg("allowed") = nb::none(),
      nb::arg("target_recall") = nb::none(), nb::arg("dials") = nb::none(),
      nb::arg("max_scanned") = nb::none(), nb::arg("scan_novel") = nb::none(),
      nb::arg("threads") = 0, nb::arg("progress") = nb::none(), kBatchDoc);
}

void bind_files(nb::class_<Index>& index) {
  index
      .def(
          "save", &Index::save, nb::arg("path"), Unlocked(),
          "Writes a temporary file and renames it: `path` has all of the index or stays as it was.")
      .def_static(
          "open",
          [](const Path& path, bool mapped) {
            return Index::open(path, mapped ? FileMemory::mapped : FileMemory::own);
          },
          nb::arg("path"), nb::kw_only(), nb::arg("mapped") = false, Unlocked(),
          R"(Reads a saved index of any kind and checks all of it.

mapped: the file's pages are shared and can be evicted.)");
}

void bind_properties(nb::class_<Index>& index) {
  index.def("__len__", &Index::size)
      .def_prop_ro("kind", [](const Index& self) { return std::string(to_string(self.kind())); })
      .def_prop_ro("dim", &Index::dim)
      .def_prop_ro("metric",
                   [](const Index& self) { return std::string(to_string(self.metric())); })
      .def_prop_ro("nbytes", &Index::bytes, "All of it, the keys included.")
      .def_prop_ro("extra_bytes", &Index::extra_bytes, "Beyond the keys as given.")
      .def_prop_ro("facts", &facts,
                   R"(What its kind has beside these, by name.

"sketch": sketch_dim, coordinates of a key in the sketch. "projection": unreachable, keys that no
entry point leads to, counted now.)")
      .def_prop_ro(
          "operating_points", &Index::operating_points,
          "Tuned dials, by rising target recall; empty when built without held-out queries.")
      .def_prop_ro("report", &Index::build_report,
                   "What building found out, if its kind says; None when the index comes from a "
                   "file.")
      .def("__repr__", [](const Index& self) {
        return fmt::format("Index({}, {} x {})", to_string(self.kind()), self.size(), self.dim());
      });
}

void bind_batch_hits(nb::module_& m) {
  nb::class_<BatchHits>(m, "BatchHits", "What search_batch found.")
      .def_prop_ro(
          "ids", [](const BatchHits& self) { return numpy_ids(self.ids); },
          nb::rv_policy::automatic, "[m, k] int64, padded with -1. A new array on each access.")
      .def_prop_ro(
          "scores",
          [](nb::handle_t<BatchHits> self) {
            return numpy_view(nb::cast<const BatchHits&>(self).scores.view(), self);
          },
          "[m, k] float32 inner products in stored precision, padded with -infinity.")
      .def_ro("stats", &BatchHits::stats, "Of all steps together.");
}

}  // namespace

void bind_index(nb::module_& m) {
  bind_batch_hits(m);
  nb::class_<Index> index(m, "Index", kClassDoc);
  pickle_as_file(index);
  bind_building(index);
  bind_searching(index);
  bind_files(index);
  bind_properties(index);
  m.def(
      "index_kind", [](const Path& path) { return std::string(to_string(index_kind(path))); },
      nb::arg("path"), "Kind of an index file: \"flat\", \"sketch\" or \"projection\".");
}

}  // namespace keyseek::python
