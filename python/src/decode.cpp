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
#include "caller_search.hpp"
#include "errors.hpp"
#include "gil.hpp"
#include "names.hpp"
#include "pickle.hpp"
#include "work.hpp"

namespace keyseek::python {
namespace {

constexpr const char* kPrefillDoc =
    R"(A head's cache from the keys [n, d] and values [n, dv] of a prompt, which are copied.

float32, float16 or bfloat16. queries: [p * group, d] float32, the queries of the prompt's newest
p positions, the group's heads of one position in consecutive rows. max_error: wanted mean of
|out - full| / |full|. scale: of the softmax. softcap: c of logits c * tanh(scale * <q, k> / c), 0:
they are not capped. null_logits: [group] float32, for each query head a logit that takes part in
the softmax and has no value (s_aux of gpt-oss). theta, rotary_dim, layout, frequencies,
rotary_first: of the rotary embedding, as in rope_shift; shift=False: there is none. sink, window: tokens attended exactly.
horizon: tokens decoded until what was decoded enters the index. least_indexed: with fewer tokens
than this to index, all are attended. pinned: so many tokens of the prompt, those its last queries
attend to most, are attended exactly as well. int8_values: values of indexed tokens are kept in
8 bits. share: of the prompt's positions whose queries train the index. observed, held_out:
positions that train the tail, and that the plan is tried on. tail_vectors: of the tail, 0: none.
least_k, max_k: keys retrieved per query. max_memory: in units of keys and values as stored, what a
projection index is cut to. rule: which of the keys found are attended, "top-k",
"dipr" (logits above the largest - limit) or "mass" (a share `limit` of the mass seen).

The plan keeps max_error. With retriever ("everything", "none", "flat", "sketch", "projection",
"complete": sketch where it reads markedly less, else flat, or "custom") it is given instead: k keys
per query, searched with target_recall ("projection"), and `limit` of the rule.

index: a search of your own, in the plan or as retriever="custom". Called as index(keys [n, d] float32)
when keys are indexed; returns a function (queries [G, d] float32, k) -> (ids [G, k], scores [G, k]) with
inner products, best first, padded with -1.)";

constexpr const char* kAppendDoc = R"(Takes a token; refreshes first when a horizon is full.

key: [1, d], value: [1, dv] float32, stored like the others.)";

constexpr const char* kAttendDoc = R"(Attention of the newest token's queries over all tokens.

queries: [group, d] float32. Returns a new array [group, dv] float32.)";

constexpr const char* kStepDoc = R"(append, then attend: both, or neither when it raises.

queries: [group, d] float32; key: [1, d], value: [1, dv] float32, stored like the others.
Returns a new array [group, dv] float32.)";

constexpr const char* kStaticPartDoc =
    R"(Keys [m, d] and values [m, dv] of the sink, then of the newest `window` tokens.

float32 copies: what to attend to beside step_heads_beside_static.)";

HeadCache prefill(const Array& keys, const Array& values, const Array& queries, std::int64_t group,
                  double max_error, double scale, double softcap,
                  const std::optional<Array>& null_logits, double theta, std::int64_t rotary_dim,
                  const std::string& layout, const std::optional<Array>& frequencies,
                  std::int64_t rotary_first, bool shift, std::int64_t sink, std::int64_t window,
                  std::int64_t horizon, std::int64_t least_indexed, std::int64_t pinned,
                  bool int8_values, bool scan_novel, double share, std::int64_t observed,
                  std::int64_t held_out, std::int64_t tail_vectors, std::int64_t least_k,
                  std::int64_t max_k, double max_memory, const std::string& rule,
                  const std::optional<std::string>& retriever, std::int64_t k, double target_recall,
                  std::optional<double> limit, const std::optional<nb::callable>& index,
                  std::int64_t seed, int threads, const ProgressCallback& progress) {
  const auto key_rows = borrow_vectors(keys, "keys");
  const auto value_rows = borrow_vectors(values, "values");
  const auto query_rows = borrow_floats(queries, "queries");
  DecodeParams params;
  params.max_error = max_error;
  params.scale = static_cast<float>(scale);
  params.softcap = static_cast<float>(softcap);
  if (null_logits) params.null_logits = copy_floats(*null_logits, "null_logits");
  params.rope = rope_params(theta, rotary_dim, layout, frequencies, rotary_first);
  params.shift = shift;
  params.sink = count_of(sink, "sink");
  params.window = count_of(window, "window");
  params.horizon = count_of(horizon, "horizon");
  params.least_indexed = count_of(least_indexed, "least_indexed");
  params.pinned = count_of(pinned, "pinned");
  params.int8_values = int8_values;
  params.scan_novel = scan_novel;
  params.share = share;
  params.observed = count_of(observed, "observed");
  params.held_out = count_of(held_out, "held_out");
  params.tail_vectors = count_of(tail_vectors, "tail_vectors");
  params.least_k = count_of(least_k, "least_k");
  params.max_k = count_of(max_k, "max_k");
  params.max_memory = max_memory;
  params.rule = rule_of(rule, "rule");
  params.seed = count_of(seed, "seed");
  if (index) params.index = index_keys_of(*index);
  if (limit && !retriever)
    refuse("limit is {}, but a plan finds its own: give a retriever", *limit);
  if (retriever) {
    params.given = GivenPlan{
        .retriever = retriever_of(*retriever, "retriever"),
        .stop = {.rule = params.rule, .k = count_of(k, "k"), .limit = limit.value_or(0.0)},
        .target_recall = target_recall};
    if (params.rule != Rule::top_k) {
      if (!limit) refuse("rule is '{}' with a given retriever: it needs a limit", rule);
      params.given->stop.least = std::min(params.least_k, params.given->stop.k);
    }
  }
  const std::size_t heads = count_of(group, "group");
  return run_long(threads, progress, [&](const Execution& run) {
    return HeadCache::prefill(key_rows.view, value_rows.view, query_rows.view, heads, params, run);
  });
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

void append(HeadCache& self, const Array& key, const Array& value) {
  const auto k = borrow_floats(key, "key");
  const auto v = borrow_floats(value, "value");
  require_token(self, k, v);
  const GilReleased released;
  self.append(k.view.data, v.view.data);
}

Table<float> attend_over_all(HeadCache& self, const Array& queries) {
  const auto q = borrow_floats(queries, "queries");
  Matrix<float> out(self.group(), self.value_dim());
  {
    const GilReleased released;
    self.attend(q.view, scratch_of_thread(), out.data());
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
                           double, double, double>;
  type.def("__getstate__",
           [](const HeadPlan& p) {
             return State(static_cast<int>(p.retriever), static_cast<int>(p.stop.rule), p.stop.k,
                          p.stop.limit, p.stop.least, p.target_recall, p.tail_vectors,
                          p.expected_error, p.error_without_tail, p.keys_per_query,
                          p.bytes_per_step);
           })
      .def("__setstate__", [](HeadPlan& self, const State& state) {
        HeadPlan p;
        int retriever = 0, rule = 0;
        std::tie(retriever, rule, p.stop.k, p.stop.limit, p.stop.least, p.target_recall,
                 p.tail_vectors, p.expected_error, p.error_without_tail, p.keys_per_query,
                 p.bytes_per_step) = state;
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
indexed tokens.)");
  pickle_plan(plan);
  plan.def_prop_ro("retriever",
                   [](const HeadPlan& p) { return std::string(to_string(p.retriever)); })
      .def_prop_ro("rule", [](const HeadPlan& p) { return std::string(to_string(p.stop.rule)); })
      .def_prop_ro("k", [](const HeadPlan& p) { return p.stop.k; })
      .def_prop_ro("limit", [](const HeadPlan& p) { return p.stop.limit; })
      .def_ro("target_recall", &HeadPlan::target_recall)
      .def_ro("tail_vectors", &HeadPlan::tail_vectors)
      .def_ro("expected_error", &HeadPlan::expected_error)
      .def_ro("error_without_tail", &HeadPlan::error_without_tail)
      .def_ro("keys_per_query", &HeadPlan::keys_per_query)
      .def_ro("bytes_per_step", &HeadPlan::bytes_per_step)
      .def("__repr__", [](const HeadPlan& p) {
        return fmt::format(
            "HeadPlan({}, k={}, target_recall={}, tail_vectors={}, expected_error={:.4f})",
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

}  // namespace

void bind_decode(nb::module_& m) {
  const DecodeParams defaults;
  const RopeParams rope;
  bind_plan(m);
  nb::class_<HeadCache> type(m, "HeadCache",
                             R"(Keys, values, index and plan of one KV head while decoding.

For one thread at a time, a second one is refused; different heads are independent. Made by
`prefill`.)");
  pickle_as_file(type);
  type.def_static(
          "prefill", &prefill, nb::arg("keys"), nb::arg("values"), nb::arg("queries"),
          nb::arg("group") = 1, nb::kw_only(), nb::arg("max_error") = defaults.max_error,
          nb::arg("scale"), nb::arg("softcap") = defaults.softcap,
          nb::arg("null_logits") = nb::none(), nb::arg("theta") = rope.theta,
          nb::arg("rotary_dim") = rope.rotary_dim, nb::arg("layout") = "half-split",
          nb::arg("frequencies") = nb::none(), nb::arg("rotary_first") = rope.rotary_first,
          nb::arg("shift") = defaults.shift, nb::arg("sink") = defaults.sink,
          nb::arg("window") = defaults.window, nb::arg("horizon") = defaults.horizon,
          nb::arg("least_indexed") = defaults.least_indexed, nb::arg("pinned") = defaults.pinned,
          nb::arg("int8_values") = defaults.int8_values,
          nb::arg("scan_novel") = defaults.scan_novel, nb::arg("share") = defaults.share,
          nb::arg("observed") = defaults.observed, nb::arg("held_out") = defaults.held_out,
          nb::arg("tail_vectors") = defaults.tail_vectors, nb::arg("least_k") = defaults.least_k,
          nb::arg("max_k") = defaults.max_k, nb::arg("max_memory") = defaults.max_memory,
          nb::arg("rule") = "top-k", nb::arg("retriever") = nb::none(),
          nb::arg("k") = GivenPlan{}.stop.k, nb::arg("target_recall") = GivenPlan{}.target_recall,
          nb::arg("limit") = nb::none(), nb::arg("index") = nb::none(),
          nb::arg("seed") = defaults.seed, nb::arg("threads") = 0, nb::arg("progress") = nb::none(),
          kPrefillDoc)
      .def("append", &append, nb::arg("key"), nb::arg("value"), kAppendDoc)
      .def("attend", &attend_over_all, nb::arg("queries"), kAttendDoc)
      .def("step", &step, nb::arg("queries"), nb::arg("key"), nb::arg("value"), kStepDoc)
      .def(
          "retrieve",
          [](const HeadCache& self, const Array& queries, std::int64_t k) {
            const auto q = borrow_floats(queries, "queries");
            Hits hits;
            self.retrieve(q.view, count_of(k, "k"), scratch_of_thread(), hits);
            return hits;
          },
          nb::arg("queries"), nb::arg("k") = 100,
          "The k best indexed tokens found for queries [group, d]: Hits whose ids are positions.")
      .def("static_part", &static_part, kStaticPartDoc)
      .def(
          "refresh",
          [](HeadCache& self, int threads, const ProgressCallback& progress) {
            run_long(threads, progress, [&](const Execution& run) { self.refresh(run); });
          },
          nb::kw_only(), nb::arg("threads") = 0, nb::arg("progress") = nb::none(),
          "Moves all but the window into the index and plans anew; `step` does so by itself.")
      .def(
          "copy", [](const HeadCache& self) { return HeadCache(self); },
          "Shares what is indexed; the two then go separate ways.")
      .def("save", &HeadCache::save, nb::arg("path"), nb::call_guard<GilReleased>(),
           "Everything, so that a prompt is read and planned once. The file appears whole or not "
           "at all.")
      .def_static("load", &HeadCache::load, nb::arg("path"), nb::call_guard<GilReleased>(),
                  "Reads and checks everything.")
      .def_static("map", &HeadCache::map, nb::arg("path"), nb::call_guard<GilReleased>(),
                  "Maps the file: what is indexed is shared with others who map it.")
      .def_prop_ro("plan", [](const HeadCache& self) { return self.plan(); })
      .def_prop_ro("stats", [](const HeadCache& self) { return self.stats(); })
      .def_prop_ro("indexed", &HeadCache::indexed)
      .def_prop_ro(
          "pinned", [](const HeadCache& self) { return self.pinned(); },
          "Positions of the pinned tokens.")
      .def_prop_ro("group", &HeadCache::group)
      .def_prop_ro("dim", &HeadCache::dim)
      .def_prop_ro("value_dim", &HeadCache::value_dim)
      .def_prop_ro("nbytes", &HeadCache::bytes, "All memory, keys and values included.")
      .def("__len__", &HeadCache::tokens)
      .def("__repr__", [](const HeadCache& self) {
        return fmt::format("HeadCache({} tokens, {} indexed, {})", self.tokens(), self.indexed(),
                           to_string(self.plan().retriever));
      });
}

}  // namespace keyseek::python
