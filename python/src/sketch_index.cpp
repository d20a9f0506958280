#include <fmt/format.h>
#include <nanobind/stl/filesystem.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>

#include "arrays.hpp"
#include "bindings.hpp"
#include "errors.hpp"
#include "gil.hpp"
#include "keyseek/index.hpp"
#include "pickle.hpp"
#include "scratch.hpp"
#include "work.hpp"

namespace keyseek::python {
namespace {

using Unlocked = nb::call_guard<GilReleased>;

constexpr const char* kBuildDoc =
    R"(Copies and encodes keys [n, d]: float32, float16, bfloat16 or int8.

queries: [m, d] float32 like those to come, for example TrainingQueries.train. dim: coordinates of a
key in the sketch (0: as many as leave out at most `residual` of what queries see). ridge: weight of
directions that no query looked along.
threads: 0 for as many as there are. progress(stage, done, total) may return False to stop.)";

SketchIndex build(const Array& keys, const Array& queries, std::int64_t dim, double residual,
                  double ridge, int threads, const ProgressCallback& progress) {
  const auto rows = borrow_vectors(keys, "keys");
  const auto asked = borrow_floats(queries, "queries");
  const SketchParams params{.dim = count_of(dim, "dim"), .residual = residual, .ridge = ridge};
  return run_long(threads, progress, [&](const Execution& run) {
    return SketchIndex::build(rows.view, asked.view, params, run);
  });
}

Hits search(const SketchIndex& self, const Array& queries, std::int64_t k, const Hits* previous,
            std::optional<float> beta) {
  const auto rows = borrow_floats(queries, "queries");
  const double any_recall = SearchParams{}.target_recall;
  return search_step(self, rows.view, search_params(k, any_recall, {}, beta, {}, false, previous));
}

void append(SketchIndex& self, const Array& keys) {
  const auto rows = borrow_vectors(keys, "keys");
  const GilReleased released;
  self.append(rows.view);
}

}  // namespace

void bind_sketch_index(nb::module_& m) {
  const SketchParams defaults;
  nb::class_<SketchIndex> type(
      m, "SketchIndex",
      R"(Every key is looked at through a sketch, the best of them again in full.

A sketch is a few coordinates of each key, those in which queries see most, in 8 bits. It needs
queries to know these, but no query that wanted the key: what a ProjectionIndex may miss is found.
Searching is thread-safe; `append` is for one writer at a time beside any number of searches.)");
  pickle_as_file(type);
  type.def_static("build", &build, nb::arg("keys"), nb::arg("queries"), nb::kw_only(),
                  nb::arg("dim") = defaults.dim, nb::arg("residual") = defaults.residual,
                  nb::arg("ridge") = defaults.ridge, nb::arg("threads") = 0,
                  nb::arg("progress") = nb::none(), kBuildDoc)
      .def("search", &search, nb::arg("queries"), nb::arg("k") = 100, nb::kw_only(),
           nb::arg("previous").none() = nb::none(), nb::arg("beta") = nb::none(),
           R"(The k best keys of each of the queries [G, d] float32, 1 <= G <= 64.

previous: the hits of the previous step, a warm start. beta: of the k best only keys with
q.k >= max - beta.)")
      .def("append", &append, nb::arg("keys"),
           "Adds keys [m, d] of the index's dtype; their ids follow the present ones. A search "
           "sees\n"
           "all of them or none.")
      .def(
          "save", &SketchIndex::save, nb::arg("path"), Unlocked(),
          "Writes a temporary file and renames it: `path` has all of the index or stays as it was.")
      .def_static("load", &SketchIndex::load, nb::arg("path"), Unlocked(),
                  "Reads a saved index and checks all of it.")
      .def_static("map", &SketchIndex::map, nb::arg("path"), Unlocked(),
                  "As load, but the file's pages are shared and can be evicted.")
      .def("__len__", &SketchIndex::size)
      .def_prop_ro("dim", &SketchIndex::dim)
      .def_prop_ro("sketch_dim", &SketchIndex::sketch_dim, "Coordinates of a key in the sketch.")
      .def_prop_ro("nbytes", &SketchIndex::bytes, "All of it, the keys included.")
      .def("__repr__", [](const SketchIndex& index) {
        return fmt::format("SketchIndex({} x {}, sketch of {})", index.size(), index.dim(),
                           index.sketch_dim());
      });
}

}  // namespace keyseek::python
