#include <algorithm>
#include <memory>
#include <optional>
#include <string>

#include "base/fail.hpp"
#include "cli/any_index.hpp"
#include "cli/command.hpp"
#include "cli/options.hpp"
#include "cli/problem.hpp"
#include "keyseek/score.hpp"

namespace keyseek::cli {
namespace {

struct Options {
  ConsoleOptions console;
  DataOptions data;
  std::string index, queries, truth, out;
  bool map = false, no_warm = false;
  MeasureParams measure;
  std::size_t group = 0;
  Dials dials;
  std::vector<CLI::Option*> given_dials;
  std::optional<float> beta;
};

/// What is asked, and the right answers where they are known.
struct Questions {
  Matrix<float> queries;
  Matrix<Id> truth;
  std::size_t group = 1;
};

void check(const Options& options) {
  require(options.data.data.empty() != options.queries.empty(),
          "give either --queries or --data, {} are given",
          options.queries.empty() ? "none of them" : "both");
  (void)options.data.view(1);
  if (options.out.empty()) return;
  require_ids_output(options.out, {{"--index", options.index},
                                   {"--data", options.data.data},
                                   {"--queries", options.queries},
                                   {"--truth", options.truth}});
}

Questions read_questions(const Options& options, const AnyIndex& index, const Execution& run) {
  const std::size_t k = options.measure.search.k, keys = size_of(index);
  Questions questions;
  if (options.queries.empty()) {
    io::Benchmark data = options.data.read(k, run);
    require(data.keys.rows() == keys, "{} has {} keys, but {} has {}: its truth is of other keys",
            options.data.data, data.keys.rows(), options.index, keys);
    questions.truth = truth_of(data, k, run);
    questions.queries = std::move(data.queries);
    questions.group = data.group;
  } else {
    questions.queries = read_queries(options.queries);
  }
  if (options.group > 0) questions.group = options.group;
  if (!options.truth.empty()) {
    questions.truth = first_columns(io::read_ids(options.truth), k, options.truth);
    require(questions.truth.rows() == questions.queries.rows(),
            "{} has {} rows, but there are {} queries", options.truth, questions.truth.rows(),
            questions.queries.rows());
    require_ids(questions.truth, keys, options.truth);
  }
  return questions;
}

MeasureParams measure_params(const Options& options, std::size_t group, const Execution& run) {
  MeasureParams params = options.measure;
  params.progress = run.progress;
  params.group = group;
  params.warm_start = !options.no_warm;
  params.search.beta = options.beta;
  const bool dials = std::any_of(options.given_dials.begin(), options.given_dials.end(),
                                 [](const CLI::Option* option) { return option->count() > 0; });
  if (dials) params.search.dials = options.dials;
  return params;
}

void run_search(const Options& options) {
  check(options);
  const Execution run = execution(options.console, 0);
  const AnyIndex index = open_index(options.index, options.map);
  const std::size_t k = options.measure.search.k;
  require(k >= 1 && k <= size_of(index), "k is {}, must be in [1, {}] (keys)", k, size_of(index));
  const Questions questions = read_questions(options, index, run);
  const Measurement m =
      measure(index, questions.queries, measure_params(options, questions.group, run));
  if (!options.out.empty()) io::write_ids(options.out, m.ids);
  Json report = {{"index", kind_of(index)},
                 {"queries", questions.queries.rows()},
                 {"group", questions.group},
                 {"k", k}};
  if (!questions.truth.empty())
    report["recall_at_k"] = recall(questions.truth, m.ids, size_of(index));
  report.update({{"scanned_fraction", m.scanned_fraction},
                 {"bytes_read", m.bytes_read},
                 {"us_per_step_p50", m.us_p50},
                 {"us_per_step_p95", m.us_p95},
                 {"us_per_query", m.us_mean / static_cast<double>(questions.group)},
                 {"isa", to_string(active_isa())}});
  if (!options.out.empty()) report["out"] = options.out;
  print_report(report, options.console);
}

void add_search_options(CLI::App& app, Options& options) {
  SearchParams& search = options.measure.search;
  add_count(app, "--k", search.k, "Keys per query");
  add_count(app, "--group", options.group,
            "Consecutive queries that form a step; 0: as the data say");
  app.add_option("--target-recall", search.target_recall, "Recall to choose the tuned dials by")
      ->type_name("R")
      ->capture_default_str();
  app.add_option("--beta", options.beta, "Of the k best, return keys with q.k >= max - beta (DIPR)")
      ->type_name("R");
  app.add_option("--max-scanned", search.max_scanned, "Upper bound on keys scanned in a step")
      ->transform(whole_number())
      ->type_name("N");
  app.add_flag("--scan-novel", search.scan_novel,
               "Scan all keys for a query that is unlike the training queries");
  const auto dial = [&](const char* name, std::uint32_t& value, const char* description) {
    options.given_dials.push_back(
        add_count(app, name, value, description)->group("Dials, instead of the tuned ones"));
  };
  dial("--probes", options.dials.probes, "Router clusters looked into, per query");
  dial("--lists", options.dials.lists, "Nearest training queries whose keys are scanned");
  dial("--expand", options.dials.expand, "Ranks of a query's pool whose links are followed");
  dial("--pool", options.dials.pool, "Keys per query that are reranked; 0: by k, dim and --expand");
  app.add_flag("--no-warm", options.no_warm, "Do not start from the hits of the step before");
  add_count(app, "--repeats", options.measure.repeats,
            "Passes over the queries; a step's time is its fastest");
}

}  // namespace

Command add_search(CLI::App& tool) {
  auto options = std::make_shared<Options>();
  CLI::App* app = tool.add_subcommand("search", "Search an index, one thread, and report the cost");
  app->add_option("--index", options->index, "An index file")->required()->type_name("FILE");
  app->add_option("--queries", options->queries, "Queries: vectors")->type_name("FILE");
  options->data.add(*app)->description("Data whose test queries are asked, instead of --queries");
  app->add_option("--truth", options->truth, "Right ids, to report the recall: .ibin or .npy")
      ->type_name("FILE");
  app->add_option("--out", options->out, "Ids to write: .ibin or .npy")->type_name("FILE");
  app->add_flag("--map", options->map, "Map the index file instead of reading it");
  add_search_options(*app, *options);
  add_options(*app, options->console);
  app->footer(
      "Example:\n"
      "  keyseek search --index head.ks --data datasets/sample/smollm2-8k-pydoc.attn.h5:L15/K0 "
      "--target-recall 0.99 --out ids.ibin");
  return {app, [options] { run_search(*options); }};
}

}  // namespace keyseek::cli
