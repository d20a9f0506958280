/// Parameters of building, and what building and tuning report.
#include <fmt/format.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <string>
#include <vector>

#include "bindings.hpp"
#include "errors.hpp"
#include "keyseek/index.hpp"
#include "names.hpp"
#include "pickle.hpp"

namespace keyseek::python {
namespace {

std::string name_of(LinkMethod method) {
  for (const auto& entry : kLinkMethods) {
    if (entry.value == method) return std::string(entry.name);
  }
  return "";
}

std::string name_of(KnnMethod method) { return method == KnnMethod::f32 ? "f32" : "int8"; }

void bind_graph_params(nb::module_& m) {
  const GraphParams defaults;
  nb::class_<GraphParams> type(m, "GraphParams", R"(How a graph is linked by training queries.

link_method: "cooccurrence" (this library's own) or "pivot" (RoarGraph, arXiv 2408.08933).
candidates: heaviest links that pruning chooses from. degree: links kept per key before reverse
links, max_degree after them. damping: exponent of the popularity a weight is divided by.
sampled_lists: lists counted per key at most.
entry_points: keys the reachability is counted from.)");
  pickle_members(type, &GraphParams::link_method, &GraphParams::candidates, &GraphParams::degree,
                 &GraphParams::max_degree, &GraphParams::damping, &GraphParams::sampled_lists,
                 &GraphParams::entry_points);
  type.def(
          "__init__",
          [](GraphParams* self, const std::string& link_method, const Whole& candidates,
             const Whole& degree, const Whole& max_degree, double damping,
             const Whole& sampled_lists, const Whole& entry_points) {
            new (self) GraphParams{.link_method = link_method_of(link_method, "link_method"),
                                   .candidates = count_of(candidates, "candidates"),
                                   .degree = count_of(degree, "degree"),
                                   .max_degree = count_of(max_degree, "max_degree"),
                                   .damping = damping,
                                   .sampled_lists = count_of(sampled_lists, "sampled_lists"),
                                   .entry_points = count_of(entry_points, "entry_points")};
            self->validate();
          },
          nb::kw_only(), nb::arg("link_method") = name_of(defaults.link_method),
          nb::arg("candidates") = defaults.candidates, nb::arg("degree") = defaults.degree,
          nb::arg("max_degree") = defaults.max_degree, nb::arg("damping") = defaults.damping,
          nb::arg("sampled_lists") = defaults.sampled_lists,
          nb::arg("entry_points") = defaults.entry_points)
      .def_prop_ro("link_method", [](const GraphParams& p) { return name_of(p.link_method); })
      .def_ro("candidates", &GraphParams::candidates)
      .def_ro("degree", &GraphParams::degree)
      .def_ro("max_degree", &GraphParams::max_degree)
      .def_ro("damping", &GraphParams::damping)
      .def_ro("sampled_lists", &GraphParams::sampled_lists)
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
          [](RouterParams* self, const Whole& dim, const Whole& clusters, const Whole& iterations,
             double queries_per_key, const Whole& seed) {
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

void bind_sketch_params(nb::module_& m) {
  const SketchParams defaults;
  nb::class_<SketchParams> type(m, "SketchParams", R"(How a sketch index is built.

dim: coordinates of a key in the sketch; 0: as many as leave out at most `residual` of what queries
see; where that is 0 too, as many as make a search cheapest. ridge: weight of directions that no query
looked along.)");
  pickle_members(type, &SketchParams::dim, &SketchParams::residual, &SketchParams::ridge);
  type.def(
          "__init__",
          [](SketchParams* self, const Whole& dim, double residual, double ridge) {
            new (self)
                SketchParams{.dim = count_of(dim, "dim"), .residual = residual, .ridge = ridge};
            self->validate();
          },
          nb::kw_only(), nb::arg("dim") = defaults.dim, nb::arg("residual") = defaults.residual,
          nb::arg("ridge") = defaults.ridge)
      .def_ro("dim", &SketchParams::dim)
      .def_ro("residual", &SketchParams::residual)
      .def_ro("ridge", &SketchParams::ridge);
}

void bind_projection_params(nb::module_& m) {
  const ProjectionParams defaults;
  nb::class_<ProjectionParams> type(m, "ProjectionParams", R"(How a projection index is built.

list_length: k of the training queries' exact lists, found by list_method ("int8" or "f32").
graph, router: GraphParams, RouterParams. target_recalls, tuning_k: what the dials are tuned for.)");
  pickle_members(type, &ProjectionParams::list_length, &ProjectionParams::list_method,
                 &ProjectionParams::graph, &ProjectionParams::router,
                 &ProjectionParams::target_recalls, &ProjectionParams::tuning_k);
  type.def(
          "__init__",
          [](ProjectionParams* self, const Whole& list_length, const std::string& list_method,
             const std::optional<GraphParams>& graph, const std::optional<RouterParams>& router,
             std::vector<double> target_recalls, const Whole& tuning_k) {
            new (self) ProjectionParams{.list_length = count_of(list_length, "list_length"),
                                        .list_method = knn_method_of(list_method, "list_method"),
                                        .graph = graph.value_or(GraphParams{}),
                                        .router = router.value_or(RouterParams{}),
                                        .target_recalls = std::move(target_recalls),
                                        .tuning_k = count_of(tuning_k, "tuning_k")};
            self->validate();
          },
          nb::kw_only(), nb::arg("list_length") = defaults.list_length,
          nb::arg("list_method") = "int8", nb::arg("graph") = nb::none(),
          nb::arg("router") = nb::none(), nb::arg("target_recalls") = defaults.target_recalls,
          nb::arg("tuning_k") = defaults.tuning_k)
      .def_ro("list_length", &ProjectionParams::list_length)
      .def_prop_ro("list_method", [](const ProjectionParams& p) { return name_of(p.list_method); })
      .def_ro("graph", &ProjectionParams::graph)
      .def_ro("router", &ProjectionParams::router)
      .def_ro("target_recalls", &ProjectionParams::target_recalls)
      .def_ro("tuning_k", &ProjectionParams::tuning_k);
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
              "By the cost model a flat index is the better choice.")
      .def("__repr__", [](const OperatingPoint& p) {
        return fmt::format(
            "OperatingPoint(target_recall={}, recall={:.4f}, scanned_fraction={:.4f}, "
            "flat_is_better={})",
            p.target_recall, p.recall, p.scanned_fraction, p.flat_is_better ? "True" : "False");
      });
  nb::class_<GraphReport> graph(m, "GraphReport", "What building the graph found out.");
  pickle_members(graph, &GraphReport::unwanted, &GraphReport::unreachable_before,
                 &GraphReport::unreachable, &GraphReport::links);
  graph.def_ro("unwanted", &GraphReport::unwanted, "Keys in no training list.")
      .def_ro("unreachable_before", &GraphReport::unreachable_before)
      .def_ro("unreachable", &GraphReport::unreachable, "After attaching: 0.")
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
  bind_sketch_params(m);
  bind_projection_params(m);
  bind_reports(m);
}

}  // namespace keyseek::python
