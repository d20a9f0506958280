/// Converts vectors and problems from one file format to another.
#include <algorithm>
#include <memory>
#include <string>
#include <vector>

#include "base/fail.hpp"
#include "cli/command.hpp"
#include "cli/file_kind.hpp"
#include "cli/options.hpp"
#include "cli/problem.hpp"

namespace keyseek::cli {
namespace {

enum class Part { none, keys, queries, learn, tuning, truth };

const std::vector<std::pair<std::string, Part>> kParts = {{"keys", Part::keys},
                                                          {"queries", Part::queries},
                                                          {"learn", Part::learn},
                                                          {"tuning", Part::tuning},
                                                          {"truth", Part::truth}};

struct Options {
  ConsoleOptions console;
  DataOptions data;  ///< its name is the input, also where that is no search problem
  std::string out;
  Part part = Part::none;
  std::size_t k = 100;
  int threads = 0;
};

bool is_data(FileKind kind) { return kind == FileKind::benchmark || kind == FileKind::capture; }

void check(const Options& options) {
  const std::string& in = options.data.data;
  const FileKind from = file_kind(in), to = file_kind(options.out);
  (void)options.data.view(1);
  require(from != FileKind::other, "{} is none of the files that can be converted", in);
  require(to != FileKind::other && to != FileKind::capture,
          "{} is no name for a converted file: its extension must be one of .h5, .hdf5, .fbin, "
          ".f16bin, .i8bin, .u8bin, .fvecs, .bvecs, .ibin, .ivecs, .npy",
          options.out);
  require(to != FileKind::benchmark || is_data(from),
          "{} cannot become a benchmark: it is no capture and no benchmark", in);
  require(to != FileKind::benchmark || options.part == Part::none,
          "--part is for vectors and ids, but {} is a benchmark", options.out);
  require(options.part == Part::none || is_data(from),
          "--part is for captures and benchmarks, but {} has no parts", in);
  require(to == FileKind::benchmark || !is_data(from) || options.part != Part::none,
          "{} has several parts: choose one with --part (keys, queries, learn, tuning, truth)", in);
  require_output(options.out, {{"the input", in}});
}

Json write_vectors(const Options& options, AnyMatrixView vectors) {
  require(vectors.rows > 0, "{} has no vectors of that part", options.data.data);
  io::write_vectors(options.out, vectors);
  return {{"rows", vectors.rows}, {"dim", vectors.cols}};
}

Json write_ids(const Options& options, const Matrix<Id>& ids) {
  io::write_ids(options.out, ids);
  return {{"rows", ids.rows()}, {"k", ids.cols()}};
}

Json write_part(const Options& options, const io::Benchmark& data, const Execution& run) {
  switch (options.part) {
    case Part::queries:
      return write_vectors(options, AnyMatrixView::of(data.queries.view()));
    case Part::learn:
      return write_vectors(options, AnyMatrixView::of(data.learn.view()));
    case Part::tuning:
      return write_vectors(options, AnyMatrixView::of(data.tuning.view()));
    case Part::truth:
      return write_ids(options, truth_of(data, options.k, run));
    case Part::keys:
    case Part::none:
      break;
  }
  return write_vectors(options, data.keys.view());
}

Json write_benchmark(const Options& options, const io::Benchmark& data) {
  io::write_benchmark(options.out, data);
  return {{"keys", data.keys.rows()},       {"dim", data.keys.cols()},
          {"queries", data.queries.rows()}, {"learn", data.learn.rows()},
          {"tuning", data.tuning.rows()},   {"group", data.group},
          {"k", data.truth_ids.cols()}};
}

Json convert(const Options& options, const Execution& run) {
  const std::string& in = options.data.data;
  const FileKind from = file_kind(in), to = file_kind(options.out);
  if (is_data(from)) {
    const io::Benchmark data = options.data.read(options.k, run);
    return to == FileKind::benchmark ? write_benchmark(options, data)
                                     : write_part(options, data, run);
  }
  if (from == FileKind::ids || to == FileKind::ids) return write_ids(options, io::read_ids(in));
  return write_vectors(options, io::read_vectors(in).view());
}

void run_convert(const Options& options) {
  check(options);
  Json report = convert(options, execution(options.console, options.threads));
  report["out"] = options.out;
  print_report(report, options.console);
}

}  // namespace

Command add_convert(CLI::App& tool) {
  auto options = std::make_shared<Options>();
  CLI::App* app = tool.add_subcommand(
      "convert", "Turn a capture's head into a benchmark, or vectors and ids into other formats");
  app->add_option("in", options->data.data,
                  "A head of a capture (x.attn.h5:L11/K0), a benchmark, vectors or ids")
      ->required()
      ->type_name("IN");
  app->add_option("out", options->out, "The file to write; its extension says the format")
      ->required()
      ->type_name("OUT");
  add_choice(*app, "--part", options->part, kParts, "What of a capture or benchmark is written");
  add_count(*app, "--k", options->k, "Keys per query in the exact truth");
  options->data.add_view(*app);
  add_threads(*app, options->threads);
  add_options(*app, options->console);
  app->footer(
      "Example:\n"
      "  keyseek convert datasets/sample/smollm2-8k-pydoc.attn.h5:L15/K0 head.hdf5");
  return {app, [options] { run_convert(*options); }};
}

}  // namespace keyseek::cli
