/// Decodes captured heads with a cache and reports time, error and what was read.
#include <algorithm>
#include <chrono>
#include <cmath>
#include <memory>
#include <string>
#include <vector>

#include "base/fail.hpp"
#include "cli/command.hpp"
#include "cli/options.hpp"
#include "keyseek/measure.hpp"

namespace keyseek::cli {
namespace {

// Newest share of the prompt whose queries are given to the plan.
constexpr double kPromptShare = 0.3;

struct Options {
  ConsoleOptions console;
  std::string capture;
  std::vector<std::size_t> layers;
  std::vector<double> max_errors = {0.1, 0.05, 0.02};
  std::size_t steps = 512;
  int threads = 1;
  bool planned = true;
  bool cold = false;
  bool trusted = false;
  GivenPlan given;
  DecodeParams params;
};

double hundredths(double x) { return std::round(100 * x) / 100; }

/// A head decodes the tokens after its prompt.
Json decode(const io::CapturedHead& head, const DecodeParams& params, const Options& options,
            const Execution& run) {
  const std::size_t prefill = head.prefill, group = head.queries.size();
  const std::size_t last = std::min(head.keys.rows(), prefill + options.steps);
  const auto newest = static_cast<std::size_t>(kPromptShare * static_cast<double>(prefill));
  const auto begin = std::chrono::steady_clock::now();
  HeadCache cache =
      HeadCache::prefill(head.keys.view().slice(0, prefill), head.values.view().slice(0, prefill),
                         io::step_queries(head, prefill - newest, prefill), group, params, run);
  const double plan_s =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  const HeadPlan plan = cache.plan();
  const DecodeMeasurement seen = measure_decode(
      cache, io::step_queries(head, prefill, last), head.keys.view().slice(0, last),
      head.values.view().slice(0, last), {.cold_cache = options.cold, .progress = run.progress});
  const auto row_bytes =
      static_cast<double>(head.keys.view().row_bytes() + head.values.view().row_bytes());
  const double full = static_cast<double>(cache.indexed()) * row_bytes;
  Json row = {{"retriever", to_string(plan.retriever)},
              {"rule", to_string(plan.stop.rule)},
              {"k", plan.stop.k},
              {"recall", plan.target_recall},
              {"tail", plan.tail_vectors},
              {"expected_error", plan.expected_error},
              {"error", seen.error},
              {"attended", std::round(10 * seen.retrieved) / 10},
              {"scanned", std::lround(seen.scanned)},
              {"kb_per_step", std::lround(seen.bytes_read / 1e3)},
              {"full_kb", std::lround(full / 1e3)},
              {"search_us", std::lround(seen.search_us)},
              {"attend_us", std::lround(seen.attend_us)},
              {"us_per_step", std::lround(seen.total_us)},
              {"plan_s", hundredths(plan_s)},
              {"memory_ratio", hundredths(static_cast<double>(cache.bytes()) /
                                          (static_cast<double>(cache.tokens()) * row_bytes))}};
  if (plan.stop.rule != Rule::top_k) row["limit"] = plan.stop.limit;
  return row;
}

/// What was decoded so far of one promise, or of the given plan.
struct Tally {
  DecodeParams params;
  std::size_t heads = 0, kept = 0, within_twice = 0;
  double error = 0, attended = 0, kb = 0, full_kb = 0;

  void add(const Json& row) {
    const double e = row.at("error");
    ++heads;
    kept += e <= params.max_error ? 1U : 0U;
    within_twice += e <= 2 * params.max_error ? 1U : 0U;
    error += e;
    attended += row.at("attended").get<double>() + row.at("tail").get<double>();
    kb += row.at("kb_per_step").get<double>();
    full_kb += row.at("full_kb").get<double>();
  }

  [[nodiscard]] Json summary() const {
    const auto n = static_cast<double>(heads);
    Json row = {{"mean_error", error / n},
                {"vectors_per_query", std::round(10 * attended / n) / 10},
                {"kb_per_step", std::lround(kb / n)},
                {"full_kb", std::lround(full_kb / n)}};
    if (!params.given) {
      row["max_error"] = params.max_error;
      row["kept"] = fmt::format("{} of {} heads", kept, heads);
      row["within_twice"] = fmt::format("{} of {} heads", within_twice, heads);
    }
    return row;
  }
};

/// One for each promise, or one for the given plan.
std::vector<Tally> tallies(const Options& options) {
  Tally tally;
  tally.params = options.params;
  if (!options.planned) {
    tally.params.given = options.given;
    tally.params.given->stop.rule = options.params.rule;
    tally.params.given->stop.least = std::min(options.params.least_k, options.given.stop.k);
    return {tally};
  }
  std::vector<Tally> all;
  for (const double max_error : options.max_errors) {
    tally.params.max_error = max_error;
    all.push_back(tally);
  }
  return all;
}

void run_decode(const Options& options) {
  require(options.steps >= 1, "--steps is 0");
  require(!options.max_errors.empty(), "--max-error is empty");
  const io::Hdf5Access access = hdf5_access(options.trusted);
  const io::CaptureInfo info = io::capture_info(options.capture, access);
  const Execution run = execution(options.console, options.threads);
  std::vector<Tally> all = tallies(options);
  Json heads = Json::array();
  for (const io::CaptureEntry& entry : info.heads) {
    if (!options.layers.empty() && std::find(options.layers.begin(), options.layers.end(),
                                             entry.layer) == options.layers.end()) {
      continue;
    }
    const io::CapturedHead captured =
        io::read_capture(options.capture, entry.layer, entry.kv_head, access);
    require(captured.prefill < captured.keys.rows(), "{}: no token comes after the prompt",
            options.capture);
    for (Tally& tally : all) {
      tally.params.scale = static_cast<float>(captured.scale);
      tally.params.rope = captured.rope;
      Json row = {{"layer", entry.layer}, {"kv_head", entry.kv_head}};
      if (options.planned) row["max_error"] = tally.params.max_error;
      row.update(decode(captured, tally.params, options, run));
      tally.add(row);
      heads.push_back(std::move(row));
    }
  }
  require(!heads.empty(), "{} has none of the layers asked for", options.capture);
  Json report = {{"capture", options.capture}, {"steps", options.steps}};
  report["heads"] = std::move(heads);
  report["summary"] = Json::array();
  for (const Tally& tally : all) report["summary"].push_back(tally.summary());
  print_report(report, options.console);
}

void add_given_plan(CLI::App& app, Options& options) {
  const std::vector<std::pair<std::string, Retriever>> names = {
      {"everything", Retriever::everything},
      {"none", Retriever::none},
      {"flat", Retriever::flat},
      {"sketch", Retriever::sketch},
      {"projection", Retriever::projection},
      {"complete", Retriever::complete}};
  CLI::Option* retriever =
      add_choice(app, "--retriever", options.given.retriever, names, "Given, instead of planned");
  retriever->default_str("planned");
  const auto only_given = [&](CLI::Option* option) { option->needs(retriever); };
  only_given(add_count(app, "--k", options.given.stop.k, "Keys per query of a given retriever"));
  only_given(app.add_option("--limit", options.given.stop.limit,
                            "Of a given retriever's rule: logits (dipr), share (mass)")
                 ->type_name("X"));
  only_given(app.add_option("--recall", options.given.target_recall,
                            "Of a given projection index's search")
                 ->type_name("R")
                 ->capture_default_str());
}

}  // namespace

Command add_decode(CLI::App& tool) {
  auto options = std::make_shared<Options>();
  CLI::App* app = tool.add_subcommand(
      "decode", "Decode the tokens of a capture with retrieval; compare with full attention");
  app->add_option("--data", options->capture, "A capture, *.attn.h5")
      ->required()
      ->type_name("FILE");
  add_trusted(*app, options->trusted);
  app->add_option("--layers", options->layers, "Only these layers")
      ->delimiter(',')
      ->type_name("N,..");
  app->add_option("--max-error", options->max_errors, "Promises to plan for, each in (0, 1)")
      ->delimiter(',')
      ->type_name("E,..")
      ->capture_default_str();
  add_count(*app, "--steps", options->steps, "Tokens to decode, at most");
  add_count(*app, "--sink", options->params.sink, "First tokens, attended exactly");
  add_count(*app, "--window", options->params.window, "Newest tokens, attended exactly");
  add_count(*app, "--horizon", options->params.horizon, "Tokens decoded between refreshes");
  add_count(*app, "--tail-vectors", options->params.tail_vectors, "Vectors of the tail; 0: none");
  add_count(*app, "--least-k", options->params.least_k, "Keys retrieved per query, at least");
  add_count(*app, "--max-k", options->params.max_k, "Keys retrieved per query, at most");
  app->add_option("--max-memory", options->params.max_memory,
                  "Most memory, in units of keys and values")
      ->type_name("X")
      ->capture_default_str();
  add_choice<Rule>(*app, "--rule", options->params.rule,
                   {{"top-k", Rule::top_k}, {"dipr", Rule::dipr}, {"mass", Rule::mass}},
                   "Which of the keys found are attended");
  add_count(*app, "--pinned", options->params.pinned,
            "Tokens that the prompt's end attends to most, attended exactly");
  app->add_flag("--int8-values", options->params.int8_values, "Keep indexed values in 8 bits");
  add_given_plan(*app, *options);
  app->add_flag("--cold", options->cold, "Empty the caches between steps, as other layers do");
  add_threads(*app, options->threads);
  add_options(*app, options->console);
  app->footer(
      "Each head is planned on the prompt and decodes what follows it. error is the mean of\n"
      "|out - full| / |full|; kb_per_step is what was read of the indexed tokens, full_kb what\n"
      "full attention reads of them.\n"
      "Example:\n  keyseek decode --data gemma.attn.h5 --layers 11 --max-error 0.05");
  return {app, [options, app] {
            options->planned = app->count("--retriever") == 0;
            run_decode(*options);
          }};
}

}  // namespace keyseek::cli
