/// Training queries, and how they are moved to where decoding will ask.
#include "keyseek/rope.hpp"

#include <string>

#include "arrays.hpp"
#include "bindings.hpp"
#include "errors.hpp"
#include "gil.hpp"
#include "names.hpp"
#include "work.hpp"

namespace keyseek::python {
namespace {

TrainingQueries make_training(const Array& train, const std::optional<Array>& tuning,
                              const Whole& group, const Whole& tuning_steps,
                              const std::optional<Array>& lists) {
  TrainingQueries out;
  out.train = copy_matrix(borrow_floats(train, "train").view);
  if (tuning) out.tuning = copy_matrix(borrow_floats(*tuning, "tuning").view);
  out.group = count_of(group, "group");
  out.tuning_steps = count_of(tuning_steps, "tuning_steps");
  if (lists) out.lists = copy_ids(*lists, "lists");
  return out;
}

void bind_training_queries(nb::module_& m) {
  nb::class_<TrainingQueries>(m, "TrainingQueries",
                              R"(What an index is trained and tuned on.

train [m * group, d] float32: the queries of one position are consecutive rows.
tuning [runs * tuning_steps * group, d]: held out for tuning; within a run consecutive steps are
consecutive positions. Without it an index is not tuned. group: query heads that share the keys.
lists [rows of train, k]: exact top keys of each, best first, padded with -1, where they are known.
Made by `sample_training_queries`, or from arrays, which are copied.)")
      .def(
          "__init__",
          [](TrainingQueries* self, const Array& train, const std::optional<Array>& tuning,
             const Whole& group, const Whole& tuning_steps, const std::optional<Array>& lists) {
            new (self) TrainingQueries(make_training(train, tuning, group, tuning_steps, lists));
          },
          nb::arg("train"), nb::arg("tuning") = nb::none(), nb::kw_only(), nb::arg("group") = 1,
          nb::arg("tuning_steps") = 0, nb::arg("lists") = nb::none())
      .def_prop_ro(
          "lists", [](const TrainingQueries& self) { return numpy_ids(self.lists); },
          nb::rv_policy::automatic,
          "[rows of train, k] int64; no rows when there are none. A new array on each access.")
      .def_prop_ro("train",
                   [](nb::handle_t<TrainingQueries> self) {
                     return numpy_view(nb::cast<const TrainingQueries&>(self).train.view(), self);
                   })
      .def_prop_ro("tuning",
                   [](nb::handle_t<TrainingQueries> self) {
                     return numpy_view(nb::cast<const TrainingQueries&>(self).tuning.view(), self);
                   })
      .def_ro("group", &TrainingQueries::group)
      .def_ro("tuning_steps", &TrainingQueries::tuning_steps)
      .def("__repr__", [](const TrainingQueries& t) {
        return fmt::format("TrainingQueries(train: {} x {}, tuning: {} x {}, group={})",
                           t.train.rows(), t.train.cols(), t.tuning.rows(), t.tuning.cols(),
                           t.group);
      });
}

}  // namespace

RopeParams rope_params(double theta, const Whole& rotary_dim, const std::string& layout,
                       const std::optional<Array>& frequencies, const Whole& rotary_first) {
  return {.theta = theta,
          .rotary_dim = count_of(rotary_dim, "rotary_dim"),
          .layout = rope_layout_of(layout, "layout"),
          .frequencies =
              frequencies ? copy_doubles(*frequencies, "frequencies") : std::vector<double>{},
          .rotary_first = count_of(rotary_first, "rotary_first")};
}

namespace {

void bind_shift(nb::module_& m) {
  const RopeParams rope;
  m.def(
      "rope_shift",
      [](const Array& queries, const Array& shifts, double theta, const Whole& rotary_dim,
         const std::string& layout, const std::optional<Array>& frequencies,
         const Whole& rotary_first) {
        Matrix<float> out = copy_matrix(borrow_floats(queries, "queries").view);
        const std::vector<double> by = copy_doubles(shifts, "shifts");
        const RopeParams params = rope_params(theta, rotary_dim, layout, frequencies, rotary_first);
        {
          const GilReleased released;
          rope_shift(out, by, params);
        }
        return numpy_of(std::move(out));
      },
      nb::arg("queries"), nb::arg("shifts"), nb::kw_only(), nb::arg("theta") = rope.theta,
      nb::arg("rotary_dim") = rope.rotary_dim, nb::arg("layout") = "half-split",
      nb::arg("frequencies") = nb::none(), nb::arg("rotary_first") = rope.rotary_first,
      R"(Queries as they would be at other positions of a rotary embedding.

queries: [m, d] float32, which stay as they are. shifts: [m] float64, in positions, may be
negative. rotary_dim: so many elements are rotated (0: all), those from rotary_first on. layout:
"half-split" (Llama, Gemma) or "interleaved" (GPT-J). frequencies: [rotary_dim / 2] float64, radians per
position of each pair, for scaled embeddings; None: theta ** (-2j / rotary_dim).
Returns a new array [m, d].)");
}

void bind_sample(nb::module_& m) {
  const RopeParams rope;
  const TrainingSampleParams sample;
  m.def(
      "sample_training_queries",
      [](const Array& queries, const Array& positions, const Whole& group, const Whole& now,
         const Whole& horizon, double share, const Whole& seed, bool shift,
         const Whole& tuning_runs, const Whole& tuning_steps, double theta, const Whole& rotary_dim,
         const std::string& layout, const std::optional<Array>& frequencies,
         const Whole& rotary_first) {
        const auto rows = borrow_floats(queries, "queries");
        const auto at = copy_positions(positions, "positions");
        const RopeParams given = rope_params(theta, rotary_dim, layout, frequencies, rotary_first);
        const TrainingSampleParams params{.now = count_of(now, "now"),
                                          .horizon = count_of(horizon, "horizon"),
                                          .share = share,
                                          .seed = count_of(seed, "seed"),
                                          .shift = shift,
                                          .tuning_runs = count_of(tuning_runs, "tuning_runs"),
                                          .tuning_steps = count_of(tuning_steps, "tuning_steps")};
        const std::size_t heads = count_of(group, "group");
        const GilReleased released;
        return sample_training_queries(rows.view, at, heads, given, params);
      },
      nb::arg("queries"), nb::arg("positions"), nb::arg("group") = 1, nb::kw_only(), nb::arg("now"),
      nb::arg("horizon") = sample.horizon, nb::arg("share") = sample.share,
      nb::arg("seed") = sample.seed, nb::arg("shift") = sample.shift,
      nb::arg("tuning_runs") = sample.tuning_runs, nb::arg("tuning_steps") = sample.tuning_steps,
      nb::arg("theta") = rope.theta, nb::arg("rotary_dim") = rope.rotary_dim,
      nb::arg("layout") = "half-split", nb::arg("frequencies") = nb::none(),
      nb::arg("rotary_first") = rope.rotary_first,
      R"(Turns prefill queries into training queries for decoding.

queries: [positions * group, d] float32, the group's heads of one position in consecutive rows.
positions: [positions] int64, increasing. The newest `share` of them is taken and each moved to a
position drawn from [now, now + horizon), where decoding will ask; `tuning_runs` runs of
`tuning_steps` positions are held out for tuning. shift=False leaves queries where they are.
theta, rotary_dim, layout, frequencies, rotary_first: as in rope_shift. Deterministic in seed.)");
}

}  // namespace

void bind_rope(nb::module_& m) {
  bind_training_queries(m);
  bind_shift(m);
  bind_sample(m);
}

}  // namespace keyseek::python
