/// keyseek search: the queries of a file against an index.
#include <algorithm>
#include <chrono>
#include <limits>
#include <memory>
#include <optional>
#include <string>

#include "base/fail.hpp"
#include "cli/command.hpp"
#include "cli/options.hpp"
#include "cli/problem.hpp"
#include "keyseek/measure.hpp"
#include "keyseek/score.hpp"

namespace keyseek::cli {
namespace {

struct Options {
  ConsoleOptions console;
  DataOptions data;
  std::string index, queries, truth, allowed, out;
  bool map = false, no_warm = false, recall = false;
  MeasureParams measure;
  std::size_t group = 0;
  int threads = 1;
  Dials dials;
  ProjectionSearchParams projection;
  std::vector<CLI::Option*> dial_options, projection_options;
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
  require(options.allowed.empty() || (options.data.data.empty() && !options.recall),
          "--allowed is {}, but the truth of {} is of all keys: give --truth", options.allowed,
          options.recall ? "--recall" : "--data");
  if (options.out.empty()) return;
  require_ids_output(options.out, {{"--index", options.index},
                                   {"--data", options.data.data},
                                   {"--queries", options.queries},
                                   {"--truth", options.truth},
                                   {"--allowed", options.allowed}});
}

Questions read_questions(const Options& options, const Index& index, const Execution& run) {
  const std::size_t k = options.measure.search.k, keys = index.size();
  Questions questions;
  if (options.queries.empty()) {
    require(index.metric() == Metric::ip,
            "{} is by {}, but the truth of --data is by inner product: give --queries",
            options.index, to_string(index.metric()));
    io::Benchmark data = options.data.read(k, run);
    require(data.keys.rows() == keys, "{} has {} keys, but {} has {}: its truth is of other keys",
            options.data.data, data.keys.rows(), options.index, keys);
    questions.truth = truth_of(data, k, run);
    questions.queries = std::move(data.queries);
    questions.group = data.group;
  } else {
    questions.queries = read_queries(options.queries, options.data.access());
    require(questions.queries.cols() == index.dim(), "{} has dimension {}, but {} has {}",
            options.queries, questions.queries.cols(), options.index, index.dim());
  }
  if (options.group > 0) questions.group = options.group;
  if (!options.truth.empty()) {
    questions.truth =
        first_columns(io::read_ids(options.truth, options.data.access()), k, options.truth);
    require(questions.truth.rows() == questions.queries.rows(),
            "{} has {} rows, but there are {} queries", options.truth, questions.truth.rows(),
            questions.queries.rows());
    require_ids(questions.truth, keys, options.truth);
  }
  if (questions.truth.empty() && options.recall) {
    note(options.console, fmt::format("no --truth: the {} best of {} keys are computed for {} "
                                      "queries",
                                      k, keys, questions.queries.rows()));
    questions.truth = exact_knn(index.keys().view(),
                                index.metric_space().queries(questions.queries), {.k = k}, run)
                          .ids;
  }
  return questions;
}

bool any_given(const std::vector<CLI::Option*>& options) {
  return std::any_of(options.begin(), options.end(),
                     [](const CLI::Option* option) { return option->count() > 0; });
}

/// Options of a projection index only where they are given: other kinds refuse them.
SearchParams search_params(const Options& options) {
  SearchParams params = options.measure.search;  // also which keys are allowed
  params.beta = options.beta;
  const bool dials = any_given(options.dial_options);
  if (dials || any_given(options.projection_options)) params.projection = options.projection;
  if (dials) params.projection->dials = options.dials;
  return params;
}

/// The keys whose ids a file holds.
AllowedKeys read_allowed(const Options& options, std::size_t keys) {
  const Matrix<Id> ids = io::read_ids(options.allowed, options.data.access());
  require_ids(ids, keys, options.allowed);
  AllowedKeys allowed(keys);
  for (const Id id : std::span(ids.data(), ids.rows() * ids.cols()))
    if (id != kNoId) allowed.allow(id);
  return allowed;
}

/// Step after step in this thread, each timed.
Json search_steps(const Index& index, const Questions& questions, const Options& options,
                  const Execution& run, Matrix<Id>& ids) {
  MeasureParams params = options.measure;
  params.progress = run.progress;
  params.group = questions.group;
  params.warm_start = !options.no_warm;
  params.search = search_params(options);
  Measurement m = measure_steps(index, questions.queries, params);
  ids = std::move(m.ids);
  return {{"scanned_fraction", m.scanned_fraction},
          {"bytes_read", m.bytes_read},
          {"us_per_step_p50", m.us_p50},
          {"us_per_step_p95", m.us_p95},
          {"us_per_query", m.us_mean / static_cast<double>(questions.group)}};
}

/// All at once, shared by threads; the fastest pass counts.
Json search_batch(const Index& index, const Questions& questions, const Options& options,
                  const Execution& run, Matrix<Id>& ids) {
  using Clock = std::chrono::steady_clock;
  const std::size_t steps = questions.queries.rows() / questions.group;
  const SearchParams params = search_params(options);
  double fastest = std::numeric_limits<double>::infinity();
  BatchHits found;
  require(options.measure.repeats >= 1, "repeats is 0");
  for (std::size_t pass = 0; pass < options.measure.repeats; ++pass) {
    const auto begin = Clock::now();
    found = index.search_batch(questions.queries, questions.group, params, run);
    fastest = std::min(fastest, std::chrono::duration<double>(Clock::now() - begin).count());
  }
  ids = std::move(found.ids);
  const auto per_step = [&](std::size_t sum) {
    return static_cast<double>(sum) / static_cast<double>(steps);
  };
  return {
      {"scanned_fraction", per_step(found.stats.looked_at()) / static_cast<double>(index.size())},
      {"bytes_read", per_step(found.stats.bytes_read)},
      {"threads", run.thread_count()},
      {"queries_per_s", static_cast<double>(questions.queries.rows()) / fastest}};
}

void run_search(Options options) {
  check(options);
  const Execution run = execution(options.console, options.threads);
  const Index index =
      Index::open(options.index, options.map ? FileMemory::mapped : FileMemory::own);
  require_projection(options.projection_options, index.kind(), options.index);
  require_projection(options.dial_options, index.kind(), options.index);
  const std::size_t k = options.measure.search.k;
  require(k >= 1 && k <= index.size(), "k is {}, must be in [1, {}] (keys)", k, index.size());
  const Questions questions = read_questions(options, index, run);
  AllowedKeys allowed;
  if (!options.allowed.empty()) {
    allowed = read_allowed(options, index.size());
    options.measure.search.allowed = &allowed;
  }
  Matrix<Id> ids;
  const auto search = options.threads == 1 ? search_steps : search_batch;
  const Json cost = search(index, questions, options, run, ids);
  if (!options.out.empty()) io::write_ids(options.out, ids);
  Json report = {{"index", to_string(index.kind())},
                 {"queries", questions.queries.rows()},
                 {"group", questions.group},
                 {"k", k}};
  if (!questions.truth.empty()) report["recall_at_k"] = recall(questions.truth, ids, index.size());
  report.update(cost);
  report["isa"] = to_string(active_isa());
  if (!options.out.empty()) report["out"] = options.out;
  print_report(report, options.console);
}

void add_search_options(CLI::App& app, Options& options) {
  SearchParams& search = options.measure.search;
  add_count(app, "--k", search.k, "Keys per query");
  add_count(app, "--group", options.group,
            "Consecutive queries that form a step; 0: as the data say");
  app.add_option("--beta", options.beta, "Of the k best, return keys with q.k >= max - beta (DIPR)")
      ->type_name("R");
  options.projection_options = {
      add_target_recall(app, options.projection.target_recall),
      app.add_option("--max-scanned", options.projection.max_scanned,
                     "Upper bound on keys scanned in a step")
          ->transform(whole_number())
          ->type_name("N"),
      app.add_flag("--scan-novel", options.projection.scan_novel,
                   "Scan all keys for a query that is unlike the training queries")};
  for (CLI::Option* option : options.projection_options) option->group("Of a projection index");
  const auto dial = [&](const char* name, std::uint32_t& value, const char* description) {
    options.dial_options.push_back(
        add_count(app, name, value, description)
            ->group("Dials of a projection index, instead of the tuned ones"));
  };
  dial("--probes", options.dials.probes, "Router clusters looked into, per query");
  dial("--lists", options.dials.lists, "Nearest training queries whose keys are scanned");
  dial("--expand", options.dials.expand, "Ranks of a query's pool whose links are followed");
  dial("--pool", options.dials.pool, "Keys per query that are reranked; 0: by k, dim and --expand");
  app.add_flag("--no-warm", options.no_warm, "Do not start from the hits of the step before");
  add_threads(app, options.threads)
      ->description(
          "1: step after step, each warm from the one before and timed; more (0: all): "
          "the steps are shared by threads, none of them warm");
  add_count(app, "--repeats", options.measure.repeats,
            "Passes over the queries; the fastest counts");
}

}  // namespace

Command add_search(CLI::App& tool) {
  auto options = std::make_shared<Options>();
  CLI::App* app = tool.add_subcommand("search", "Search an index, and report the cost");
  app->add_option("--index", options->index, "An index file")->required()->type_name("FILE");
  app->add_option("--queries", options->queries, "Queries: vectors")->type_name("FILE");
  options->data.add(*app)->description("Data whose test queries are asked, instead of --queries");
  app->add_option("--truth", options->truth, "Right ids, to report the recall")->type_name("FILE");
  app->add_flag("--recall", options->recall,
                "Report the recall also where no truth is given: compute it");
  app->add_option("--allowed", options->allowed, "Ids of the only keys that may be found")
      ->type_name("FILE");
  app->add_option("--out", options->out, "Ids to write: .ibin, .ivecs or .npy")->type_name("FILE");
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
