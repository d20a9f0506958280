/// The rows of a sweep: their fields, in which order, and which of them tell one from another.
#pragma once

#include <string_view>
#include <vector>

#include "sweep/contender.hpp"
#include "sweep/result_file.hpp"

namespace keyseek::sweep {

/// What the rows of one command hold, beyond what all begin with.
struct RowStyle {
  RowKind kind;                            ///< what a file of them holds
  std::vector<std::string_view> identity;  ///< behind what was measured
  std::vector<std::string_view> notes;     ///< at the end
  bool novel;         ///< whether params have the dial `novel`, which no sweep uses
  bool tuned_always;  ///< whether an index without dials has the field `tuned_for`
};
[[nodiscard]] const RowStyle& sweep_rows();  ///< of `keyseek sweep`
[[nodiscard]] const RowStyle& bench_rows();  ///< of `python -m keyseek.bench`

/// A row in the making: one point of one contender.
struct Trial {
  const Contender* contender = nullptr;
  const Built* built = nullptr;
  Point point = {};
  bool cold = false;
  Json identity = {};
  double recall = 0;
  std::vector<Sample> samples = {};  ///< one per round, without ids
  bool done = false;                 ///< it has its row

  /// Median over the rounds.
  [[nodiscard]] double step_time() const;
};

/// The fields that tell one row from another.
[[nodiscard]] Json identity_of(const RowStyle& style, const Problem& problem,
                               const Contender& contender, const Point& point, bool cold);

/// Times are medians over the rounds, the rest is of the first.
[[nodiscard]] Json row_of(const RowStyle& style, const Trial& trial);

/// The mean of the middle two where their number is even.
[[nodiscard]] double median(std::vector<double> values);

}  // namespace keyseek::sweep
