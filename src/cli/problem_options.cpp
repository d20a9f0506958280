/// Puts a search problem together from the files that the command line names.
#include "cli/problem_options.hpp"

#include <algorithm>
#include <filesystem>

#include "base/fail.hpp"
#include "cli/problem.hpp"

namespace keyseek::cli {

void ProblemOptions::add(CLI::App& app, bool questions) {
  asks_ = questions;
  data.add(app);
  app.add_option("--keys", keys, "Keys: vectors, instead of --data")->type_name("FILE");
  app.add_option("--train", train,
                 "Training queries: vectors, like the queries to come; instead of the data's")
      ->type_name("FILE");
  add_count(app, "--group", group_, "Consecutive queries that form a step, with --keys");
  add_metric(app, metric);
  if (!questions) return;
  app.add_option("--queries", queries_, "Queries: vectors; instead of the data's")
      ->type_name("FILE");
  app.add_option("--truth", truth_, "Ids of the best keys of each query; computed where missing")
      ->type_name("FILE");
}

void ProblemOptions::check() const {
  require(data.data.empty() != keys.empty(), "give either --data or --keys, {} are given",
          keys.empty() ? "none of them" : "both");
  require(group_ == 1 || !keys.empty(),
          "--group is {}, but --data says itself which queries form a step", group_);
  require(group_ >= 1 && group_ <= 64, "--group is {}, must be in [1, 64]", group_);
  require(!asks_ || keys.empty() || !queries_.empty() || !train.empty(),
          "--keys is given without --queries and --train: there is nothing to ask");
  require(truth_.empty() || keys.empty() || !queries_.empty(),
          "--truth is {}, but --queries is missing, whose truth it is", truth_);
}

io::Benchmark ProblemOptions::read(std::size_t k, const Execution& run,
                                   std::vector<std::string>& notes) const {
  io::Benchmark b;
  io::PartNames names;
  if (keys.empty()) {
    b = data.read(k, run);
  } else {
    b.keys = io::read_vectors(keys, data.access());
    b.group = group_;
    names.keys = keys;
  }
  if (!train.empty()) {
    replace_training(b, train, data.access());
    names.train = train;
  }
  if (!queries_.empty()) {
    b.queries = read_queries(queries_, data.access());
    b.truth_ids = {};
    b.truth_scores = {};
    names.queries = queries_;
  }
  if (!truth_.empty()) {
    b.truth_ids = io::read_ids(truth_, data.access());
    require(b.truth_ids.cols() >= k, "{} has {} ids per query, but k is {}", truth_,
            b.truth_ids.cols(), k);
    b.truth_scores = {};
    names.truth = truth_;
  }
  if (!keys.empty() || !train.empty() || !queries_.empty() || !truth_.empty())
    io::require_matching(b, names);
  if (metric != Metric::ip) {
    b.learn_ids = {};
    if (truth_.empty()) b.truth_ids = {};
    b.truth_scores = {};
    if (asks_) (void)by_metric(b, metric);
  }
  if (asks_) ask(b, k, notes);
  return b;
}

void ProblemOptions::ask(io::Benchmark& b, std::size_t k, std::vector<std::string>& notes) const {
  require(k <= b.keys.rows(), "--k is {}, but there are only {} keys", k, b.keys.rows());
  if (b.queries.empty()) {
    const std::size_t all = b.learn.rows();
    ask_some_of_training(b);
    notes.push_back(
        fmt::format("no --queries: {} of the {} training queries are asked, and not trained with",
                    b.queries.rows(), all));
  }
  if (b.truth_ids.cols() < k) {
    notes.push_back(fmt::format("no --truth: the {} best of {} keys are computed for {} queries", k,
                                b.keys.rows(), b.queries.rows()));
  }
}

std::string ProblemOptions::short_name() const {
  const auto base = [](const std::string& path) {
    return std::filesystem::path(path).filename().string();
  };
  const std::string name = keys.empty() ? data.short_name() : base(keys);
  const std::string asked = queries_.empty() ? name : name + ", " + base(queries_);
  return metric == Metric::ip ? asked : fmt::format("{}, {}", asked, to_string(metric));
}

Inputs ProblemOptions::inputs() const {
  return {{"--data", data.data},
          {"--keys", keys},
          {"--train", train},
          {"--queries", queries_},
          {"--truth", truth_}};
}

}  // namespace keyseek::cli
