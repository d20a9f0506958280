/// A search problem on the command line: all of it in one file (--data), or a file for each part.
#pragma once

#include <CLI/CLI.hpp>
#include <cstddef>
#include <string>
#include <vector>

#include "cli/options.hpp"

namespace keyseek::cli {

class ProblemOptions {
 public:
  DataOptions data;
  std::string keys, train;
  Metric metric = Metric::ip;

  /// "--data", "--keys", "--train", "--group", "--metric" and, with `questions`, "--queries" and
  /// "--truth".
  void add(CLI::App& app, bool questions);
  /// Throws Error unless the options say what the keys are, and fit each other.
  void check() const;
  /// Files given take the place of what --data has. With queries, all is made such that inner
  /// products are by the metric; a truth by another is left out. Where there are no queries, some
  /// of the training queries are asked instead; what happens without being asked for is added to
  /// `notes`.
  [[nodiscard]] io::Benchmark read(std::size_t k, const Execution& run,
                                   std::vector<std::string>& notes) const;
  /// What holds the keys, and the queries where these have a file, without folders.
  [[nodiscard]] std::string short_name() const;
  /// What is read, for `require_output`.
  [[nodiscard]] Inputs inputs() const;

 private:
  void ask(io::Benchmark& data, std::size_t k, std::vector<std::string>& notes) const;

  bool asks_ = false;
  std::string queries_, truth_;
  std::size_t group_ = 1;
};

}  // namespace keyseek::cli
