/// Options that several commands share.
#pragma once

#include <CLI/CLI.hpp>
#include <cstddef>
#include <string>
#include <utility>
#include <vector>

#include "cli/console.hpp"
#include "keyseek/index.hpp"
#include "keyseek/io.hpp"

namespace keyseek::cli {

/// Accepts digits only: CLI11 would take -1 for a huge number, and 010 for eight.
[[nodiscard]] CLI::Validator whole_number();

template <class Number>
CLI::Option* add_count(CLI::App& app, const std::string& name, Number& value,
                       const std::string& description) {
  return app.add_option(name, value, description)
      ->transform(whole_number())
      ->type_name("N")
      ->capture_default_str();
}

/// An option that takes one of the names.
template <class Value>
CLI::Option* add_choice(CLI::App& app, const std::string& name, Value& value,
                        const std::vector<std::pair<std::string, Value>>& names,
                        const std::string& description) {
  std::string choices, preset;
  for (const auto& [text, meaning] : names) {
    choices += (choices.empty() ? "" : "|") + text;
    if (meaning == value) preset = text;
  }
  const auto take = [&value, names, name, choices](const std::string& given) {
    for (const auto& [text, meaning] : names) {
      if (text != given) continue;
      value = meaning;
      return;
    }
    throw CLI::ValidationError(name, "'" + given + "' is none of " + choices);
  };
  return app.add_option_function<std::string>(name, take, description)
      ->type_name(choices)
      ->default_str(preset);
}

/// "--threads"; 0 is all there are.
CLI::Option* add_threads(CLI::App& app, int& value);

/// "--trusted-hdf5", and what it means: HDF5 files are taken apart by another process of this tool,
/// or by this one.
void add_trusted(CLI::App& app, bool& trusted);
[[nodiscard]] io::Hdf5Access hdf5_access(bool trusted);

/// A "--data" name and, for captures, how it becomes a search problem.
class DataOptions {
 public:
  std::string data;

  CLI::Option* add(CLI::App& app);
  /// Only the options of the decode view.
  void add_view(CLI::App& app);

  [[nodiscard]] bool is_capture() const;
  /// Throws Error when a view option was given for something other than a capture.
  [[nodiscard]] io::DecodeViewParams view(std::size_t k) const;
  [[nodiscard]] io::Benchmark read(std::size_t k, const Execution& run) const;
  /// Who reads HDF5, for files beside the data as well.
  [[nodiscard]] io::Hdf5Access access() const { return hdf5_access(trusted_); }
  /// Name without folders, as results carry it: "gemma.attn.h5:L11/K0".
  [[nodiscard]] std::string short_name() const;

 private:
  io::DecodeViewParams view_;
  bool no_shift_ = false, trusted_ = false;
  std::vector<CLI::Option*> view_options_;
};

/// "--list-method" and the like.
CLI::Option* add_method(CLI::App& app, const std::string& name, KnnMethod& method);

/// The options that were added.
std::vector<CLI::Option*> add_options(CLI::App& app, ProjectionParams& params);
/// A kind of index by its name.
CLI::Option* add_index_kind(CLI::App& app, const std::string& name, IndexKind& kind);
/// Throws Error that names the first of `options`, which are of a projection index, that is given
/// although `where`, an option or a file, is of another kind.
void require_projection(const std::vector<CLI::Option*>& options, IndexKind kind,
                        const std::string& where);
/// "--metric": ip, l2 or cosine.
CLI::Option* add_metric(CLI::App& app, Metric& metric);
/// "--target-recall", of a projection index.
CLI::Option* add_target_recall(CLI::App& app, double& target_recall);
/// Every parameter by the name of its option.
[[nodiscard]] Json to_json(const ProjectionParams& params);

/// What else a command reads or writes: option, and file or data name (empty: not given).
using Inputs = std::vector<std::pair<std::string, std::string>>;
/// Throws Error unless a file can be made at `path`, which is none of `inputs`; called before long
/// work.
void require_output(const std::string& path, const Inputs& inputs);
/// The same for a file whose extension must be one that ids, or vectors, are written to.
void require_ids_output(const std::string& path, const Inputs& inputs);
void require_vectors_output(const std::string& path, const Inputs& inputs);

}  // namespace keyseek::cli
