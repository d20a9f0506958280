/// keyseek info: what a file holds, and what this CPU runs.
#include <filesystem>
#include <memory>
#include <string>

#include "base/fail.hpp"
#include "cli/command.hpp"
#include "cli/describe_index.hpp"
#include "cli/file_kind.hpp"
#include "cli/options.hpp"
#include "keyseek/score.hpp"
#include "keyseek/version.hpp"

namespace keyseek::cli {
namespace {

struct Options {
  ConsoleOptions console;
  std::string file;
  bool isa = false, trusted = false;
};

std::string shape(std::size_t rows, std::size_t cols) {
  return rows == 0 ? "-" : fmt::format("{} x {}", rows, cols);
}

Json describe_vectors(const AnyMatrix& vectors) {
  return {{"kind", "vectors"},
          {"rows", vectors.rows()},
          {"dim", vectors.cols()},
          {"dtype", to_string(vectors.dtype())}};
}

Json describe_ids(const Matrix<Id>& ids) {
  return {{"kind", "ids"}, {"rows", ids.rows()}, {"k", ids.cols()}};
}

/// An npy file holds either; what it holds is in its header.
Json describe_npy(const std::string& path) {
  try {
    return describe_vectors(io::read_vectors(path));
  } catch (const Error& e) {
    if (e.code() != ErrorCode::unsupported) throw;
  }
  return describe_ids(io::read_ids(path));
}

Json describe_benchmark(const io::Benchmark& data) {
  return {{"kind", "benchmark"},
          {"keys", shape(data.keys.rows(), data.keys.cols())},
          {"dtype", to_string(data.keys.dtype())},
          {"queries", shape(data.queries.rows(), data.queries.cols())},
          {"truth", shape(data.truth_ids.rows(), data.truth_ids.cols())},
          {"learn", shape(data.learn.rows(), data.learn.cols())},
          {"learn_lists", shape(data.learn_ids.rows(), data.learn_ids.cols())},
          {"tuning", shape(data.tuning.rows(), data.tuning.cols())},
          {"tuning_steps", data.tuning_steps},
          {"group", data.group}};
}

Json describe_capture(const io::CaptureInfo& info) {
  Json heads = Json::array();
  for (const io::CaptureEntry& head : info.heads) {
    heads.push_back({{"head", fmt::format("L{}/K{}", head.layer, head.kv_head)},
                     {"tokens", head.tokens},
                     {"dim", head.dim},
                     {"group", head.group}});
  }
  return {{"kind", "capture"},       {"model", info.model},     {"text", info.text},
          {"capture", info.capture}, {"prefill", info.prefill}, {"heads", heads}};
}

Json describe_index(const std::string& path) {
  Json report = {{"kind", "index"}};
  report.update(describe(Index::open(path, FileMemory::mapped)));
  return report;
}

/// Vectors of other programs: `read_vectors` says what to do with them.
bool is_foreign(const std::string& path) {
  const auto extension = std::filesystem::path(path).extension();
  return extension == ".bin";
}

Json describe_file(const std::string& path, const io::Hdf5Access& access) {
  if (is_foreign(path)) (void)io::read_vectors(path);
  switch (file_kind(path)) {
    case FileKind::vectors:
      return describe_vectors(io::read_vectors(path));
    case FileKind::ids:
      return describe_ids(io::read_ids(path));
    case FileKind::npy:
      return describe_npy(path);
    case FileKind::benchmark:
      return describe_benchmark(io::read_benchmark(path, access));
    case FileKind::capture:
      return describe_capture(io::capture_info(path, access));
    case FileKind::other:
      break;
  }
  return describe_index(path);
}

Json describe_isas() {
  Json available = Json::array();
  for (const Isa isa : available_isas()) available.push_back(to_string(isa));
  return {{"version", kVersion},
          {"isa", to_string(active_isa())},
          {"available", available},
          {"threads_of", default_executor()->name()}};
}

void run_info(const Options& options) {
  require(options.isa != !options.file.empty(), "give either a file or --isa");
  if (options.isa) return print_report(describe_isas(), options.console);
  Json report = {{"file", options.file}};
  report.update(describe_file(options.file, hdf5_access(options.trusted)));
  std::error_code error;
  report["file_bytes"] = std::filesystem::file_size(options.file, error);
  print_report(report, options.console);
}

}  // namespace

Command add_info(CLI::App& tool) {
  auto options = std::make_shared<Options>();
  CLI::App* app = tool.add_subcommand(
      "info", "Say what a file holds: index, vectors, ids, benchmark or capture");
  app->add_option("file", options->file, "Any of the files that keyseek reads")->type_name("FILE");
  add_trusted(*app, options->trusted);
  app->add_flag("--isa", options->isa, "Say which instruction sets this CPU runs");
  add_options(*app, options->console);
  app->footer("Example:\n  keyseek info datasets/sample/smollm2-8k-pydoc.attn.h5");
  return {app, [options] { run_info(*options); }};
}

}  // namespace keyseek::cli
