/// Measuring points of indexes in turns, and writing a row for each.
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <vector>

#include "cli/console.hpp"
#include "cli/options.hpp"

namespace keyseek::cli {

struct SweepOptions {
  ConsoleOptions console;
  DataOptions data;
  std::string out, train;
  std::vector<std::string> indexes = {"flat", "sketch", "projection"};
  ProjectionParams params;
  std::size_t k = 100;
  std::size_t points = 0;       ///< of the grid; 0: all
  std::size_t repeats = 3;      ///< rounds
  std::size_t cold_steps = 64;  ///< steps that are evicted and timed for a cold row
  std::optional<int> pin;       ///< CPU that searches
  bool cold = false, no_warm = false, single = false, use_lists = false;
  int threads = 1;

  void validate() const;  ///< throws Error
};

/// Sweeps and reports on stdout.
void run_sweep(const SweepOptions& options);

}  // namespace keyseek::cli
