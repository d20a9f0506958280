/// keyseek build: an index from vectors or a benchmark.
#include <memory>
#include <string>

#include "base/fail.hpp"
#include "cli/command.hpp"
#include "cli/describe_index.hpp"
#include "cli/options.hpp"
#include "cli/problem.hpp"
#include "cli/problem_options.hpp"

namespace keyseek::cli {
namespace {

struct Options {
  ConsoleOptions console;
  ProblemOptions problem;
  std::string out;
  IndexKind kind = IndexKind::projection;
  std::vector<CLI::Option*> projection_options;
  bool use_lists = false;
  ProjectionParams params;
  int threads = 0;
};

void check(const Options& options) {
  require_projection(options.projection_options, options.kind, "--index");
  options.problem.check();
  require(!options.use_lists || options.problem.metric == Metric::ip,
          "--use-lists is given, but the data's lists are by inner product, and --metric is {}",
          to_string(options.problem.metric));
  (void)options.problem.data.view(1);
  require_output(options.out, options.problem.inputs());
}

Json to_json(const BuildReport& report) {
  return {{"training_queries", report.training_queries},
          {"tuning_queries", report.tuning_queries},
          {"unwanted", report.graph.unwanted},
          {"unreachable_before", report.graph.unreachable_before},
          {"unreachable", report.graph.unreachable},
          {"links", report.graph.links},
          {"lists_s", report.lists_s},
          {"graph_s", report.graph_s},
          {"router_s", report.router_s},
          {"tune_s", report.tune_s},
          {"total_s", report.total_s}};
}

Index build_index(const Options& options, const io::Benchmark& data, const Execution& run) {
  const Metric metric = options.problem.metric;
  if (options.kind == IndexKind::flat)
    return Index::build(options.kind, data.keys, {}, {}, run, metric);
  const TrainingQueries training =
      training_of(data, options.use_lists, options.problem.short_name());
  IndexParams params;
  if (options.kind == IndexKind::projection) params = options.params;
  return Index::build(options.kind, data.keys, training, params, run, metric);
}

void run_build(const Options& options) {
  check(options);
  const Execution run = execution(options.console, options.threads);
  // Only the training queries are wanted, so the truth may be the smallest.
  std::vector<std::string> none;
  const io::Benchmark data = options.problem.read(1, run, none);
  const Index index = build_index(options, data, run);
  index.save(options.out);
  Json described = describe(index);
  if (const auto built = index.build_report()) described["build"] = to_json(*built);
  described["out"] = options.out;
  print_report(described, options.console);
}

}  // namespace

Command add_build(CLI::App& tool) {
  auto options = std::make_shared<Options>();
  CLI::App* app = tool.add_subcommand("build", "Build an index and save it");
  options->problem.add(*app, /*questions=*/false);
  app->add_option("--out", options->out, "The index to write")->required()->type_name("FILE");
  add_index_kind(*app, "--index", options->kind);
  app->add_flag("--use-lists", options->use_lists,
                "Take exact lists from the data (learn_neighbors)");
  options->projection_options = add_options(*app, options->params);
  add_threads(*app, options->threads);
  add_options(*app, options->console);
  app->footer(
      "Example:\n"
      "  keyseek build --data datasets/sample/smollm2-8k-pydoc.attn.h5:L15/K0 --out head.ks");
  return {app, [options] { run_build(*options); }};
}

}  // namespace keyseek::cli
