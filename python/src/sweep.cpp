/// Sweeps for keyseek.bench, and the files of rows that it shares with `keyseek sweep`.
#include "sweep/sweep.hpp"

#include <nanobind/stl/optional.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "arrays.hpp"
#include "bindings.hpp"
#include "errors.hpp"
#include "gil.hpp"
#include "sweep/grid.hpp"
#include "sweep/index_contender.hpp"
#include "work.hpp"

namespace keyseek::python {
namespace {

using sweep::Json;

// --- JSON --------------------------------------------------------------------------------

/// By way of text. Letters that no UTF-8 can hold, of a file's name, become question marks.
Json json_of(nb::handle value) {
  const nb::object text = nb::module_::import_("json").attr("dumps")(
      value, nb::arg("allow_nan") = false, nb::arg("ensure_ascii") = false);
  return Json::parse(
      nb::cast<std::string>(text.attr("encode")("utf-8", "replace").attr("decode")()));
}

nb::object python_of(const Json& value) {
  return nb::module_::import_("json").attr("loads")(sweep::dump(value));
}

nb::list python_of(const std::vector<Json>& rows) {
  nb::list list;
  for (const Json& row : rows) list.append(python_of(row));
  return list;
}

// --- contenders --------------------------------------------------------------------------

/// function(argument); a keyseek.Error that it raises ends the contender's sweep.
template <class Argument>
nb::object ask(const nb::object& function, Argument&& argument) {
  try {
    return call_python(function, std::forward<Argument>(argument));
  } catch (const nb::python_error& error) {
    if (!error.matches(nb::module_::import_("keyseek.errors").attr("Error"))) throw;
    throw sweep::ContenderFailed(nb::str(error.value()).c_str());
  }
}

/// One run of another library, which gets all queries in one call.
sweep::Sample measure_peer(const sweep::Problem& problem, const nb::object& function,
                           const Json& params) {
  const GilHeld held;
  const auto [ids, seconds, scanned] =
      nb::cast<std::tuple<Array, double, std::optional<double>>>(ask(function, python_of(params)));
  const auto queries = static_cast<double>(problem.data.queries.rows());
  sweep::Sample sample{.ids = copy_ids(ids, "ids"), .seconds = seconds};
  sample.us_per_query = seconds / queries * 1e6;
  sample.us_per_step_p50 = sample.us_per_query * static_cast<double>(problem.group);
  if (scanned)
    sample.scanned_fraction = *scanned / queries / static_cast<double>(problem.data.keys.rows());
  return sample;
}

/// Another library's index: keyseek.bench.peer_process.PeerProcess. Made, built and destroyed
/// with the GIL held.
sweep::Contender peer_contender(const sweep::Problem& problem, const nb::object& peer) {
  sweep::Contender contender{.index = nb::cast<std::string>(peer.attr("index")),
                             .identity = {{"warm", false},
                                          {"isa", nullptr},
                                          {"threads", 1},
                                          {"version", nb::cast<std::string>(peer.attr("version"))}},
                             .points = {}};
  for (const nb::handle params : peer.attr("points"))
    contender.points.push_back({.params = json_of(params)});
  contender.build = [build = nb::object(peer.attr("build"))](const Execution& run, auto&) {
    const auto [seconds, bytes] =
        nb::cast<std::pair<double, std::size_t>>(ask(build, run.thread_count()));
    return sweep::Built{.seconds = seconds, .bytes = bytes, .threads = run.thread_count()};
  };
  contender.measure = [&problem, measure = nb::object(peer.attr("measure"))](
                          const sweep::Point& point, bool /*cold*/) {
    return measure_peer(problem, measure, point.params);
  };
  return contender;
}

// --- sweep -------------------------------------------------------------------------------

/// A keyseek.bench.problem.Problem, which has to live as long as what comes back.
sweep::Problem problem_of(const nb::object& problem) {
  return {.name = nb::cast<std::string>(problem.attr("name")),
          .data = nb::cast<const io::Benchmark&>(problem.attr("data")),
          .truth = copy_ids(nb::borrow<Array>(problem.attr("truth")), "truth"),
          .k = count_of(problem.attr("k"), "k"),
          .group = count_of(problem.attr("group"), "group"),
          .warm = nb::cast<bool>(problem.attr("warm")),
          .view = json_of(problem.attr("view"))};
}

/// A sweep of keyseek.bench, and what keeps its data alive.
class Bench {
 public:
  Bench(nb::object problem, const std::string& out, const Whole& rounds, bool cold, double patience,
        const std::optional<Whole>& pin, nb::callable log)
      : data_(problem.attr("data")),
        sweep_(problem_of(problem),
               {.style = sweep::bench_rows(),
                .rounds = count_of(rounds, "rounds"),
                .cold = cold,
                .pin = pin ? std::optional(int_of(*pin, "pin")) : std::nullopt,
                .patience_s = patience,
                .thrifty = true},
               out, [log = std::move(log)](const std::string& line) {
                 const GilHeld held;
                 (void)call_python(log, line);
               }) {}

  void add_index(const std::string& kind, const Whole& spread, const Whole& threads) {
    const sweep::Problem& problem = sweep_.problem();
    sweep::IndexContenderParams index{.kind = index_kind_of(kind, "kind"),
                                      .novel = sweep::bench_rows().novel};
    index.projection.tuning_k = problem.k;
    if (index.kind == IndexKind::projection)
      index.grid = sweep::grid_near_ridge(count_of(spread, "spread"));
    index.between_steps = [](auto...) {
      const GilHeld held;
      if (PyErr_CheckSignals() != 0) throw nb::python_error();
      return true;
    };
    index.training = [&problem] { return io::training_set(problem.data); };
    run_long(threads, std::nullopt, [&](const Execution& run) {
      sweep_.add(sweep::index_contender(problem, std::move(index)), run);
    });
  }

  void add_peer(const nb::object& peer, const Whole& threads) {
    sweep_.add(peer_contender(sweep_.problem(), peer), {.threads = int_of(threads, "threads")});
  }

  std::size_t measure() {
    const GilReleased released;
    return sweep_.measure().size();
  }

 private:
  nb::object data_;
  sweep::Sweep sweep_;
};

void bind_bench(nb::module_& m) {
  nb::class_<Bench>(m, "Sweep", R"(Measures indexes in turns, into a file of rows: keyseek.bench.

problem: a keyseek.bench.problem.Problem. rounds: every point is measured once in each. cold:
indexes also with caches cold between steps. patience: seconds; a run that takes longer ends its
index's sweep. pin: CPU to search on. log(line): called with what happens. Points that have a row in
the file `out` are skipped.)")
      .def(nb::init<nb::object, const std::string&, const Whole&, bool, double,
                    const std::optional<Whole>&, nb::callable>(),
           nb::arg("problem"), nb::kw_only(), nb::arg("out"), nb::arg("rounds"), nb::arg("cold"),
           nb::arg("patience"), nb::arg("pin").none(), nb::arg("log"))
      .def("add_index", &Bench::add_index, nb::arg("kind"), nb::kw_only(), nb::arg("spread") = 0,
           nb::arg("threads") = 0,
           "Builds keyseek's own index, unless all of its rows are there. spread: of a projection "
           "index's\ndials, so many places off the balance of lists and expansions.")
      .def("add_peer", &Bench::add_peer, nb::arg("peer"), nb::kw_only(), nb::arg("threads") = 0,
           R"(Builds another library's index, unless all of its rows are there.

peer: has index and version (texts), points (dicts of params), build(threads) -> (seconds, bytes),
and measure(params) -> (ids [queries, k], seconds, keys scanned or None). One that throws a
keyseek.Error is left out from there on.)")
      .def("measure", &Bench::measure, "Appends the rows, and returns how many.");
}

// --- files of rows -----------------------------------------------------------------------

void bind_result_file(nb::module_& m) {
  using sweep::ResultFile;
  nb::class_<ResultFile>(m, "ResultFile",
                         R"(A file of rows: a JSON object per line, appended and never changed.

Locked for one run at a time. The beginning of a row that a killed run left at the end is cut
off.)")
      .def(nb::init<std::string>(), nb::arg("path"))
      .def(
          "__enter__", [](nb::handle_t<ResultFile> self) { return nb::borrow(self); },
          nb::sig("def __enter__(self) -> ResultFile"))
      .def("__exit__", [](ResultFile& self, const nb::args&) { self.close(); })
      .def_prop_ro("rows", [](const ResultFile& self) { return python_of(self.rows()); })
      .def(
          "has", [](const ResultFile& self, const nb::dict& row) { return self.has(json_of(row)); },
          nb::arg("identity"), "Whether some row agrees with all fields of `identity`.")
      .def(
          "append", [](ResultFile& self, const nb::dict& row) { self.append(json_of(row)); },
          nb::arg("row"), "Writes and syncs a row.");
  m.def(
      "parse_rows",
      [](const std::string& text, const std::string& path) {
        return python_of(sweep::parse_rows(text, path));
      },
      nb::arg("text"), nb::arg("path"),
      "The rows of whole lines. Throws Error, naming path, when one is no JSON object.");
}

}  // namespace

void bind_sweep(nb::module_& m) {
  bind_bench(m);
  bind_result_file(m);
}

}  // namespace keyseek::python
