/// Prints reports to stdout and progress to stderr.
#include "cli/console.hpp"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <iterator>
#include <memory>
#include <utility>
#include <vector>

#include "cli/interrupt.hpp"

namespace keyseek::cli {
namespace {

// --- progress --------------------------------------------------------------------------

/// A line on stderr that is rewritten, and gone when the work is done.
class ProgressBar {
 public:
  ~ProgressBar() {
    if (drawn_) clear();
  }

  void show(std::string_view stage, std::size_t done, std::size_t total) {
    const auto now = std::chrono::steady_clock::now();
    const bool news = stage != stage_ || done == total;
    if (!news && now - last_ < std::chrono::milliseconds(100)) return;
    last_ = now;
    stage_ = stage;
    constexpr std::size_t kWidth = 30;
    const std::size_t filled = total == 0 ? kWidth : std::min(done, total) * kWidth / total;
    write_to(stderr, fmt::format("{}{:<20} [{:=<{}}{:<{}}] {}/{}", kRestart, stage, "", filled, "",
                                 kWidth - filled, done, total));
    drawn_ = true;
  }

 private:
  // To the start of the line, and clear it to its end.
  static constexpr std::string_view kRestart = "\r\x1b[K";

  static void clear() { write_to(stderr, kRestart); }

  std::string stage_;
  std::chrono::steady_clock::time_point last_;
  bool drawn_ = false;
};

// --- reports ---------------------------------------------------------------------------

std::string scalar_text(const Json& value) {
  if (value.is_null()) return "-";
  if (value.is_boolean()) return value.get<bool>() ? "yes" : "no";
  if (value.is_number_float()) return fmt::format("{:.5g}", value.get<double>());
  if (value.is_string()) return value.get<std::string>();
  return dump(value);  // whole numbers and lists of scalars
}

bool is_table(const Json& value) {
  return value.is_array() && (value.empty() || value.front().is_object());
}

using Line = std::pair<std::string, std::string>;

/// Scalars of `report` by name; those of an object inside it by "object.name".
void collect_lines(const Json& report, const std::string& prefix, std::vector<Line>& lines) {
  for (const auto& [name, value] : report.items()) {
    if (value.is_object()) {
      collect_lines(value, prefix + name + ".", lines);
    } else if (!is_table(value)) {
      lines.emplace_back(prefix + name, scalar_text(value));
    }
  }
}

std::string table_text(const Json& rows) {
  std::vector<Line> cells;
  std::vector<std::vector<std::string>> table(1);
  collect_lines(rows.front(), "", cells);
  for (const Line& cell : cells) table[0].push_back(cell.first);
  for (const Json& row : rows) {
    cells.clear();
    collect_lines(row, "", cells);
    std::vector<std::string> texts;
    texts.reserve(cells.size());
    for (const Line& cell : cells) texts.push_back(cell.second);
    texts.resize(table[0].size());
    table.push_back(std::move(texts));
  }
  std::string text;
  for (const auto& row : table) {
    for (std::size_t column = 0; column < row.size(); ++column) {
      std::size_t width = 0;
      for (const auto& other : table) width = std::max(width, other[column].size());
      fmt::format_to(std::back_inserter(text), "  {:>{}}", row[column], width);
    }
    text += '\n';
  }
  return text;
}

}  // namespace

void add_options(CLI::App& app, ConsoleOptions& console) {
  app.add_flag("--json", console.json, "Print the report as one JSON object");
  app.add_flag("--quiet", console.quiet, "Print nothing but errors");
  app.add_flag("--progress", console.progress, "Show progress even where stderr is no terminal");
}

Execution execution(const ConsoleOptions& console, int threads) {
  Execution run;
  run.threads = threads;
  run.validate();
  const bool show = !console.quiet && (console.progress || ::isatty(STDERR_FILENO) == 1);
  auto bar = show ? std::make_shared<ProgressBar>() : nullptr;
  run.progress = [bar](std::string_view stage, std::size_t done, std::size_t total) {
    if (bar) bar->show(stage, done, total);
    return !interrupted();
  };
  return run;
}

std::string to_text(const Json& report) {
  std::vector<Line> lines;
  collect_lines(report, "", lines);
  std::size_t width = 0;
  for (const Line& line : lines) width = std::max(width, line.first.size());
  std::string text;
  for (const Line& line : lines) {
    fmt::format_to(std::back_inserter(text), "{:<{}}  {}\n", line.first, width, line.second);
  }
  for (const auto& [name, value] : report.items()) {
    if (is_table(value) && !value.empty()) {
      fmt::format_to(std::back_inserter(text), "{}\n{}", name, table_text(value));
    }
  }
  return text;
}

void write_to(std::FILE* stream, std::string_view text) noexcept {
  std::fwrite(text.data(), 1, text.size(), stream);
}

void note(const ConsoleOptions& console, std::string_view text) {
  if (!console.quiet) write_to(stderr, fmt::format("keyseek: note: {}\n", text));
}

void print_report(const Json& report, const ConsoleOptions& console) {
  if (console.quiet) return;
  const std::string text = console.json ? dump(report, 2) + "\n" : to_text(report);
  write_to(stdout, text);
}

}  // namespace keyseek::cli
