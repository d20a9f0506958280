/// keyseek verify: every checksum, every link, the recall.
#include <memory>
#include <string>

#include "base/fail.hpp"
#include "cli/command.hpp"
#include "cli/describe_index.hpp"
#include "cli/options.hpp"
#include "cli/problem.hpp"
#include "keyseek/measure.hpp"

namespace keyseek::cli {
namespace {

struct Options {
  ConsoleOptions console;
  DataOptions data;
  std::string index;
  double min_recall = 0;
  std::size_t k = 100;
  double target_recall = ProjectionSearchParams{}.target_recall;
  CLI::Option* target_option = nullptr;
};

double check_recall(const Index& index, const Options& options) {
  const Execution run = execution(options.console, 0);
  const std::size_t k = options.k;
  require(index.metric() == Metric::ip, "{} is by {}, but the truth of --data is by inner product",
          options.index, to_string(index.metric()));
  const io::Benchmark data = options.data.read(k, run);
  require(data.keys.rows() == index.size() && data.keys.cols() == index.dim(),
          "{} has {} keys of dimension {}, but {} has {} of {}", options.data.data,
          data.keys.rows(), data.keys.cols(), options.index, index.size(), index.dim());
  SearchParams search{.k = k};
  if (options.target_option->count() > 0)
    search.projection = {.target_recall = options.target_recall};
  const Measurement m = measure_steps(
      index, data.queries, {.group = data.group, .search = search, .progress = run.progress});
  return recall(truth_of(data, k, run), m.ids, index.size());
}

void run_verify(const Options& options) {
  (void)options.data.view(1);
  require(options.min_recall == 0 || !options.data.data.empty(),
          "--min-recall is {}, but there is no --data to measure on", options.min_recall);
  const Index index = Index::open(options.index);
  require_projection({options.target_option}, index.kind(), options.index);
  Json report = describe(index);
  if (!options.data.data.empty()) {
    const double found = check_recall(index, options);
    if (!(found >= options.min_recall)) {
      fail(ErrorCode::corrupt, "{}: recall@{} is {:.4f}, less than {}", options.index, options.k,
           found, options.min_recall);
    }
    report["recall_at_k"] = found;
  }
  report["ok"] = true;
  print_report(report, options.console);
}

}  // namespace

Command add_verify(CLI::App& tool) {
  auto options = std::make_shared<Options>();
  CLI::App* app =
      tool.add_subcommand("verify", "Check an index file: every checksum, every link, the recall");
  app->add_option("file", options->index, "An index file")->required()->type_name("FILE");
  options->data.add(*app)->description("Data to measure the recall on: that the index is built on");
  add_count(*app, "--k", options->k, "Keys per query");
  options->target_option = add_target_recall(*app, options->target_recall);
  app->add_option("--min-recall", options->min_recall, "Fail (exit code 3) below this recall")
      ->type_name("R");
  add_options(*app, options->console);
  app->footer("Example:\n  keyseek verify head.ks");
  return {app, [options] { run_verify(*options); }};
}

}  // namespace keyseek::cli
