/// The commands of the tool, one file each.
#pragma once

#include <CLI/CLI.hpp>
#include <functional>

namespace keyseek::cli {

/// A subcommand and what it does once the command line is understood.
struct Command {
  CLI::App* app = nullptr;
  std::function<void()> run;
};

[[nodiscard]] Command add_info(CLI::App& tool);
[[nodiscard]] Command add_convert(CLI::App& tool);
[[nodiscard]] Command add_knn(CLI::App& tool);
[[nodiscard]] Command add_build(CLI::App& tool);
[[nodiscard]] Command add_search(CLI::App& tool);
[[nodiscard]] Command add_sweep(CLI::App& tool);
[[nodiscard]] Command add_decode(CLI::App& tool);
[[nodiscard]] Command add_verify(CLI::App& tool);

}  // namespace keyseek::cli
