/// Exact lists, and the recall of lists against them.
#include "keyseek/knn.hpp"

#include <nanobind/stl/optional.h>
#include <nanobind/stl/pair.h>

#include <optional>
#include <string>
#include <utility>

#include "arrays.hpp"
#include "bindings.hpp"
#include "errors.hpp"
#include "keyseek/metric.hpp"
#include "names.hpp"
#include "work.hpp"

namespace keyseek::python {

namespace {

KnnLists lists_by(Metric metric, AnyMatrixView keys, MatrixView<float> queries,
                  const KnnParams& params, const Execution& run) {
  if (metric == Metric::ip) return exact_knn(keys, queries, params, run);
  if (queries.cols != keys.cols)
    refuse("queries have dimension {}, keys have {}", queries.cols, keys.cols);
  const MetricSpace space = MetricSpace::of(metric, keys);
  const AnyMatrix made = space.keys(keys);
  KnnLists lists = exact_knn(made.view(), space.queries(queries), params, run);
  for (std::size_t i = 0; i < queries.rows; ++i) {
    space.convert({queries.row(i), queries.cols}, made.view(), {lists.ids.row(i), lists.ids.cols()},
                  {lists.scores.row(i), lists.scores.cols()});
  }
  return lists;
}

}  // namespace

void bind_knn(nb::module_& m) {
  m.def(
      "exact_knn",
      [](const Array& keys, const Array& queries, const Whole& k, const std::string& method,
         const std::string& metric, const Whole& pool, const Whole& threads,
         const ProgressCallback& progress) {
        const auto key_rows = borrow_vectors(keys, "keys");
        const auto query_rows = borrow_queries(queries, "queries");
        const Metric by = metric_of(metric, "metric");
        const KnnParams params{.k = count_of(k, "k"),
                               .method = knn_method_of(method, "method"),
                               .pool = count_of(pool, "pool")};
        KnnLists lists = run_long(threads, progress, [&](const Execution& run) {
          return lists_by(by, key_rows.view, query_rows.view, params, run);
        });
        return std::pair(numpy_ids(lists.ids), numpy_of(std::move(lists.scores)));
      },
      nb::arg("keys"), nb::arg("queries"), nb::arg("k") = 100, nb::kw_only(),
      nb::arg("method") = "f32", nb::arg("metric") = "ip", nb::arg("pool") = 0,
      nb::arg("threads") = 0, nb::arg("progress") = nb::none(),
      R"(Exact k best keys of every query by inner product.

keys: [n, d] float32, float16, bfloat16 or int8. queries: [m, d] float32, float16 or bfloat16.
1 <= k <= n. metric: "ip"; "l2", the smallest Euclidean distances, whose squares are returned; or
"cosine".
method: "f32", or "int8": an 8-bit scan, then the best `pool` keys of each query (0: by k and d)
scored in stored precision.
threads: 0 for as many as there are. progress(stage, done, total) may return False to stop.

Returns ids [m, k] int64 and scores [m, k] float32, best first, equal scores by smaller id.)");
  m.def(
      "recall",
      [](const Array& truth, const Array& found, const std::optional<Whole>& keys) {
        return recall(copy_ids(truth, "truth"), copy_ids(found, "found"),
                      keys ? count_of(*keys, "keys") : kNoId);
      },
      nb::arg("truth"), nb::arg("found"), nb::kw_only(), nb::arg("keys") = nb::none(),
      "Share of the ids in truth [m, k] that are in the same row of found [m, any number], where "
      "-1\n"
      "is no id; the mean over the rows. keys: how many there are; ids beyond are refused, as the\n"
      "truth of other keys.");
}

}  // namespace keyseek::python
