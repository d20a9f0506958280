/// Options that several commands have, and the checks that come with them.
#include "cli/options.hpp"

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>

#include "base/fail.hpp"
#include "cli/file_kind.hpp"

namespace keyseek::cli {
namespace {

const std::vector<std::pair<std::string, KnnMethod>> kKnnMethods = {{"f32", KnnMethod::f32},
                                                                    {"int8", KnnMethod::int8}};
const std::vector<std::pair<std::string, LinkMethod>> kLinkMethods = {
    {"cooccurrence", LinkMethod::cooccurrence}, {"pivot", LinkMethod::pivot}};

template <class Value>
std::string name_of(const std::vector<std::pair<std::string, Value>>& names, Value value) {
  return std::find_if(names.begin(), names.end(), [&](const auto& n) { return n.second == value; })
      ->first;
}

}  // namespace

CLI::Validator whole_number() {
  return CLI::Validator(
      [](std::string& text) -> std::string {
        const bool digits = !text.empty() && std::all_of(text.begin(), text.end(), [](char c) {
          return c >= '0' && c <= '9';
        });
        if (!digits || text.size() > 18) return fmt::format("'{}' is no whole number", text);
        text.erase(0, std::min(text.find_first_not_of('0'), text.size() - 1));
        return "";
      },
      "");
}

CLI::Option* add_threads(CLI::App& app, int& value) {
  return add_count(app, "--threads", value, "Threads to work with; 0: as many as there are");
}

CLI::Option* add_index_kind(CLI::App& app, const std::string& name, IndexKind& kind) {
  std::vector<std::pair<std::string, IndexKind>> names;
  for (const IndexKind known : index_kinds()) names.emplace_back(to_string(known), known);
  return add_choice(app, name, kind, names, "Kind of index");
}

void require_projection(const std::vector<CLI::Option*>& options, IndexKind kind,
                        const std::string& where) {
  for (const CLI::Option* option : options) {
    require(option->count() == 0 || kind == IndexKind::projection,
            "{} is of a projection index, but {} is of kind {}", option->get_name(), where,
            to_string(kind));
  }
}

CLI::Option* add_metric(CLI::App& app, Metric& metric) {
  std::vector<std::pair<std::string, Metric>> names;
  for (const Metric known : {Metric::ip, Metric::l2, Metric::cosine})
    names.emplace_back(to_string(known), known);
  return add_choice(app, "--metric", metric, names,
                    "What is best: the largest inner product, the smallest distance, or the "
                    "largest cosine");
}

CLI::Option* add_target_recall(CLI::App& app, double& target_recall) {
  return app
      .add_option("--target-recall", target_recall,
                  "Recall to choose the tuned dials of a projection index by")
      ->type_name("R")
      ->capture_default_str();
}

CLI::Option* add_method(CLI::App& app, const std::string& name, KnnMethod& method) {
  return add_choice(app, name, method, kKnnMethods,
                    "How exact lists are found: int8 is followed by an exact rerank");
}

// --- data ------------------------------------------------------------------------------

CLI::Option* DataOptions::add(CLI::App& app) {
  add_view(app);
  return app.add_option("--data", data, "Benchmark HDF5, or a head of a capture: x.attn.h5:L11/K0")
      ->type_name("DATA");
}

void DataOptions::add_view(CLI::App& app) {
  const std::string group = "Of captures";
  const auto keep = [&](CLI::Option* option) { view_options_.push_back(option->group(group)); };
  keep(add_count(app, "--sink", view_.sink, "First tokens, not indexed"));
  keep(add_count(app, "--window", view_.window, "Last tokens before decoding, not indexed"));
  keep(add_count(app, "--horizon", view_.horizon, "Tokens to be decoded before a rebuild"));
  keep(app.add_option("--share", view_.share, "Share of the prefill queries to train on")
           ->type_name("R")
           ->capture_default_str());
  keep(add_count(app, "--seed", view_.seed, "Of the RoPE shifts"));
  keep(app.add_flag("--no-shift", no_shift_, "Leave training queries at their own positions"));
  add_trusted(app, trusted_);
}

bool DataOptions::is_capture() const {
  return !data.empty() && io::parse_data_name(data).layer.has_value();
}

io::DecodeViewParams DataOptions::view(std::size_t k) const {
  for (const CLI::Option* option : view_options_) {
    require(option->count() == 0 || is_capture(),
            "{} is for heads of a capture only (x.attn.h5:L11/K0), but the data is '{}'",
            option->get_name(), data);
  }
  io::DecodeViewParams view = view_;
  view.shift = !no_shift_;
  view.k = k;
  return view;
}

io::Benchmark DataOptions::read(std::size_t k, const Execution& run) const {
  return io::read_data(data, view(k), run, access());
}

std::string DataOptions::short_name() const {
  const io::DataName name = io::parse_data_name(data);
  const std::string file = name.path.filename().string();
  return name.layer ? fmt::format("{}:L{}/K{}", file, *name.layer, *name.kv_head) : file;
}

// --- parameters ------------------------------------------------------------------------

std::vector<CLI::Option*> add_options(CLI::App& app, ProjectionParams& params) {
  std::vector<CLI::Option*> added;
  const auto add = [&](CLI::Option* option) {
    added.push_back(option->group("Of the projection index"));
  };
  const auto count = [&](const char* name, auto& value, const char* description) {
    add(add_count(app, name, value, description));
  };
  const auto real = [&](const char* name, double& value, const char* description) {
    add(app.add_option(name, value, description)->type_name("R")->capture_default_str());
  };
  GraphParams& graph = params.graph;
  RouterParams& router = params.router;
  add(add_choice(app, "--link-method", graph.link_method, kLinkMethods, "How lists become links"));
  count("--list-length", params.list_length, "Keys in the exact list of a training query");
  add(add_method(app, "--list-method", params.list_method));
  count("--candidates", graph.candidates, "Links of a key that pruning chooses from");
  count("--degree", graph.degree, "Links of a key before reverse links");
  count("--max-degree", graph.max_degree, "Links of a key after reverse links");
  real("--damping", graph.damping, "Exponent of the popularity a weight is divided by");
  count("--sampled-lists", graph.sampled_lists, "Lists counted per key at most");
  count("--entry-points", graph.entry_points, "Keys that reachability is counted from");
  count("--router-dim", router.dim, "Coordinates that training queries are compared in");
  count("--clusters", router.clusters, "Clusters of training queries at most");
  count("--iterations", router.iterations, "Iterations of k-means");
  real("--queries-per-key", router.queries_per_key, "Training queries kept, per key, at most");
  count("--router-seed", router.seed, "Of k-means");
  count("--tune-k", params.tuning_k, "Keys wanted of a held-out query when tuning");
  add(app.add_option("--tune-recalls", params.target_recalls, "Recalls to tune for, separated by ,")
          ->delimiter(',')
          ->type_name("R,R,.."));
  return added;
}

Json to_json(const ProjectionParams& params) {
  const GraphParams& graph = params.graph;
  const RouterParams& router = params.router;
  return {{"link_method", name_of(kLinkMethods, graph.link_method)},
          {"list_length", params.list_length},
          {"list_method", name_of(kKnnMethods, params.list_method)},
          {"candidates", graph.candidates},
          {"degree", graph.degree},
          {"max_degree", graph.max_degree},
          {"damping", graph.damping},
          {"sampled_lists", graph.sampled_lists},
          {"entry_points", graph.entry_points},
          {"router_dim", router.dim},
          {"clusters", router.clusters},
          {"iterations", router.iterations},
          {"queries_per_key", router.queries_per_key},
          {"router_seed", router.seed},
          {"tune_k", params.tuning_k},
          {"tune_recalls", params.target_recalls}};
}

io::Hdf5Access hdf5_access(bool trusted) { return {.helper = trusted ? "" : "/proc/self/exe"}; }

void add_trusted(CLI::App& app, bool& trusted) {
  app.add_flag("--trusted-hdf5", trusted,
               "Read HDF5 in this process, without limits: for files that you trust");
}

void require_output(const std::string& path, const Inputs& inputs) {
  const std::filesystem::path target(path);
  const auto folder = target.has_parent_path() ? target.parent_path() : ".";
  require(target.has_filename(), "cannot write '{}': it names no file", path);
  std::error_code error;
  if (std::filesystem::is_directory(target, error)) {
    fail(ErrorCode::io, "cannot write {}: it is a directory", path);
  }
  if (std::filesystem::exists(target, error) && !std::filesystem::is_regular_file(target, error)) {
    fail(ErrorCode::io, "cannot write {}: it is a device or pipe, not a file", path);
  }
  for (const auto& [option, input] : inputs) {
    if (input.empty()) continue;
    const auto other = io::parse_data_name(input).path;
    const bool same = std::filesystem::equivalent(target, other, error) ||
                      std::filesystem::absolute(target).lexically_normal() ==
                          std::filesystem::absolute(other).lexically_normal();
    require(!same, "cannot write {}: it is also {}, which would be lost", path, option);
  }
  if (::access(folder.c_str(), W_OK | X_OK) != 0) {
    fail(ErrorCode::io, "cannot write {}: {}: {}", path, folder.string(), std::strerror(errno));
  }
}

void require_ids_output(const std::string& path, const Inputs& inputs) {
  const FileKind kind = file_kind(path);
  require(kind == FileKind::ids || kind == FileKind::npy,
          "{} is no name for ids: its extension must be .ibin, .ivecs or .npy", path);
  require_output(path, inputs);
}

void require_vectors_output(const std::string& path, const Inputs& inputs) {
  const FileKind kind = file_kind(path);
  require(
      kind == FileKind::vectors || kind == FileKind::npy,
      "{} is no name for vectors: its extension must be .fbin, .f16bin, .i8bin, .u8bin, .fvecs, "
      ".bvecs or .npy",
      path);
  require_output(path, inputs);
}

}  // namespace keyseek::cli
