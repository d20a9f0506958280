// The command sweep: recall, keys scanned and time over the dials.
#include <algorithm>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/fail.hpp"
#include "cli/command.hpp"
#include "cli/console.hpp"
#include "cli/interrupt.hpp"
#include "cli/options.hpp"
#include "cli/problem.hpp"
#include "cli/problem_options.hpp"
#include "sweep/grid.hpp"
#include "sweep/index_contender.hpp"
#include "sweep/sweep.hpp"

namespace keyseek::cli {
namespace {

struct SweepOptions {
  ConsoleOptions console;
  ProblemOptions problem;
  std::string out;
  std::vector<std::string> indexes = {"flat", "sketch", "projection"};
  bool indexes_given = false, tune_k_given = false;
  ProjectionParams params;
  std::size_t k = 100;
  std::size_t points = 0;   ///< of the grid; 0: all
  std::size_t repeats = 3;  ///< rounds
  std::size_t cold_steps = sweep::IndexContenderParams().cold_steps;
  std::optional<int> pin;  ///< CPU that searches
  bool cold = false, no_warm = false, single = false, use_lists = false;
  int threads = 1;

  void validate() const;  ///< throws Error
};

void SweepOptions::validate() const {
  problem.check();
  (void)problem.data.view(k);
  require(k >= 1, "--k is 0");
  require(repeats >= 1, "--repeats is 0");
  require(cold_steps >= 1, "--cold-steps is 0");
  for (const std::string& index : indexes) {
    (void)index_kind_of(index, "--index");
    require(std::count(indexes.begin(), indexes.end(), index) == 1, "--index names '{}' twice",
            index);
  }
  if (pin) sweep::require_cpu(*pin);
  params.validate();
  require_output(out, problem.inputs());
}

/// How a capture becomes the problem.
Json view_of(const SweepOptions& options) {
  const DataOptions& data = options.problem.data;
  if (!data.is_capture()) return Json::object();
  const io::DecodeViewParams view = data.view(options.k);
  return {{"share", view.share},   {"shift", view.shift},     {"sink", view.sink},
          {"window", view.window}, {"horizon", view.horizon}, {"seed", view.seed}};
}

sweep::IndexContenderParams index_params(const SweepOptions& options, const std::string& kind,
                                         const io::Benchmark& data) {
  sweep::IndexContenderParams index{.kind = index_kind_of(kind, "--index"),
                                    .cold_steps = options.cold_steps};
  // The bar counts points; between steps only Ctrl-C is looked for.
  index.between_steps = [](auto...) { return !interrupted(); };
  index.training = [&] {
    return training_of(data, options.use_lists, options.problem.short_name());
  };
  if (index.kind == IndexKind::projection) {
    index.grid = sweep::grid(options.points);
    index.projection = options.params;
    if (!options.tune_k_given) index.projection.tuning_k = options.k;
    index.build_params = to_json(index.projection);
    index.build_params["use_lists"] = options.use_lists;
    const std::string& train = options.problem.train;
    index.build_params["train"] = train.empty() ? Json() : Json(train);
  }
  return index;
}

void report(const SweepOptions& options, const std::vector<Json>& rows, std::size_t skipped) {
  Json table = Json::array();
  for (const Json& row : rows) {
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
  print_report({{"dataset", options.problem.short_name()},
                {"measured", rows.size()},
                {"skipped", skipped},
                {"out", options.out},
                {"rows", table}},
               options.console);
}

/// Those that were named, or all that can be built of the data.
std::vector<std::string> indexes_for(const SweepOptions& options, const io::Benchmark& data,
                                     std::vector<std::string>& notes) {
  if (!data.learn.empty()) return options.indexes;
  if (options.indexes_given) {
    if (options.indexes != std::vector<std::string>{"flat"})
      (void)training_of(data, options.use_lists, options.problem.short_name());
    return options.indexes;
  }
  notes.emplace_back(
      "no training queries: only the flat index is measured; the others learn from queries like "
      "those to come (--train)");
  return {"flat"};
}

void run_sweep(const SweepOptions& options) {
  options.validate();
  const Execution run = execution(options.console, options.threads);
  std::vector<std::string> notes;
  const io::Benchmark data = options.problem.read(options.k, run, notes);
  const std::vector<std::string> indexes = indexes_for(options, data, notes);
  for (const std::string& text : notes) note(options.console, text);
  sweep::Sweep sweep({.name = options.problem.short_name(),
                      .data = data,
                      .truth = truth_of(data, options.k, run),
                      .k = options.k,
                      .group = options.single ? 1 : data.group,
                      .warm = !options.no_warm && !options.single,
                      .view = view_of(options)},
                     {.style = sweep::sweep_rows(),
                      .rounds = options.repeats,
                      .cold = options.cold,
                      .pin = options.pin},
                     options.out);
  for (const std::string& kind : indexes) {
    sweep.add(sweep::index_contender(sweep.problem(), index_params(options, kind, data)), run);
  }
  const std::vector<Json> rows = sweep.measure(run.progress);
  report(options, rows, sweep.skipped());
}

}  // namespace

Command add_sweep(CLI::App& tool) {
  auto options = std::make_shared<SweepOptions>();
  CLI::App* app = tool.add_subcommand(
      "sweep", "Measure recall, keys scanned and time over the dials; append a JSON row for each");
  options->problem.add(*app, /*questions=*/true);
  app->add_option("--out", options->out, "Rows are appended; those that are there are not repeated")
      ->required()
      ->type_name("FILE");
  app->add_option("--index", options->indexes, "Indexes: flat, sketch, projection")
      ->delimiter(',')
      ->type_name("NAME,..")
      ->capture_default_str();
  add_count(*app, "--k", options->k, "Keys per query");
  add_count(*app, "--points", options->points, "Points of the grid of dials; 0: all");
  add_count(*app, "--repeats", options->repeats, "Rounds; a time is the median over them");
  app->add_flag("--no-warm", options->no_warm, "Do not start from the hits of the step before");
  app->add_flag("--single", options->single,
                "Every query is a step of its own, without warm start");
  app->add_flag("--cold", options->cold, "Measure every point also with caches cold between steps");
  add_count(*app, "--cold-steps", options->cold_steps, "Steps that are timed for a cold row");
  app->add_option("--pin", options->pin, "CPU to search on")
      ->transform(whole_number())
      ->type_name("CPU");
  app->add_flag("--use-lists", options->use_lists,
                "Take exact lists from the data (learn_neighbors)");
  add_options(*app, options->params);
  add_count(*app, "--threads", options->threads,
            "Threads to build with (0: all); searching is one thread");
  add_options(*app, options->console);
  app->footer(
      "Example:\n"
      "  keyseek sweep --data datasets/sample/smollm2-8k-pydoc.attn.h5:L15/K0 "
      "--index flat,projection --k 100 --threads 1 --points 8 --out R.jsonl\n"
      "  keyseek sweep --keys keys.fbin --queries queries.fbin --k 10 --out own.jsonl");
  return {app, [options, app] {
            options->indexes_given = app->count("--index") > 0;
            options->tune_k_given = app->count("--tune-k") > 0;
            run_sweep(*options);
          }};
}

}  // namespace keyseek::cli
