#include <algorithm>
#include <chrono>
#include <cmath>
#include <memory>
#include <string>
#include <vector>

#include "base/fail.hpp"
#include "cli/command.hpp"
#include "cli/options.hpp"
#include "keyseek/decode.hpp"

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
  DecodeParams params;
};

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point begin) {
  return std::chrono::duration<double>(Clock::now() - begin).count();
}

/// A captured head, its queries position by position.
class Head {
 public:
  explicit Head(const io::CapturedHead& head) : head_(head), group_(head.queries.size()) {}

  [[nodiscard]] Matrix<float> queries(std::size_t first, std::size_t last) const {
    Matrix<float> rows((last - first) * group_, head_.keys.cols());
    for (std::size_t i = 0; i < rows.rows(); ++i)
      std::copy_n(head_.queries[i % group_].row(first + i / group_), rows.cols(), rows.row(i));
    return rows;
  }
  [[nodiscard]] std::vector<float> row(const AnyMatrix& m, std::size_t i) const {
    std::vector<float> out(m.cols());
    m.view().copy_row(i, out.data());
    return out;
  }
  [[nodiscard]] const io::CapturedHead& captured() const { return head_; }
  [[nodiscard]] std::size_t group() const { return group_; }

 private:
  const io::CapturedHead& head_;
  std::size_t group_;
};

/// Decodes the tokens after the prompt; the errors are against attention over all tokens.
Json decode(const Head& head, const DecodeParams& params, const Options& options,
            const Execution& run) {
  const io::CapturedHead& h = head.captured();
  const std::size_t prefill = h.prefill, dv = h.values.cols(), group = head.group();
  const auto newest = static_cast<std::size_t>(kPromptShare * static_cast<double>(prefill));
  const auto begin = Clock::now();
  HeadCache cache =
      HeadCache::prefill(h.keys.view().slice(0, prefill), h.values.view().slice(0, prefill),
                         head.queries(prefill - newest, prefill), group, params, run);
  const double plan_s = seconds_since(begin);
  const HeadPlan plan = cache.plan();

  DecodeScratch scratch;
  AttendScratch attend_scratch;
  Partial full;
  Matrix<float> out(group, dv);
  std::vector<double> times;
  double error = 0, scanned = 0, bytes = 0;
  const std::size_t last = std::min(h.keys.rows(), prefill + options.steps);
  for (std::size_t t = prefill; t < last; ++t) {
    const Matrix<float> queries = head.queries(t, t + 1);
    const std::vector<float> key = head.row(h.keys, t), value = head.row(h.values, t);
    const auto step = Clock::now();
    cache.step(queries, key.data(), value.data(), scratch, out.data());
    times.push_back(seconds_since(step) * 1e6);
    attend(queries, h.keys.view().slice(0, t + 1), {h.values.view().slice(0, t + 1)}, params.scale,
           attend_scratch, full);
    for (std::size_t g = 0; g < group; ++g)
      error += relative_error(out.row(g), full.out.row(g), dv);
    scanned += static_cast<double>(cache.stats().scanned);
    bytes += static_cast<double>(cache.stats().bytes_read);
  }
  const auto steps = static_cast<double>(times.size());
  std::sort(times.begin(), times.end());
  const double row_bytes =
      static_cast<double>(h.keys.cols() * size_of(h.keys.dtype()) + dv * size_of(h.values.dtype()));
  return {{"max_error", params.max_error},
          {"retriever", to_string(plan.retriever)},
          {"k", plan.k},
          {"recall", plan.target_recall},
          {"tail", plan.tail_vectors},
          {"expected_error", plan.expected_error},
          {"error", error / steps / static_cast<double>(group)},
          {"scanned", std::lround(scanned / steps)},
          {"kb_per_step", std::lround(bytes / steps / 1e3)},
          {"full_kb", std::lround(static_cast<double>(cache.indexed()) * row_bytes / 1e3)},
          {"us_per_step", std::lround(times[times.size() / 2])},
          {"plan_s", std::round(plan_s * 100) / 100},
          {"memory_ratio", std::round(100 * static_cast<double>(cache.bytes()) /
                                      (static_cast<double>(cache.tokens()) * row_bytes)) /
                               100}};
}

void run_decode(const Options& options) {
  require(options.steps >= 1, "--steps is 0");
  require(!options.max_errors.empty(), "--max-error is empty");
  const io::CaptureInfo info = io::capture_info(options.capture);
  const Execution run = execution(options.console, options.threads);
  Json heads = Json::array();
  std::vector<double> promises = options.max_errors;
  std::vector<std::size_t> kept(promises.size());
  std::size_t count = 0;
  for (const io::CaptureEntry& entry : info.heads) {
    if (!options.layers.empty() && std::find(options.layers.begin(), options.layers.end(),
                                             entry.layer) == options.layers.end()) {
      continue;
    }
    const io::CapturedHead captured = io::read_capture(options.capture, entry.layer, entry.kv_head);
    require(captured.prefill < captured.keys.rows(), "{}: no token comes after the prompt",
            options.capture);
    ++count;
    for (std::size_t i = 0; i < promises.size(); ++i) {
      DecodeParams params = options.params;
      params.max_error = promises[i];
      params.scale = static_cast<float>(captured.scale);
      params.rope = captured.rope;
      Json row = {{"layer", entry.layer}, {"kv_head", entry.kv_head}};
      const Json decoded = decode(Head(captured), params, options, run);
      row.update(decoded);
      kept[i] += decoded.at("error").get<double>() <= promises[i] ? 1 : 0;
      heads.push_back(std::move(row));
    }
  }
  require(count > 0, "{} has none of the layers asked for", options.capture);
  Json report = {{"capture", options.capture}, {"steps", options.steps}};
  for (std::size_t i = 0; i < promises.size(); ++i)
    report[fmt::format("kept_{}", promises[i])] = fmt::format("{} of {} heads", kept[i], count);
  report["heads"] = std::move(heads);
  print_report(report, options.console);
}

}  // namespace

Command add_decode(CLI::App& tool) {
  auto options = std::make_shared<Options>();
  CLI::App* app = tool.add_subcommand(
      "decode", "Decode the tokens of a capture with retrieval; compare with full attention");
  app->add_option("--data", options->capture, "A capture, *.attn.h5")
      ->required()
      ->type_name("FILE");
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
  add_threads(*app, options->threads);
  add_options(*app, options->console);
  app->footer(
      "Each head is planned on the prompt and decodes what follows it. error is the mean of\n"
      "|out - full| / |full|; kb_per_step is what was read of the indexed tokens, full_kb what\n"
      "full attention reads of them.\n"
      "Example:\n  keyseek decode --data gemma.attn.h5 --layers 11 --max-error 0.05");
  return {app, [options] { run_decode(*options); }};
}

}  // namespace keyseek::cli
