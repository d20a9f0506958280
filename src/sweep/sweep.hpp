/// Measuring points of indexes in turns, and writing a row for each.
///
///     Sweep sweep(problem, {.rounds = 3}, "R.jsonl");
///     sweep.add(index_contender(sweep.problem(), {.kind = "flat"}), run);
///     sweep.measure();
#pragma once

#include <cstddef>
#include <deque>
#include <functional>
#include <limits>
#include <optional>
#include <string>
#include <vector>

#include "sweep/contender.hpp"
#include "sweep/row.hpp"

namespace keyseek::sweep {

struct SweepParams {
  RowStyle style = sweep_rows();
  std::size_t rounds = 3;
  bool cold = false;            ///< measure what can be also with caches cold between steps
  std::optional<int> pin = {};  ///< CPU that searches: the calling thread, and what it starts
  /// A run that takes longer ends its contender's sweep.
  double patience_s = std::numeric_limits<double>::infinity();
  /// Measure long runs, and points that another one of the same contender clearly beats, in the
  /// first round only.
  bool thrifty = false;
};

/// Throws Error unless this thread may run on the CPU.
void require_cpu(int cpu);

/// Takes a line that says what happens.
using Log = std::function<void(const std::string& line)>;

/// Points that have a row in the file of results are skipped.
class Sweep {
 public:
  /// Opens the file. Throws Error as ResultFile does, and for a CPU that may not be used.
  Sweep(Problem problem, SweepParams params, std::string out, Log log = {});
  Sweep(const Sweep&) = delete;
  Sweep& operator=(const Sweep&) = delete;

  [[nodiscard]] const Problem& problem() const { return problem_; }

  /// Builds the contender when it has points without rows.
  void add(Contender contender, const Execution& run);
  /// Measures every point once per round, so that whatever slows the machine down slows all of
  /// them; appends a row as soon as a point is done. Returns the new rows.
  std::vector<Json> measure(const Progress& progress = {});
  /// Points that had rows.
  [[nodiscard]] std::size_t skipped() const { return skipped_; }

 private:
  [[nodiscard]] std::vector<Trial> lacking(const Contender& contender) const;
  void take_turns(const std::vector<Trial*>& due, std::size_t round, const Progress& progress);
  [[nodiscard]] std::string take_turn(Trial& trial);
  void finish(Trial& trial);
  void log(const std::string& line) const;

  Problem problem_;
  SweepParams params_;
  Log log_;
  ResultFile results_;
  std::deque<Contender> contenders_;  // deques: trials look at their elements
  std::deque<Built> built_;
  std::vector<Trial> trials_;
  std::vector<Json> rows_;
  std::size_t skipped_ = 0;
};

/// Whether another trial of the same contender finds as much in clearly less time.
[[nodiscard]] bool is_beaten(const Trial& trial, const std::vector<Trial*>& others);
/// A long run has averaged enough, and a point that is beaten decides nothing.
[[nodiscard]] bool needs_repeating(const Trial& trial, const std::vector<Trial*>& others);

}  // namespace keyseek::sweep
