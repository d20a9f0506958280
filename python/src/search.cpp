/// Hits, dials and what a search looked at; the options of a search.
#include "keyseek/search.hpp"

#include <fmt/format.h>
#include <nanobind/operators.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>

#include <algorithm>
#include <tuple>
#include <utility>
#include <vector>

#include "arrays.hpp"
#include "bindings.hpp"
#include "errors.hpp"
#include "pickle.hpp"

namespace keyseek::python {
namespace {

void bind_stats(nb::module_& m) {
  nb::class_<SearchStats> type(m, "SearchStats", "What one search looked at.");
  pickle_members(type, &SearchStats::scanned, &SearchStats::sketched, &SearchStats::expanded,
                 &SearchStats::reranked, &SearchStats::bytes_read);
  type.def_ro("scanned", &SearchStats::scanned, "Keys whose code was scored, once for the group.")
      .def_ro("sketched", &SearchStats::sketched, "Keys whose sketch was scored, likewise.")
      .def_ro("expanded", &SearchStats::expanded, "Keys whose links were followed.")
      .def_ro("reranked", &SearchStats::reranked, "Keys scored in stored precision.")
      .def_ro("bytes_read", &SearchStats::bytes_read, "Bytes of codes, links, lists and keys read.")
      .def("__repr__", [](const SearchStats& s) {
        return fmt::format(
            "SearchStats(scanned={}, sketched={}, expanded={}, reranked={}, bytes_read={})",
            s.scanned, s.sketched, s.expanded, s.reranked, s.bytes_read);
      });
}

/// Checked as they come back: a search starts from hits without looking whether they are whole.
void pickle_hits(nb::class_<Hits>& type) {
  using State = std::tuple<std::size_t, std::size_t, std::vector<Id>, std::vector<float>,
                           std::vector<std::size_t>, SearchStats>;
  type.def("__getstate__",
           [](const Hits& h) { return State(h.group, h.k, h.ids, h.scores, h.count, h.stats); })
      .def("__setstate__", [](Hits& self, const State& state) {
        Hits hits;
        std::tie(hits.group, hits.k, hits.ids, hits.scores, hits.count, hits.stats) = state;
        const auto is_whole = [&] {
          return hits.ids.size() == hits.scores.size() && hits.count.size() == hits.group &&
                 (hits.group == 0 ? hits.ids.empty()
                                  : hits.ids.size() % hits.group == 0 &&
                                        hits.ids.size() / hits.group == hits.k) &&
                 std::all_of(hits.count.begin(), hits.count.end(),
                             [&](std::size_t count) { return count <= hits.k; });
        };
        if (!is_whole()) refuse("the pickled Hits are not whole: {} x {}", hits.group, hits.k);
        new (&self) Hits(std::move(hits));
      });
}

void bind_hits(nb::module_& m) {
  nb::class_<Hits> type(m, "Hits",
                        R"(Results of one step: for each of G queries up to k keys, best first.

Pass it as `previous` to the next step's search.)");
  pickle_hits(type);
  type.def_prop_ro(
          "ids",
          [](const Hits& h) {
            return numpy_ids({h.ids.data(), h.group, h.k});
          },
          nb::rv_policy::automatic, "[G, k] int64, padded with -1. A new array on each access.")
      .def_prop_ro(
          "scores",
          [](nb::handle_t<Hits> self) {
            const Hits& h = nb::cast<const Hits&>(self);
            return numpy_view(MatrixView<float>{h.scores.data(), h.group, h.k}, self);
          },
          "[G, k] float32 inner products in stored precision, padded with -infinity.")
      .def_prop_ro(
          "count",
          [](nb::handle_t<Hits> self) {
            const Hits& h = nb::cast<const Hits&>(self);
            return Vector<const std::size_t>(h.count.data(), {h.count.size()}, self);
          },
          "[G]: entries of each row that are not padding.")
      .def_ro("stats", &Hits::stats)
      .def("__repr__", [](const Hits& h) { return fmt::format("Hits({} x {})", h.group, h.k); });
}

template <auto Member>
void bind_dial(nb::class_<Dials>& type, const char* name) {
  type.def_prop_rw(
      name, [](const Dials& self) { return self.*Member; },
      [name](Dials& self, const Whole& value) { self.*Member = small_count_of(value, name); });
}

void bind_dials(nb::module_& m) {
  nb::class_<Dials> type(m, "Dials", R"(How hard a projection index looks; tuning chooses them.

probes: router clusters looked into, per query. lists: nearest training queries whose keys are
scanned (0: none). expand: ranks of each query's pool whose links are followed (0: none).
pool: keys per query scored in stored precision (0: by k and d). novel: a query whose nearest
training query is less similar is novel, see scan_novel of search (-1: none is).)");
  pickle_members(type, &Dials::probes, &Dials::lists, &Dials::expand, &Dials::pool, &Dials::novel);
  bind_dial<&Dials::probes>(type, "probes");
  bind_dial<&Dials::lists>(type, "lists");
  bind_dial<&Dials::expand>(type, "expand");
  bind_dial<&Dials::pool>(type, "pool");
  type.def(
          "__init__",
          [](Dials* self, const Whole& probes, const Whole& lists, const Whole& expand,
             const Whole& pool, float novel) {
            new (self) Dials{small_count_of(probes, "probes"), small_count_of(lists, "lists"),
                             small_count_of(expand, "expand"), small_count_of(pool, "pool"), novel};
          },
          nb::kw_only(), nb::arg("probes") = Dials{}.probes, nb::arg("lists") = Dials{}.lists,
          nb::arg("expand") = Dials{}.expand, nb::arg("pool") = Dials{}.pool,
          nb::arg("novel") = Dials{}.novel)
      .def_rw("novel", &Dials::novel)
      .def(nb::self == nb::self, nb::sig("def __eq__(self, arg: object, /) -> bool"))
      .def("__repr__", [](const Dials& d) {
        return fmt::format("Dials(probes={}, lists={}, expand={}, pool={}, novel={:.3f})", d.probes,
                           d.lists, d.expand, d.pool, d.novel);
      });
}

}  // namespace

SearchParams search_params(const Whole& k, std::optional<float> beta,
                           const ProjectionOptions& projection) {
  SearchParams params{.k = count_of(k, "k"), .beta = beta};
  const auto& [target_recall, dials, max_scanned, scan_novel] = projection;
  if (!target_recall && !dials && !max_scanned && !scan_novel) return params;
  ProjectionSearchParams options;
  options.target_recall = target_recall.value_or(options.target_recall);
  options.dials = dials;
  if (max_scanned) options.max_scanned = count_of(*max_scanned, "max_scanned");
  options.scan_novel = scan_novel.value_or(options.scan_novel);
  params.projection = options;
  return params;
}

void bind_search(nb::module_& m) {
  bind_stats(m);
  bind_hits(m);
  bind_dials(m);
}

}  // namespace keyseek::python
