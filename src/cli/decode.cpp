// The command `decode`: heads of a capture, planned on their prompt and decoded after it.
#include <algorithm>
#include <array>
#include <cctype>
#include <chrono>
#include <cmath>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/fail.hpp"
#include "cli/command.hpp"
#include "cli/options.hpp"
#include "keyseek/decode_options.hpp"
#include "keyseek/measure.hpp"

namespace keyseek::cli {
namespace {

// What the capture says, and what is asked as a list.
constexpr std::array<std::string_view, 3> kNotAsked = {"logits", "rotary embedding", "max_error"};

struct Options {
  ConsoleOptions console;
  std::string capture;
  std::vector<std::size_t> layers;
  std::vector<double> max_errors = {0.1, 0.05, 0.02};
  bool promised = false;  ///< max_errors were given
  std::size_t steps = 512;
  int threads = 1;
  bool cold = false;
  bool trusted = false;
  /// Options of DecodeParams that were given, in the order of the table.
  std::map<const DecodeOption*, std::string> given;
};

double hundredths(double x) { return std::round(100 * x) / 100; }

/// A head decodes the tokens after its prompt.
Json decode(const io::CapturedHead& head, const DecodeParams& params, const Options& options,
            const Execution& run) {
  const std::size_t prefill = head.prefill, group = head.queries.size();
  const std::size_t last = std::min(head.keys.rows(), prefill + options.steps);
  const std::size_t newest = std::min(prefill, params.plan_positions(prefill));
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
  Json row = {{"retriever", to_string(plan.retriever)},
              {"rule", to_string(plan.stop.rule)},
              {"k", plan.stop.k},
              {"recall", plan.target_recall},
              {"tail", plan.tail_vectors},
              {"expected_error", plan.expected_error},
              {"planted_error", plan.planted_error},
              {"error", seen.error},
              {"attended", std::round(10 * seen.retrieved) / 10},
              {"scanned", std::lround(seen.scanned)},
              {"kb_per_step", std::lround(seen.bytes_read / 1e3)},
              {"full_kb", std::lround(static_cast<double>(cache.full_bytes()) / 1e3)},
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

/// One for each promise, or one for the given plan. Throws Error when an option was given that
/// nobody reads.
std::vector<Tally> tallies(const Options& options) {
  Tally tally;
  for (const auto& [option, text] : options.given) option->set_text(tally.params, text);
  for (const auto& [option, text] : options.given) option->require_read(tally.params);
  std::vector<Tally> all;
  for (const double max_error : options.max_errors) {
    all.push_back(tally);
    all.back().params.max_error = max_error;
    if (options.promised) decode_option("max_error").require_read(all.back().params);
  }
  return tally.params.given ? std::vector<Tally>{tally} : all;
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
      if (!tally.params.given) row["max_error"] = tally.params.max_error;
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

/// "--tail-vectors"; of a flag that is set, "--no-scan-novel".
std::string option_name(const DecodeOption& option, bool set) {
  std::string name = fmt::format("--{}{}", set ? "no-" : "", option.name);
  std::replace(name.begin(), name.end(), '_', '-');
  return name;
}

std::string placeholder(const DecodeOption& option) {
  if (option.kind == OptionKind::count) return "N";
  if (option.words.empty()) return "X";
  std::string all;
  for (const std::string_view word : option.words)
    if (word != to_string(Retriever::custom)) all += (all.empty() ? "" : "|") + std::string(word);
  return all;
}

std::string description(const DecodeOption& option, bool set) {
  std::string text = (set ? "Do not " : "") + std::string(option.meaning);
  text[0] = static_cast<char>(std::toupper(static_cast<unsigned char>(text[0])));
  const bool ranged = std::isfinite(option.range.most) || option.range.least > 0;
  return ranged ? text + ", " + option.allowed() : text;
}

/// An option of the command line for every option of DecodeParams that is asked.
void add_decode_options(CLI::App& app, Options& options) {
  DecodeParams presets;
  presets.given.emplace();
  CLI::Option* retriever = nullptr;
  for (const DecodeOption& option : decode_options()) {
    const auto is_it = [&](std::string_view name) {
      return name == option.group || name == option.name;
    };
    if (std::any_of(kNotAsked.begin(), kNotAsked.end(), is_it)) continue;
    const std::string preset = option.text(presets);
    const auto take = [&options, &option](const std::string& text) {
      options.given[&option] = text;
    };
    CLI::Option* added = nullptr;
    if (option.kind == OptionKind::flag) {
      const bool set = preset == "true";
      added = app.add_flag_callback(
          option_name(option, set), [take, set] { take(set ? "false" : "true"); },
          description(option, set));
    } else {
      added = app.add_option_function<std::string>(option_name(option, false), take,
                                                   description(option, false));
      added->type_name(placeholder(option))->default_str(preset == "-" ? "" : preset);
    }
    added->group("Of the " + std::string(option.group));
    if (!option.of_given_plan()) continue;
    if (option.name == "retriever")
      retriever = added->default_str("planned");
    else
      added->needs(retriever);
  }
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
  add_decode_options(*app, *options);
  app->add_flag("--cold", options->cold, "Empty the caches between steps, as other layers do");
  add_threads(*app, options->threads);
  add_options(*app, options->console);
  app->footer(
      "Each head is planned on the prompt and decodes what follows it. error is the mean of\n"
      "|out - full| / |full|; kb_per_step is what was read of the indexed tokens, full_kb what\n"
      "full attention reads of them.\n"
      "Example:\n  keyseek decode --data gemma.attn.h5 --layers 11 --max-error 0.05");
  return {app, [options, app] {
            options->promised = app->count("--max-error") > 0;
            run_decode(*options);
          }};
}

}  // namespace keyseek::cli
