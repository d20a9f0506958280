/// What the user sees: reports on stdout, progress on stderr.
///
///     ConsoleOptions console;
///     add_options(*app, console);
///     work(execution(console, threads));
///     print_report({{"keys", 6528}, {"dim", 64}}, console);
#pragma once

#include <CLI/CLI.hpp>
#include <cstdio>
#include <string>
#include <string_view>

#include "keyseek/execution.hpp"
#include "sweep/json.hpp"

namespace keyseek::cli {

using sweep::dump;
using sweep::Json;

struct ConsoleOptions {
  bool json = false;
  bool quiet = false;
  bool progress = false;
};

void add_options(CLI::App& app, ConsoleOptions& console);

/// Threads and a progress function that ends the work after Ctrl-C. The bar is drawn where
/// stderr is a terminal, or always with --progress, never with --quiet.
[[nodiscard]] Execution execution(const ConsoleOptions& console, int threads);

/// Whether it arrives, the end of the tool asks (check_output in main.cpp).
void write_to(std::FILE* stream, std::string_view text) noexcept;

/// As text for people: scalars one per line, arrays of objects as tables.
[[nodiscard]] std::string to_text(const Json& report);
/// What was done without being asked for: a line on stderr, nothing with --quiet.
void note(const ConsoleOptions& console, std::string_view text);
/// To stdout, as text or with --json as one JSON object; nothing with --quiet.
void print_report(const Json& report, const ConsoleOptions& console);

}  // namespace keyseek::cli
