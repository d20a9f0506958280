/// HeadCache and its like, on NumPy arrays.
#include "keyseek/decode.hpp"

#include <nanobind/stl/filesystem.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <string>
#include <tuple>
#include <vector>

#include "arrays.hpp"
#include "bindings.hpp"
#include "decode_params.hpp"
#include "errors.hpp"
#include "gil.hpp"
#include "pickle.hpp"
#include "work.hpp"

namespace keyseek::python {
namespace {

constexpr const char* kPrefillDoc =
    R"(A head's cache from the keys [n, d] and values [n, dv] of a prompt, which are copied.

float32, float16 or bfloat16. queries: [p * group, d] float32, the queries of the prompt's newest
p positions, the group's heads of one position in consecutive rows. params: a DecodeParams; options
that are given by name, as there, come before it. A scale is needed. threads, progress: of planning.)";

constexpr const char* kAppendDoc =
    R"(Takes m tokens, usually one; refreshes first, and once, when a horizon is full.

keys: [m, d], values: [m, dv] float32, stored like the others. queries: [m * group, d] float32 of these
tokens, for the next plan, where you attended them yourself (copy_tokens).)";

constexpr const char* kExtendDoc = R"(Takes m tokens that come at once, and attends each exactly.

queries: [m * group, d], keys: [m, d], values: [m, dv] float32. Returns a new array [m * group, dv]
float32: of each token the attention over all tokens up to it. All or nothing, as step.)";

constexpr const char* kTruncateDoc = R"(Takes tokens back: the first `tokens`, at least 1, stay.

Where indexed ones go, the index is cut. The tail goes too, since it was trained on what is no longer
there; a plan that needs it, and one for too few tokens, becomes "everything" until the next refresh.)";

constexpr const char* kStepDoc = R"(append, then attend: both, or neither when it raises.

queries: [group, d] float32; key: [1, d], value: [1, dv] float32, stored like the others.
Returns a new array [group, dv] float32.)";

constexpr const char* kBeginRefreshDoc = R"(Begins a refresh that is planned beside the steps.

Of the head as it is; or gives the one under way. `step` begins it when a horizon is full, where
refresh_delay says so. It is adopted before the token that comes refresh_delay later; who runs it, and
when, does not show in what comes of it. Nobody has to: what adopts it plans it then. Copies share it,
a file or pickle does not have it; truncating below the tokens that it began with drops it. Where
planning raises, what adopts it raises that, takes no token, and the next try plans again.)";

constexpr const char* kStaticPartDoc =
    R"(Keys [m, d] and values [m, dv] of the sink, then of the newest `window` tokens.

float32 copies: what to attend to beside step_heads_beside_static.)";

HeadCache prefill(const Array& keys, const Array& values, const Array& queries, const Whole& group,
                  const Options* params, const Whole& threads, const ProgressCallback& progress,
                  const nb::kwargs& given) {
  const auto key_rows = borrow_vectors(keys, "keys");
  const auto value_rows = borrow_vectors(values, "values");
  const auto query_rows = borrow_floats(queries, "queries");
  Options options = params == nullptr ? Options() : *params;
  options.take(given);
  const std::size_t heads = count_of(group, "group");
  return run_long(threads, progress, [&](const Execution& run) {
    return HeadCache::prefill(key_rows.view, value_rows.view, query_rows.view, heads,
                              options.params, run);
  });
}

std::string prefill_signature() {
  return "def prefill(keys: numpy.typing.NDArray, values: numpy.typing.NDArray, "
         "queries: numpy.typing.NDArray, group: int = 1, *, params: DecodeParams | None = None, "
         "threads: int = 0, progress: collections.abc.Callable[[str, int, int], object] | None = "
         "None, " +
         option_signature() + ") -> HeadCache";
}

DecodeScratch& scratch_of_thread() {
  thread_local DecodeScratch scratch;
  return scratch;
}

/// A key [1, d] and a value [1, dv].
void require_token(const HeadCache& self, const auto& k, const auto& v) {
  if (k.view.rows != 1 || k.view.cols != self.dim())
    refuse("key is {} x {}, must be 1 x {}", k.view.rows, k.view.cols, self.dim());
  if (v.view.rows != 1 || v.view.cols != self.value_dim())
    refuse("value is {} x {}, must be 1 x {}", v.view.rows, v.view.cols, self.value_dim());
}

void append(HeadCache& self, const Array& keys, const Array& values,
            const std::optional<Array>& queries) {
  const auto k = borrow_floats(keys, "keys");
  const auto v = borrow_floats(values, "values");
  Borrowed<MatrixView<float>> q;
  if (queries) q = borrow_floats(*queries, "queries");
  const GilReleased released;
  self.append(k.view, v.view, q.view);
}

Table<float> extend(HeadCache& self, const Array& queries, const Array& keys, const Array& values) {
  const auto q = borrow_floats(queries, "queries");
  const auto k = borrow_floats(keys, "keys");
  const auto v = borrow_floats(values, "values");
  Matrix<float> out(q.view.rows, self.value_dim());
  {
    const GilReleased released;
    self.extend(q.view, k.view, v.view, scratch_of_thread(), out.data());
  }
  return numpy_of(std::move(out));
}

Table<float> step(HeadCache& self, const Array& queries, const Array& key, const Array& value) {
  const auto q = borrow_floats(queries, "queries");
  const auto k = borrow_floats(key, "key");
  const auto v = borrow_floats(value, "value");
  require_token(self, k, v);
  Matrix<float> out(self.group(), self.value_dim());
  {
    const GilReleased released;
    self.step(q.view, k.view.data, v.view.data, scratch_of_thread(), out.data());
  }
  return numpy_of(std::move(out));
}

/// The rows of both in f32.
Matrix<float> joined(AnyMatrixView first, AnyMatrixView second) {
  Matrix<float> all(first.rows + second.rows, first.cols);
  for (std::size_t i = 0; i < first.rows; ++i) first.copy_row(i, all.row(i));
  for (std::size_t i = 0; i < second.rows; ++i) second.copy_row(i, all.row(first.rows + i));
  return all;
}

std::pair<Table<float>, Table<float>> static_part(const HeadCache& self) {
  const StaticPart part = self.static_part();
  return {numpy_of(joined(part.sink_keys, part.window_keys)),
          numpy_of(joined(part.sink_values, part.window_values))};
}

void pickle_plan(nb::class_<HeadPlan>& type) {
  using State = std::tuple<int, int, std::size_t, double, std::size_t, double, std::size_t, double,
                           double, double, double, double>;
  type.def("__getstate__",
           [](const HeadPlan& p) {
             return State(static_cast<int>(p.retriever), static_cast<int>(p.stop.rule), p.stop.k,
                          p.stop.limit, p.stop.least, p.target_recall, p.tail_vectors,
                          p.expected_error, p.planted_error, p.error_without_tail, p.keys_per_query,
                          p.bytes_per_step);
           })
      .def("__setstate__", [](HeadPlan& self, const State& state) {
        HeadPlan p;
        int retriever = 0, rule = 0;
        std::tie(retriever, rule, p.stop.k, p.stop.limit, p.stop.least, p.target_recall,
                 p.tail_vectors, p.expected_error, p.planted_error, p.error_without_tail,
                 p.keys_per_query, p.bytes_per_step) = state;
        p.retriever = static_cast<Retriever>(retriever);
        p.stop.rule = static_cast<Rule>(rule);
        new (&self) HeadPlan(p);
      });
}

void bind_plan(nb::module_& m) {
  nb::class_<HeadPlan> plan(m, "HeadPlan",
                            R"(How the indexed tokens of a head are attended, and what to expect.

retriever: "everything" (all, exactly), "none" (by the tail alone), "flat", "sketch", "projection" or
"custom" (the best keys and the tail). rule, k, limit: which of the best. Bytes are those read for the
indexed tokens. planted_error: the largest error of queries that were turned towards one token each.)");
  pickle_plan(plan);
  plan.def_prop_ro("retriever",
                   [](const HeadPlan& p) { return std::string(to_string(p.retriever)); })
      .def_prop_ro("rule", [](const HeadPlan& p) { return std::string(to_string(p.stop.rule)); })
      .def_prop_ro("k", [](const HeadPlan& p) { return p.stop.k; })
      .def_prop_ro("limit", [](const HeadPlan& p) { return p.stop.limit; })
      .def_ro("target_recall", &HeadPlan::target_recall)
      .def_ro("tail_vectors", &HeadPlan::tail_vectors)
      .def_ro("expected_error", &HeadPlan::expected_error)
      .def_ro("planted_error", &HeadPlan::planted_error)
      .def_ro("error_without_tail", &HeadPlan::error_without_tail)
      .def_ro("keys_per_query", &HeadPlan::keys_per_query)
      .def_ro("bytes_per_step", &HeadPlan::bytes_per_step)
      .def("__repr__", [](const HeadPlan& p) {
        return fmt::format(
            "HeadPlan({}, k={}, target_recall={}, tail_vectors={}, expected_error={:.2g})",
            to_string(p.retriever), p.stop.k, p.target_recall, p.tail_vectors, p.expected_error);
      });
  nb::class_<StepStats> stats(m, "StepStats", "What the last step of a head looked at.");
  pickle_members(stats, &StepStats::exact, &StepStats::scanned, &StepStats::retrieved,
                 &StepStats::bytes_read, &StepStats::search_us, &StepStats::attend_us,
                 &StepStats::total_us);
  stats.def_ro("exact", &StepStats::exact)
      .def_ro("scanned", &StepStats::scanned)
      .def_ro("retrieved", &StepStats::retrieved)
      .def_ro("bytes_read", &StepStats::bytes_read)
      .def_ro("search_us", &StepStats::search_us)
      .def_ro("attend_us", &StepStats::attend_us)
      .def_ro("total_us", &StepStats::total_us);
}

void bind_steps(nb::class_<HeadCache>& type) {
  type.def_static("prefill", &prefill, nb::arg("keys"), nb::arg("values"), nb::arg("queries"),
                  nb::arg("group") = 1, nb::kw_only(), nb::arg("params") = nb::none(),
                  nb::arg("threads") = 0, nb::arg("progress") = nb::none(), nb::arg("options"),
                  nb::sig(prefill_signature().c_str()), kPrefillDoc)
      .def("append", &append, nb::arg("keys"), nb::arg("values"), nb::arg("queries") = nb::none(),
           kAppendDoc)
      .def("extend", &extend, nb::arg("queries"), nb::arg("keys"), nb::arg("values"), kExtendDoc)
      .def("step", &step, nb::arg("queries"), nb::arg("key"), nb::arg("value"), kStepDoc)
      .def(
          "retrieve",
          [](const HeadCache& self, const Array& queries, const Whole& k) {
            const auto q = borrow_floats(queries, "queries");
            Hits hits;
            self.retrieve(q.view, count_of(k, "k"), scratch_of_thread(), hits);
            return hits;
          },
          nb::arg("queries"), nb::arg("k") = 100,
          "The k best indexed tokens found for queries [group, d]: Hits whose ids are positions.")
      .def("static_part", &static_part, kStaticPartDoc);
}

void bind_refresh(nb::module_& m) {
  nb::class_<Refresh>(m, "Refresh", "A refresh that a head has begun: see HeadCache.begin_refresh.")
      .def(
          "run",
          [](const Refresh& self, const Whole& threads, const ProgressCallback& progress) {
            run_long(threads, progress, [&](const Execution& run) { self.run(run); });
          },
          nb::kw_only(), nb::arg("threads") = 0, nb::arg("progress") = nb::none(),
          "Plans, unless somebody does or has; from any thread.")
      .def_prop_ro("done", &Refresh::done, "Whether adopting it will not wait.");
}

void bind_lifetime(nb::class_<HeadCache>& type) {
  type.def(
          "refresh",
          [](HeadCache& self, const Whole& threads, const ProgressCallback& progress) {
            run_long(threads, progress, [&](const Execution& run) { self.refresh(run); });
          },
          nb::kw_only(), nb::arg("threads") = 0, nb::arg("progress") = nb::none(),
          "Moves all but the window into the index and plans anew; `step` does so by itself.")
      .def("begin_refresh", &HeadCache::begin_refresh, nb::call_guard<GilReleased>(),
           kBeginRefreshDoc)
      .def("adopt_refresh", &HeadCache::adopt_refresh, nb::call_guard<GilReleased>(),
           "Adopts the refresh under way now, waiting for it; without one does nothing.")
      .def_prop_ro("refreshing", &HeadCache::refreshing, "Whether a refresh is under way.")
      .def(
          "truncate",
          [](HeadCache& self, const Whole& tokens) {
            const std::size_t kept = count_of(tokens, "tokens");
            const GilReleased released;
            self.truncate(kept);
          },
          nb::arg("tokens"), kTruncateDoc)
      .def(
          "copy", [](const HeadCache& self) { return HeadCache(self); },
          "Shares what is indexed; the two then go separate ways.")
      .def("save", &HeadCache::save, nb::arg("path"), nb::call_guard<GilReleased>(),
           "Everything, so that a prompt is read and planned once. The file appears whole or not "
           "at all.")
      .def_static("load", &HeadCache::load, nb::arg("path"), nb::call_guard<GilReleased>(),
                  "Reads and checks everything.")
      .def_static("map", &HeadCache::map, nb::arg("path"), nb::call_guard<GilReleased>(),
                  "Maps the file: what is indexed is shared with others who map it.");
}

void bind_properties(nb::class_<HeadCache>& type) {
  type.def_prop_ro("plan", [](const HeadCache& self) { return self.plan(); })
      .def_prop_ro("stats", [](const HeadCache& self) { return self.stats(); })
      .def_prop_ro("indexed", &HeadCache::indexed)
      .def_prop_ro(
          "pinned", [](const HeadCache& self) { return self.pinned(); },
          "Positions of the pinned tokens.")
      .def_prop_ro("group", &HeadCache::group)
      .def_prop_ro("dim", &HeadCache::dim)
      .def_prop_ro("value_dim", &HeadCache::value_dim)
      .def_prop_ro(
          "key_dtype",
          [](const HeadCache& self) { return std::string(to_string(self.key_dtype())); },
          R"("f32", "f16" or "bf16".)")
      .def_prop_ro("value_dtype",
                   [](const HeadCache& self) { return std::string(to_string(self.value_dtype())); })
      .def_prop_ro("nbytes", &HeadCache::bytes, "All memory, keys and values included.")
      .def_prop_ro("full_bytes", &HeadCache::full_bytes,
                   "What full attention reads of the indexed tokens in a step: keys and values in "
                   "the\ntypes that they came in.")
      .def("__len__", &HeadCache::tokens)
      .def("__repr__", [](const HeadCache& self) {
        return fmt::format("HeadCache({} tokens, {} indexed, {})", self.tokens(), self.indexed(),
                           to_string(self.plan().retriever));
      });
}

}  // namespace

void bind_decode(nb::module_& m) {
  bind_plan(m);
  bind_refresh(m);
  nb::class_<HeadCache> type(m, "HeadCache",
                             R"(Keys, values, index and plan of one KV head while decoding.

For one thread at a time, a second one is refused; different heads are independent. Made by
`prefill`.)");
  pickle_as_file(type);
  bind_steps(type);
  bind_pages(type);
  bind_lifetime(type);
  bind_properties(type);
}

}  // namespace keyseek::python
