/// The times of an index, or of a head's cache, over a sequence of steps.
#include "keyseek/measure.hpp"

#include <nanobind/stl/optional.h>

#include "arrays.hpp"
#include "bindings.hpp"
#include "errors.hpp"
#include "gil.hpp"
#include "work.hpp"

namespace keyseek::python {
namespace {

Measurement measure(const Index& index, const Array& queries, const Whole& group, const Whole& k,
                    std::optional<double> target_recall, const std::optional<Dials>& dials,
                    std::optional<float> beta, const std::optional<Whole>& max_scanned,
                    bool warm_start, bool cold_cache, const Whole& repeats,
                    const Whole& timed_steps) {
  const auto rows = borrow_queries(queries, "queries");
  const ProgressCallback silent;
  Watch watch(silent);
  const MeasureParams params{
      .group = count_of(group, "group"),
      .warm_start = warm_start,
      .cold_cache = cold_cache,
      .repeats = count_of(repeats, "repeats"),
      .timed_steps = count_of(timed_steps, "timed_steps"),
      .search = search_params(k, beta, {target_recall, dials, max_scanned, {}}),
      .progress = [&](std::string_view stage, std::size_t done, std::size_t total) {
        watch.look_for_signals();
        return watch.report(stage, done, total);
      }};
  const GilReleased released;
  try {
    return measure_steps(index, rows.view, params);
  } catch (const Error&) {
    watch.rethrow();  // Ctrl-C
    throw;
  }
}

DecodeMeasurement measure_cache(HeadCache& cache, const Array& queries, const Array& keys,
                                const Array& values, bool cold_cache) {
  const auto q = borrow_floats(queries, "queries");
  const auto k = borrow_vectors(keys, "keys");
  const auto v = borrow_vectors(values, "values");
  const ProgressCallback silent;
  Watch watch(silent);
  const DecodeMeasureParams params{
      .cold_cache = cold_cache,
      .progress = [&](std::string_view stage, std::size_t done, std::size_t total) {
        watch.look_for_signals();
        return watch.report(stage, done, total);
      }};
  const GilReleased released;
  try {
    return measure_decode(cache, q.view, k.view, v.view, params);
  } catch (const Error&) {
    watch.rethrow();  // Ctrl-C
    throw;
  }
}

void bind_decode_measurement(nb::module_& m) {
  nb::class_<DecodeMeasurement>(
      m, "DecodeMeasurement",
      "Of decoded steps: medians of times in microseconds, means of the rest.")
      .def_ro("steps", &DecodeMeasurement::steps)
      .def_ro("error", &DecodeMeasurement::error, "Mean of |out - full| / |full|.")
      .def_ro("worst_error", &DecodeMeasurement::worst_error)
      .def_ro("scanned", &DecodeMeasurement::scanned, "Keys that the search looked at, per step.")
      .def_ro("retrieved", &DecodeMeasurement::retrieved, "Keys attended, per query.")
      .def_ro("bytes_read", &DecodeMeasurement::bytes_read, "Per step.")
      .def_ro("search_us", &DecodeMeasurement::search_us)
      .def_ro("attend_us", &DecodeMeasurement::attend_us)
      .def_ro("other_us", &DecodeMeasurement::other_us)
      .def_ro("total_us", &DecodeMeasurement::total_us);
  m.def("measure_decode", &measure_cache, nb::arg("cache"), nb::arg("queries"), nb::arg("keys"),
        nb::arg("values"), nb::kw_only(), nb::arg("cold_cache") = false,
        R"(Steps a HeadCache through tokens that it does not have, and takes the time of each.

keys [n, d] and values [n, dv]: of the whole sequence, whose first len(cache) tokens are in the
cache; queries: [(n - len(cache)) * group, d] float32 of the others. cold_cache: the CPU's caches are
evicted before each step. Outputs are compared with attention over all tokens.)");
}

}  // namespace

void bind_measure(nb::module_& m) {
  bind_decode_measurement(m);
  nb::class_<Measurement>(m, "Measurement", "Results and times of a sequence of decode steps.")
      .def_prop_ro(
          "ids", [](const Measurement& self) { return numpy_ids(self.ids); },
          nb::rv_policy::automatic,
          "[queries, k] int64, padded with -1. A new array on each access.")
      .def_ro("scanned_fraction", &Measurement::scanned_fraction,
              "Keys looked at per step / n, mean; a sketch looks at all.")
      .def_ro("bytes_read", &Measurement::bytes_read, "Per step, mean.")
      .def_ro("expanded", &Measurement::expanded, "Keys whose links were followed per step, mean.")
      .def_ro("us_p50", &Measurement::us_p50, "Microseconds per step, median.")
      .def_ro("us_p95", &Measurement::us_p95)
      .def_ro("us_mean", &Measurement::us_mean);
  m.def("measure_steps", &measure, nb::arg("index"), nb::arg("queries"), nb::kw_only(),
        nb::arg("group") = 1, nb::arg("k") = 100, nb::arg("target_recall") = nb::none(),
        nb::arg("dials") = nb::none(), nb::arg("beta") = nb::none(),
        nb::arg("max_scanned") = nb::none(), nb::arg("warm_start") = true,
        nb::arg("cold_cache") = false, nb::arg("repeats") = 1, nb::arg("timed_steps") = 0,
        R"(Searches step after step on the calling thread, and takes the time of each.

queries: [steps * group, d] float32. warm_start: each step gets the hits of the one before.
cold_cache: the CPU's caches are evicted before each step. repeats: passes over the queries; the
fastest of a step counts. timed_steps: so many, evenly spread, are timed (0: all).
The rest as in search.)");
}

}  // namespace keyseek::python
