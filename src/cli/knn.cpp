/// Computes exact nearest keys and writes them to a file.
#include <memory>
#include <string>

#include "cli/command.hpp"
#include "cli/options.hpp"
#include "cli/problem.hpp"
#include "keyseek/knn.hpp"

namespace keyseek::cli {
namespace {

struct Options {
  ConsoleOptions console;
  std::string keys, queries, out, scores;
  bool trusted = false;
  KnnParams params;
  Metric metric = Metric::ip;
  int threads = 0;
};

void run_knn(const Options& options) {
  Inputs inputs = {{"--keys", options.keys}, {"--queries", options.queries}};
  require_ids_output(options.out, inputs);
  inputs.emplace_back("--out", options.out);
  if (!options.scores.empty()) require_vectors_output(options.scores, inputs);
  const io::Hdf5Access access = hdf5_access(options.trusted);
  io::Benchmark data;
  data.keys = io::read_vectors(options.keys, access);
  data.queries = read_queries(options.queries, access);
  io::require_matching(data, {.keys = options.keys, .queries = options.queries});
  const Matrix<float> given = data.queries;
  const MetricSpace space = by_metric(data, options.metric);
  KnnLists lists = exact_knn(data.keys.view(), data.queries, options.params,
                             execution(options.console, options.threads));
  for (std::size_t i = 0; i < given.rows(); ++i) {
    space.convert({given.row(i), given.cols()}, data.keys.view(),
                  {lists.ids.row(i), lists.ids.cols()}, {lists.scores.row(i), lists.scores.cols()});
  }
  io::write_ids(options.out, lists.ids);
  if (!options.scores.empty()) {
    io::write_vectors(options.scores, AnyMatrixView::of(lists.scores.view()));
  }
  print_report({{"keys", data.keys.rows()},
                {"queries", data.queries.rows()},
                {"dim", given.cols()},
                {"k", options.params.k},
                {"out", options.out}},
               options.console);
}

}  // namespace

Command add_knn(CLI::App& tool) {
  auto options = std::make_shared<Options>();
  CLI::App* app = tool.add_subcommand("knn", "Find the exact k best keys of every query");
  app->add_option("--keys", options->keys,
                  "Vectors: .fbin, .fvecs and their kin, .npy, or x.hdf5:train")
      ->required()
      ->type_name("FILE");
  app->add_option("--queries", options->queries, "Vectors")->required()->type_name("FILE");
  app->add_option("--out", options->out, "Ids to write: .ibin, .ivecs or .npy")
      ->required()
      ->type_name("FILE");
  app->add_option("--scores", options->scores,
                  "Inner products, squared distances or cosines to write: .fbin or .npy")
      ->type_name("FILE");
  add_count(*app, "--k", options->params.k, "Keys per query");
  add_method(*app, "--method", options->params.method);
  add_metric(*app, options->metric);
  add_trusted(*app, options->trusted);
  add_threads(*app, options->threads);
  add_options(*app, options->console);
  app->footer(
      "Example:\n  keyseek knn --keys keys.fbin --queries queries.fbin --k 100 --out truth.ibin");
  return {app, [options] { run_knn(*options); }};
}

}  // namespace keyseek::cli
