#include "cli/sweep_run.hpp"

#include <sched.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <deque>

#include "base/fail.hpp"
#include "cli/describe_index.hpp"
#include "cli/interrupt.hpp"
#include "cli/problem.hpp"
#include "cli/result_file.hpp"
#include "cli/sweep_points.hpp"
#include "keyseek/measure.hpp"
#include "keyseek/score.hpp"
#include "keyseek/version.hpp"

namespace keyseek::cli {
namespace {

struct BuiltIndex {
  Index index;
  double build_s = 0;
  Json params;  ///< of the build; null for an index without any
};

/// A row in the making.
struct Trial {
  const BuiltIndex* built = nullptr;
  Json identity;
  SweepPoint point;
  MeasureParams params;
  Measurement first;                   ///< ids and counts, the same in every round
  std::vector<double> p50, p95, mean;  ///< microseconds per step, a value per round
};

double median(std::vector<double> values) {
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

/// Not before the builds: threads that are started later inherit it.
void pin_this_thread(int cpu) {
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(static_cast<std::size_t>(cpu), &set);
  if (::sched_setaffinity(0, sizeof(set), &set) != 0) {
    fail(ErrorCode::invalid_argument, "--pin is {}: {}", cpu, std::strerror(errno));
  }
}

bool may_use(int cpu) {
  cpu_set_t mine;
  return cpu < CPU_SETSIZE && ::sched_getaffinity(0, sizeof(mine), &mine) == 0 &&
         CPU_ISSET(static_cast<std::size_t>(cpu), &mine);
}

class Sweep {
 public:
  explicit Sweep(const SweepOptions& options)
      : options_(options),
        run_(execution(options.console, options.threads)),
        data_(options.data.read(options.k, run_)),
        truth_(truth_of(data_, options.k, run_)),
        results_(options.out),
        group_(options.single ? 1 : data_.group),
        warm_(!options.no_warm && !options.single) {}

  void run() {
    for (const std::string& kind : options_.indexes) plan(kind);
    if (options_.pin) pin_this_thread(*options_.pin);
    measure_all();
    report();
  }

 private:
  // --- planning ------------------------------------------------------------------------

  /// Adds the trials of one kind of index that the results lack, and builds it for them.
  void plan(const std::string& kind) {
    const bool projection = kind == "projection";
    std::vector<SweepPoint> points =
        projection ? grid(options_.points) : std::vector<SweepPoint>(1);
    // Tuned points outside the grid are known only once the index is built. They come first
    // in every round, so where the whole grid has its rows, they have theirs.
    if (all_done(kind, points)) return;
    const BuiltIndex& built = built_.emplace_back(build(kind));
    if (projection) points = with_tuned(std::move(points), built.index.operating_points());
    for (const SweepPoint& point : points) {
      for (const bool cold : caches()) {
        Json identity = identify(kind, point, cold);
        if (results_.has(identity)) {
          ++skipped_;
          continue;
        }
        trials_.push_back({.built = &built,
                           .identity = std::move(identity),
                           .point = point,
                           .params = measure_params(point, cold),
                           .first = {},
                           .p50 = {},
                           .p95 = {},
                           .mean = {}});
      }
    }
  }

  bool all_done(const std::string& kind, const std::vector<SweepPoint>& points) {
    std::size_t done = 0;
    for (const SweepPoint& point : points) {
      for (const bool cold : caches()) done += results_.has(identify(kind, point, cold)) ? 1 : 0;
    }
    const bool all = done == points.size() * caches().size();
    if (all) skipped_ += done;
    return all;
  }

  /// Cold or not.
  [[nodiscard]] std::vector<bool> caches() const {
    return options_.cold ? std::vector<bool>{false, true} : std::vector<bool>{false};
  }

  /// The fields that tell one row from another.
  [[nodiscard]] Json identify(const std::string& kind, const SweepPoint& point, bool cold) const {
    Json identity = {{"dataset", options_.data.short_name()},
                     {"index", kind},
                     {"params", point.dials ? to_json(*point.dials) : Json::object()},
                     {"k", options_.k},
                     {"group", group_},
                     {"isa", to_string(active_isa())},
                     {"threads", 1},
                     {"cache", cold ? "cold" : "hot"},
                     {"version", kVersion},
                     {"warm", warm_},
                     {"keys", data_.keys.rows()},
                     {"dim", data_.keys.cols()},
                     {"queries", data_.queries.rows()},
                     {"build", kind == "projection" ? build_params() : Json()}};
    if (options_.data.is_capture()) {
      const io::DecodeViewParams view = options_.data.view(options_.k);
      identity.update({{"share", view.share},
                       {"shift", view.shift},
                       {"sink", view.sink},
                       {"window", view.window},
                       {"horizon", view.horizon},
                       {"seed", view.seed}});
    }
    return identity;
  }

  [[nodiscard]] Json build_params() const {
    Json params = to_json(options_.params);
    params["use_lists"] = options_.use_lists;
    params["train"] = options_.train.empty() ? Json() : Json(options_.train);
    return params;
  }

  [[nodiscard]] MeasureParams measure_params(const SweepPoint& point, bool cold) const {
    MeasureParams params;
    params.group = group_;
    params.warm_start = warm_;
    params.cold_cache = cold;
    params.timed_steps = cold ? options_.cold_steps : 0;
    params.search.k = options_.k;
    if (point.dials) params.search.projection = {.dials = point.dials};
    // The bar counts points; between steps only Ctrl-C is looked for.
    params.progress = [](auto...) { return !interrupted(); };
    return params;
  }

  // --- building ------------------------------------------------------------------------

  template <class Build>
  [[nodiscard]] BuiltIndex timed(Json params, Build build) const {
    const auto begin = std::chrono::steady_clock::now();
    Index index = build();
    const std::chrono::duration<double> spent = std::chrono::steady_clock::now() - begin;
    return {std::move(index), spent.count(), std::move(params)};
  }

  BuiltIndex build(const std::string& name) {
    const IndexKind kind = index_kind_of(name, "--index");
    if (kind == IndexKind::flat)
      return timed(Json(), [&] { return Index::build(kind, data_.keys, {}, {}, run_); });
    if (!options_.train.empty()) replace_training(data_, options_.train);
    TrainingQueries training = training_of(data_, options_.use_lists, options_.data.data);
    if (kind == IndexKind::sketch)
      return timed(Json(), [&] { return Index::build(kind, data_.keys, training, {}, run_); });
    // Tuned as it will be searched.
    training.group = group_;
    if (!warm_) training.tuning_steps = 1;
    return timed(build_params(),
                 [&] { return Index::build(kind, data_.keys, training, options_.params, run_); });
  }

  // --- measuring -----------------------------------------------------------------------

  /// Every trial once per round, so that whatever slows the machine down slows all of them.
  void measure_all() {
    const std::size_t total = trials_.size() * options_.repeats;
    std::size_t done = 0;
    for (std::size_t round = 0; round < options_.repeats; ++round) {
      for (Trial& trial : trials_) {
        Measurement m = measure_steps(trial.built->index, data_.queries, trial.params);
        trial.p50.push_back(m.us_p50);
        trial.p95.push_back(m.us_p95);
        trial.mean.push_back(m.us_mean);
        if (round == 0) trial.first = std::move(m);
        if (round + 1 == options_.repeats) finish(trial);
        (void)run_.progress("measuring", ++done, total);
      }
    }
  }

  void finish(const Trial& trial) {
    const Json& id = trial.identity;
    const Index& index = trial.built->index;
    Json row;
    for (const char* field : {"dataset", "index", "params", "k", "group"}) row[field] = id[field];
    row.update({{"recall_at_k", recall(truth_, trial.first.ids, data_.keys.rows())},
                {"scanned_fraction", trial.first.scanned_fraction},
                {"bytes_read", trial.first.bytes_read},
                {"us_per_step_p50", median(trial.p50)},
                {"us_per_step_p95", median(trial.p95)},
                {"us_per_query", median(trial.mean) / static_cast<double>(group_)},
                {"build_s", trial.built->build_s},
                {"index_bytes", index.bytes()},
                {"unreachable", fact(index, "unreachable")}});
    row.update(id);
    row["expanded"] = trial.first.expanded;
    row["tuned_for"] = trial.point.tuned_for;
    row["build_threads"] = run_.thread_count();
    results_.append(row);
    rows_.push_back(std::move(row));
  }

  // --- reporting -----------------------------------------------------------------------

  void report() const {
    Json table = Json::array();
    for (const Json& row : rows_) {
      const Json& params = row["params"];
      table.push_back({{"index", row["index"]},
                       {"probes", params.value("probes", Json())},
                       {"lists", params.value("lists", Json())},
                       {"expand", params.value("expand", Json())},
                       {"cache", row["cache"]},
                       {"recall", row["recall_at_k"]},
                       {"scanned", row["scanned_fraction"]},
                       {"us_per_step", row["us_per_step_p50"]},
                       {"us_per_query", row["us_per_query"]}});
    }
    print_report({{"dataset", options_.data.short_name()},
                  {"measured", rows_.size()},
                  {"skipped", skipped_},
                  {"out", options_.out},
                  {"rows", table}},
                 options_.console);
  }

  const SweepOptions& options_;
  Execution run_;
  io::Benchmark data_;
  Matrix<Id> truth_;
  ResultFile results_;
  std::size_t group_;
  bool warm_;
  std::deque<BuiltIndex> built_;  // a deque: trials look at its elements
  std::vector<Trial> trials_;
  std::vector<Json> rows_;
  std::size_t skipped_ = 0;
};

}  // namespace

void SweepOptions::validate() const {
  (void)data.view(k);
  require(k >= 1, "--k is 0");
  require(repeats >= 1, "--repeats is 0");
  require(cold_steps >= 1, "--cold-steps is 0");
  for (const std::string& index : indexes) {
    (void)index_kind_of(index, "--index");
    require(std::count(indexes.begin(), indexes.end(), index) == 1, "--index names '{}' twice",
            index);
  }
  require(!pin || may_use(*pin), "--pin is {}, a CPU that this process may not use",
          pin.value_or(0));
  params.validate();
  require_output(out, {{"--data", data.data}, {"--train", train}});
}

void run_sweep(const SweepOptions& options) {
  options.validate();
  Sweep(options).run();
}

}  // namespace keyseek::cli
