// Plans the trials of a sweep, measures them in rounds and appends their rows.
#include "sweep/sweep.hpp"

#include <fmt/format.h>
#include <sched.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <iterator>
#include <utility>

#include "base/fail.hpp"
#include "keyseek/knn.hpp"

namespace keyseek::sweep {
namespace {

constexpr double kLongRunS = 2.0;
constexpr double kClearlySlower = 1.25;

/// Not before the builds: threads that are started later inherit it.
void pin_this_thread(int cpu) {
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(static_cast<std::size_t>(cpu), &set);
  if (::sched_setaffinity(0, sizeof(set), &set) != 0) {
    fail(ErrorCode::invalid_argument, "--pin is {}: {}", cpu, std::strerror(errno));
  }
}

SweepParams checked(SweepParams params) {
  if (params.pin) require_cpu(*params.pin);
  return params;
}

/// A contender's peers are those of its own name: variants of one library compete.
bool same_race(const Trial& a, const Trial& b) {
  return a.identity["index"] == b.identity["index"] && a.cold == b.cold;
}

std::string describe(const Trial& trial) {
  std::string text = trial.contender->index;
  for (const auto& [name, value] : trial.identity["params"].items()) {
    text += fmt::format(" {}={}", name, dump(value));
  }
  return fmt::format("{}{}: recall {:.4f}, {:.0f} us per step", text, trial.cold ? " cold" : "",
                     trial.recall, trial.samples.back().us_per_step_p50);
}

}  // namespace

void require_cpu(int cpu) {
  cpu_set_t mine;
  const bool may_use = cpu >= 0 && cpu < CPU_SETSIZE &&
                       ::sched_getaffinity(0, sizeof(mine), &mine) == 0 &&
                       CPU_ISSET(static_cast<std::size_t>(cpu), &mine);
  require(may_use, "--pin is {}, a CPU that this process may not use", cpu);
}

Sweep::Sweep(Problem problem, SweepParams params, std::string out, Log log)
    : problem_(std::move(problem)),
      params_(checked(std::move(params))),
      log_(std::move(log)),
      results_(std::move(out), params_.style.kind) {}

void Sweep::log(const std::string& line) const {
  if (log_) log_(line);
}

// --- planning ----------------------------------------------------------------------------

/// The trials that have no row.
std::vector<Trial> Sweep::lacking(const Contender& contender) const {
  std::vector<Trial> found;
  for (const Point& point : contender.points) {
    for (const bool cold : {false, true}) {
      if (cold && !(params_.cold && contender.can_be_cold)) continue;
      Trial trial{.contender = &contender,
                  .point = point,
                  .cold = cold,
                  .identity = identity_of(params_.style, problem_, contender, point, cold)};
      if (!results_.has(trial.identity)) found.push_back(std::move(trial));
    }
  }
  return found;
}

void Sweep::add(Contender added, const Execution& run) {
  Contender& contender = contenders_.emplace_back(std::move(added));
  // Points that tuning finds are known only once the index is built. They come first in every
  // round, so where all others have their rows, they have theirs.
  std::vector<Trial> trials = lacking(contender);
  if (trials.empty()) {
    log(fmt::format("{}: all rows are there", contender.index));
  } else {
    try {
      built_.push_back(contender.build(run, contender.points));
    } catch (const ContenderFailed& failure) {
      log(fmt::format("warning: {}; it is left out", failure.what()));
      return;
    }
    log(fmt::format("{}: built in {:.1f} s", contender.index, built_.back().seconds));
    trials = lacking(contender);
  }
  const std::size_t caches = params_.cold && contender.can_be_cold ? 2 : 1;
  skipped_ += contender.points.size() * caches - trials.size();
  for (Trial& trial : trials) {
    trial.built = &built_.back();
    trials_.push_back(std::move(trial));
  }
}

// --- measuring ---------------------------------------------------------------------------

std::vector<Json> Sweep::measure(const Progress& progress) {
  if (params_.pin) pin_this_thread(*params_.pin);
  std::vector<Trial*> due;
  for (Trial& trial : trials_) due.push_back(&trial);
  for (std::size_t round = 1; round <= params_.rounds; ++round) {
    take_turns(due, round, progress);
    std::erase_if(due, [](const Trial* trial) { return trial->done || trial->samples.empty(); });
    if (round > 1 || !params_.thrifty) continue;
    std::vector<Trial*> decided;
    std::copy_if(due.begin(), due.end(), std::back_inserter(decided),
                 [&](const Trial* trial) { return !needs_repeating(*trial, due); });
    for (Trial* trial : decided) finish(*trial);
    std::erase_if(due, [](const Trial* trial) { return trial->done; });
  }
  for (Trial* trial : due) finish(*trial);  // what failed in the last round was measured before
  return std::move(rows_);
}

/// Measures each. Points come in order of effort: a contender that fails or runs out of patience
/// gets no further.
void Sweep::take_turns(const std::vector<Trial*>& due, std::size_t round,
                       const Progress& progress) {
  std::vector<std::pair<const Contender*, std::string>> ended;  // and why; empty: it was said
  std::size_t done = (round - 1) * trials_.size();
  for (Trial* trial : due) {
    const auto end = std::find_if(ended.begin(), ended.end(), [&](const auto& entry) {
      return entry.first == trial->contender;
    });
    if (end != ended.end()) {
      if (!end->second.empty()) {
        log(fmt::format("warning: {}: its more thorough points are left out", end->second));
      }
      end->second.clear();
      continue;
    }
    const std::size_t before = trial->samples.size();
    std::string reason = take_turn(*trial);
    if (trial->samples.size() > before) {
      log(fmt::format("round {} of {}: {}", round, params_.rounds, describe(*trial)));
      if (round == params_.rounds) finish(*trial);
    }
    if (!reason.empty()) ended.emplace_back(trial->contender, std::move(reason));
    if (progress) (void)progress("measuring", ++done, trials_.size() * params_.rounds);
  }
  for (const auto& [contender, reason] : ended) {
    if (!reason.empty()) log(fmt::format("note: {}, at its last point", reason));
  }
}

/// Returns why its contender's sweep ends with it, or nothing.
std::string Sweep::take_turn(Trial& trial) {
  try {
    trial.samples.push_back(trial.contender->measure(trial.point, trial.cold));
  } catch (const ContenderFailed& failure) {
    return failure.what();
  }
  Sample& sample = trial.samples.back();
  if (trial.samples.size() == 1) {
    trial.recall = recall(problem_.truth, sample.ids, problem_.data.keys.rows());
  }
  sample.ids = {};
  if (sample.seconds <= params_.patience_s) return "";
  return fmt::format("{} took longer than {:g} s", trial.contender->index, params_.patience_s);
}

void Sweep::finish(Trial& trial) {
  Json row = row_of(params_.style, trial);
  results_.append(row);
  rows_.push_back(std::move(row));
  trial.done = true;
}

bool is_beaten(const Trial& trial, const std::vector<Trial*>& others) {
  return std::any_of(others.begin(), others.end(), [&](const Trial* other) {
    return same_race(trial, *other) && other->recall >= trial.recall &&
           other->step_time() * kClearlySlower < trial.step_time();
  });
}

bool needs_repeating(const Trial& trial, const std::vector<Trial*>& others) {
  const bool is_long = trial.samples.front().seconds > kLongRunS && !trial.cold;
  return !is_long && !is_beaten(trial, others);
}

}  // namespace keyseek::sweep
