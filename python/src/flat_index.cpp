#include <fmt/format.h>
#include <nanobind/stl/filesystem.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>

#include <filesystem>

#include "arrays.hpp"
#include "bindings.hpp"
#include "gil.hpp"
#include "keyseek/index.hpp"
#include "pickle.hpp"
#include "scratch.hpp"
#include "work.hpp"

namespace keyseek::python {

void bind_flat_index(nb::module_& m) {
  using Path = std::filesystem::path;
  using Unlocked = nb::call_guard<GilReleased>;
  nb::class_<FlatIndex> type(
      m, "FlatIndex",
      R"(Every key is scanned: in 8 bits, the group's queries together, then reranked.

Searching is thread-safe; `append` is for one writer at a time beside any number of searches.)");
  pickle_as_file(type);
  type.def_static(
          "build",
          [](const Array& keys, int threads, const ProgressCallback& progress) {
            const auto rows = borrow_vectors(keys, "keys");
            return run_long(threads, progress,
                            [&](const Execution& run) { return FlatIndex::build(rows.view, run); });
          },
          nb::arg("keys"), nb::kw_only(), nb::arg("threads") = 0, nb::arg("progress") = nb::none(),
          R"(Copies and encodes keys [n, d]: float32, float16, bfloat16 or int8.

threads: 0 for as many as there are. progress(stage, done, total) may return False to stop.)")
      .def(
          "search",
          [](const FlatIndex& self, const Array& queries, std::int64_t k, const Hits* previous,
             std::optional<float> beta, std::optional<std::int64_t> max_scanned) {
            const auto rows = borrow_floats(queries, "queries");
            const double any_recall = SearchParams{}.target_recall;
            return search_step(
                self, rows.view,
                search_params(k, any_recall, {}, beta, max_scanned, false, previous));
          },
          nb::arg("queries"), nb::arg("k") = 100, nb::kw_only(),
          nb::arg("previous").none() = nb::none(), nb::arg("beta") = nb::none(),
          nb::arg("max_scanned") = nb::none(),
          R"(The k best keys of each of the queries [G, d] float32, 1 <= G <= 64.

previous: the hits of the previous step, a warm start. beta: of the k best only keys with
q.k >= max - beta. max_scanned: no effect here, where every key is scanned.)")
      .def(
          "append",
          [](FlatIndex& self, const Array& keys) {
            const auto rows = borrow_vectors(keys, "keys");
            const GilReleased released;
            self.append(rows.view);
          },
          nb::arg("keys"),
          "Adds keys [m, d] of the index's dtype; their ids follow the present ones. A search "
          "sees\n"
          "all of them or none.")
      .def(
          "save", &FlatIndex::save, nb::arg("path"), Unlocked(),
          "Writes a temporary file and renames it: `path` has all of the index or stays as it was.")
      .def_static("load", &FlatIndex::load, nb::arg("path"), Unlocked(),
                  "Reads a saved index and checks all of it.")
      .def_static("map", &FlatIndex::map, nb::arg("path"), Unlocked(),
                  "As load, but the file's pages are shared and can be evicted.")
      .def("__len__", &FlatIndex::size)
      .def_prop_ro("dim", &FlatIndex::dim)
      .def_prop_ro("nbytes", &FlatIndex::bytes, "All of it, the keys included.")
      .def("__repr__", [](const FlatIndex& index) {
        return fmt::format("FlatIndex({} x {})", index.size(), index.dim());
      });
  m.def(
      "index_kind", [](const Path& path) { return index_kind(path); }, nb::arg("path"),
      "Kind of an index file: \"flat\", \"sketch\" or \"projection\".");
}

}  // namespace keyseek::python
