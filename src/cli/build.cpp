#include <memory>
#include <string>
#include <variant>

#include "base/fail.hpp"
#include "cli/any_index.hpp"
#include "cli/command.hpp"
#include "cli/options.hpp"
#include "cli/problem.hpp"

namespace keyseek::cli {
namespace {

struct Options {
  ConsoleOptions console;
  DataOptions data;
  std::string keys, train, out;
  std::string_view kind = kProjection;
  bool use_lists = false;
  std::size_t group = 1;
  ProjectionParams params;
  int threads = 0;
};

void check(const Options& options) {
  require(options.data.data.empty() != options.keys.empty(),
          "give either --data or --keys, {} are given",
          options.keys.empty() ? "none of them" : "both");
  require(options.group == 1 || !options.keys.empty(),
          "--group is {}, but --data says itself which queries form a step", options.group);
  require(options.group >= 1 && options.group <= 64, "--group is {}, must be in [1, 64]",
          options.group);
  (void)options.data.view(1);
  require_output(
      options.out,
      {{"--data", options.data.data}, {"--keys", options.keys}, {"--train", options.train}});
}

io::Benchmark read_input(const Options& options, const Execution& run) {
  if (options.keys.empty()) {
    // Only the training queries are wanted, so the truth may be the smallest.
    io::Benchmark data = options.data.read(1, run);
    if (!options.train.empty()) replace_training(data, options.train);
    return data;
  }
  io::Benchmark data;
  data.keys = io::read_vectors(options.keys);
  data.group = options.group;
  if (!options.train.empty()) replace_training(data, options.train);
  return data;
}

Json to_json(const BuildReport& report) {
  return {{"training_queries", report.training_queries},
          {"tuning_queries", report.tuning_queries},
          {"unwanted", report.graph.unwanted},
          {"unreachable_before", report.graph.unreachable_before},
          {"unreachable", report.graph.unreachable},
          {"links", report.graph.links},
          {"repair_links", report.graph.repair_links},
          {"lists_s", report.lists_s},
          {"graph_s", report.graph_s},
          {"router_s", report.router_s},
          {"tune_s", report.tune_s},
          {"total_s", report.total_s}};
}

void save(const AnyIndex& index, const std::string& path) {
  std::visit([&](const auto& i) { i.save(path); }, index);
}

void run_build(const Options& options) {
  check(options);
  const Execution run = execution(options.console, options.threads);
  io::Benchmark data = read_input(options, run);
  Json report;
  AnyIndex index;
  if (options.kind == kFlat) {
    index = FlatIndex::build(data.keys.view(), run);
  } else {
    const std::string name = options.keys.empty() ? options.data.data : options.keys;
    const io::TrainingSet training = training_of(data, options.use_lists, name);
    if (options.kind == kSketch) {
      index = SketchIndex::build(data.keys.view(), training.queries.train, {}, run);
    } else {
      BuildReport built;
      index = build_projection(data.keys.view(), training, options.params, run, &built);
      report = to_json(built);
    }
  }
  save(index, options.out);
  Json described = describe(index);
  if (!report.is_null()) described["build"] = report;
  described["out"] = options.out;
  print_report(described, options.console);
}

}  // namespace

Command add_build(CLI::App& tool) {
  auto options = std::make_shared<Options>();
  CLI::App* app = tool.add_subcommand("build", "Build an index and save it");
  options->data.add(*app);
  app->add_option("--keys", options->keys, "Vectors, instead of --data")->type_name("FILE");
  app->add_option("--train", options->train, "Training queries: vectors")->type_name("FILE");
  add_count(*app, "--group", options->group, "Queries of a step in --train, with --keys");
  app->add_option("--out", options->out, "The index to write")->required()->type_name("FILE");
  add_choice<std::string_view>(*app, "--index", options->kind,
                               {{"projection", kProjection}, {"sketch", kSketch}, {"flat", kFlat}},
                               "Kind of index");
  app->add_flag("--use-lists", options->use_lists,
                "Take exact lists from the data (learn_neighbors)");
  add_options(*app, options->params);
  add_threads(*app, options->threads);
  add_options(*app, options->console);
  app->footer(
      "Example:\n"
      "  keyseek build --data datasets/sample/smollm2-8k-pydoc.attn.h5:L15/K0 --out head.ks");
  return {app, [options] { run_build(*options); }};
}

}  // namespace keyseek::cli
