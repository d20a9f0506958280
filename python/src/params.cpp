/// Parameters of building, and what building and tuning report.
#include <fmt/format.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>

#include <string>

#include "bindings.hpp"
#include "errors.hpp"
#include "names.hpp"
#include "pickle.hpp"

namespace keyseek::python {
namespace {

std::string name_of(Projection projection) {
  for (const auto& entry : kProjections) {
    if (entry.value == projection) return std::string(entry.name);
  }
  return "";
}

void bind_graph_params(nb::module_& m) {
  const GraphParams defaults;
  nb::class_<GraphParams> type(m, "GraphParams", R"(How a graph is projected from training queries.

projection: "cooccurrence" (this library's own) or "pivot" (RoarGraph, arXiv 2408.08933).
candidates: heaviest links that pruning chooses from. degree: links kept per key before reverse
links, max_degree after them. damping: exponent of the popularity a weight is divided by.
sampled_lists: lists counted per key at most. repair_rank: so many of each list's best are to be
reached from its first. repair_room: links per key that repair may add beyond max_degree.
entry_points: keys the reachability is counted from.)");
  pickle_members(type, &GraphParams::projection, &GraphParams::candidates, &GraphParams::degree,
                 &GraphParams::max_degree, &GraphParams::damping, &GraphParams::sampled_lists,
                 &GraphParams::repair_rank, &GraphParams::repair_room, &GraphParams::entry_points);
  type.def(
          "__init__",
          [](GraphParams* self, const std::string& projection, std::int64_t candidates,
             std::int64_t degree, std::int64_t max_degree, double damping,
             std::int64_t sampled_lists, std::int64_t repair_rank, std::int64_t repair_room,
             std::int64_t entry_points) {
            new (self) GraphParams{.projection = projection_of(projection, "projection"),
                                   .candidates = count_of(candidates, "candidates"),
                                   .degree = count_of(degree, "degree"),
                                   .max_degree = count_of(max_degree, "max_degree"),
                                   .damping = damping,
                                   .sampled_lists = count_of(sampled_lists, "sampled_lists"),
                                   .repair_rank = count_of(repair_rank, "repair_rank"),
                                   .repair_room = count_of(repair_room, "repair_room"),
                                   .entry_points = count_of(entry_points, "entry_points")};
            self->validate();
          },
          nb::kw_only(), nb::arg("projection") = name_of(defaults.projection),
          nb::arg("candidates") = defaults.candidates, nb::arg("degree") = defaults.degree,
          nb::arg("max_degree") = defaults.max_degree, nb::arg("damping") = defaults.damping,
          nb::arg("sampled_lists") = defaults.sampled_lists,
          nb::arg("repair_rank") = defaults.repair_rank,
          nb::arg("repair_room") = defaults.repair_room,
          nb::arg("entry_points") = defaults.entry_points)
      .def_prop_ro("projection", [](const GraphParams& p) { return name_of(p.projection); })
      .def_ro("candidates", &GraphParams::candidates)
      .def_ro("degree", &GraphParams::degree)
      .def_ro("max_degree", &GraphParams::max_degree)
      .def_ro("damping", &GraphParams::damping)
      .def_ro("sampled_lists", &GraphParams::sampled_lists)
      .def_ro("repair_rank", &GraphParams::repair_rank)
      .def_ro("repair_room", &GraphParams::repair_room)
      .def_ro("entry_points", &GraphParams::entry_points);
}

void bind_router_params(nb::module_& m) {
  const RouterParams defaults;
  nb::class_<RouterParams> type(m, "RouterParams", R"(How training queries are made searchable.

dim: of the projected queries. clusters: at most. iterations: of k-means. queries_per_key: of
more an even sample is kept, which bounds the memory. seed: of k-means.)");
  pickle_members(type, &RouterParams::dim, &RouterParams::clusters, &RouterParams::iterations,
                 &RouterParams::queries_per_key, &RouterParams::seed);
  type.def(
          "__init__",
          [](RouterParams* self, std::int64_t dim, std::int64_t clusters, std::int64_t iterations,
             double queries_per_key, std::int64_t seed) {
            new (self) RouterParams{.dim = count_of(dim, "dim"),
                                    .clusters = count_of(clusters, "clusters"),
                                    .iterations = count_of(iterations, "iterations"),
                                    .queries_per_key = queries_per_key,
                                    .seed = count_of(seed, "seed")};
            self->validate();
          },
          nb::kw_only(), nb::arg("dim") = defaults.dim, nb::arg("clusters") = defaults.clusters,
          nb::arg("iterations") = defaults.iterations,
          nb::arg("queries_per_key") = defaults.queries_per_key, nb::arg("seed") = defaults.seed)
      .def_ro("dim", &RouterParams::dim)
      .def_ro("clusters", &RouterParams::clusters)
      .def_ro("iterations", &RouterParams::iterations)
      .def_ro("queries_per_key", &RouterParams::queries_per_key)
      .def_ro("seed", &RouterParams::seed);
}

void bind_reports(nb::module_& m) {
  nb::class_<OperatingPoint> point(
      m, "OperatingPoint",
      "Dials that reached a recall on the held-out queries, and at what cost.");
  pickle_members(point, &OperatingPoint::target_recall, &OperatingPoint::recall,
                 &OperatingPoint::scanned_fraction, &OperatingPoint::dials,
                 &OperatingPoint::flat_is_better);
  point.def_ro("target_recall", &OperatingPoint::target_recall)
      .def_ro("recall", &OperatingPoint::recall, "Measured on the held-out queries.")
      .def_ro("scanned_fraction", &OperatingPoint::scanned_fraction, "Keys scanned per step / n.")
      .def_ro("dials", &OperatingPoint::dials)
      .def_ro("flat_is_better", &OperatingPoint::flat_is_better,
              "By the cost model a FlatIndex is the better choice.")
      .def("__repr__", [](const OperatingPoint& p) {
        return fmt::format(
            "OperatingPoint(target_recall={}, recall={:.4f}, scanned_fraction={:.4f}, "
            "flat_is_better={})",
            p.target_recall, p.recall, p.scanned_fraction, p.flat_is_better ? "True" : "False");
      });
  nb::class_<GraphReport> graph(m, "GraphReport", "What building the graph found out.");
  pickle_members(graph, &GraphReport::unwanted, &GraphReport::unreachable_before,
                 &GraphReport::unreachable, &GraphReport::repair_links, &GraphReport::links);
  graph.def_ro("unwanted", &GraphReport::unwanted, "Keys in no training list.")
      .def_ro("unreachable_before", &GraphReport::unreachable_before)
      .def_ro("unreachable", &GraphReport::unreachable, "After attaching: 0.")
      .def_ro("repair_links", &GraphReport::repair_links)
      .def_ro("links", &GraphReport::links);
  nb::class_<BuildReport> build(m, "BuildReport",
                                "What one build found out, and its times in seconds.");
  pickle_members(build, &BuildReport::graph, &BuildReport::training_queries,
                 &BuildReport::tuning_queries, &BuildReport::lists_s, &BuildReport::graph_s,
                 &BuildReport::router_s, &BuildReport::tune_s, &BuildReport::total_s);
  build.def_ro("graph", &BuildReport::graph)
      .def_ro("training_queries", &BuildReport::training_queries)
      .def_ro("tuning_queries", &BuildReport::tuning_queries)
      .def_ro("lists_s", &BuildReport::lists_s)
      .def_ro("graph_s", &BuildReport::graph_s)
      .def_ro("router_s", &BuildReport::router_s)
      .def_ro("tune_s", &BuildReport::tune_s)
      .def_ro("total_s", &BuildReport::total_s);
}

}  // namespace

void bind_params(nb::module_& m) {
  bind_graph_params(m);
  bind_router_params(m);
  bind_reports(m);
}

}  // namespace keyseek::python
