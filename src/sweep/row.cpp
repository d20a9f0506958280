// Builds the rows of a sweep out of what was asked, built and measured.
#include "sweep/row.hpp"

#include <algorithm>
#include <array>
#include <initializer_list>
#include <utility>

namespace keyseek::sweep {
namespace {

using Names = std::vector<std::string_view>;

constexpr std::array kHead = {"dataset", "index", "params", "k", "group"};
constexpr std::array kMeasured = {"recall_at_k",     "scanned_fraction", "bytes_read",
                                  "us_per_step_p50", "us_per_step_p95",  "us_per_query",
                                  "build_s",         "index_bytes",      "unreachable"};

/// Adds those of the fields that `from` has, in the order of `names`.
template <class Fields>
void take(Json& row, const Json& from, const Fields& names) {
  for (const auto& name : names) {
    if (const auto field = from.find(std::string(name)); field != from.end()) {
      row[std::string(name)] = *field;
    }
  }
}

template <class Value>
Json or_null(const std::optional<Value>& value) {
  return value ? Json(*value) : Json();
}

/// The median over the rounds of what every sample has or none.
Json median_of(const std::vector<Sample>& samples, std::optional<double> Sample::*what) {
  if (!(samples.front().*what)) return {};
  std::vector<double> values;
  values.reserve(samples.size());
  for (const Sample& sample : samples) values.push_back(*(sample.*what));
  return median(std::move(values));
}

double median_of(const std::vector<Sample>& samples, double Sample::*what) {
  std::vector<double> values;
  values.reserve(samples.size());
  for (const Sample& sample : samples) values.push_back(sample.*what);
  return median(std::move(values));
}

Json params_of(const RowStyle& style, const Point& point) {
  if (!point.dials) return point.params;
  Json params = to_json(*point.dials);
  if (!style.novel) params.erase("novel");
  return params;
}

}  // namespace

const RowStyle& sweep_rows() {
  static const RowStyle style = {
      .kind = {"row of a sweep", {"dataset", "index", "params", "k", "group", "recall_at_k"}},
      .identity = {"isa", "threads", "cache", "version", "warm", "keys", "dim", "queries", "build",
                   "share", "shift", "sink", "window", "horizon", "seed"},
      .notes = {"expanded", "tuned_for", "build_threads"},
      .novel = true,
      .tuned_always = true};
  return style;
}

const RowStyle& bench_rows() {
  static const RowStyle style = {
      .kind = {},
      .identity = {"keys", "dim", "queries", "share", "shift", "sink", "window", "horizon", "seed",
                   "cache", "warm", "isa", "threads", "version"},
      .notes = {"expanded", "build_threads", "rounds", "extra_bytes", "tuned_for"},
      .novel = false,
      .tuned_always = false};
  return style;
}

double Trial::step_time() const { return median_of(samples, &Sample::us_per_step_p50); }

Json identity_of(const RowStyle& style, const Problem& problem, const Contender& contender,
                 const Point& point, bool cold) {
  Json fields = {{"dataset", problem.name},
                 {"index", contender.index},
                 {"params", params_of(style, point)},
                 {"k", problem.k},
                 {"group", problem.group},
                 {"keys", problem.data.keys.rows()},
                 {"dim", problem.data.keys.cols()},
                 {"queries", problem.data.queries.rows()},
                 {"cache", cold ? "cold" : "hot"}};
  fields.update(problem.view);
  fields.update(contender.identity);
  Json identity = Json::object();
  take(identity, fields, kHead);
  take(identity, fields, style.identity);
  return identity;
}

Json row_of(const RowStyle& style, const Trial& trial) {
  const Sample& first = trial.samples.front();
  const Built& built = *trial.built;
  Json fields = {{"recall_at_k", trial.recall},
                 {"scanned_fraction", or_null(first.scanned_fraction)},
                 {"bytes_read", or_null(first.bytes_read)},
                 {"us_per_step_p50", trial.step_time()},
                 {"us_per_step_p95", median_of(trial.samples, &Sample::us_per_step_p95)},
                 {"us_per_query", median_of(trial.samples, &Sample::us_per_query)},
                 {"build_s", built.seconds},
                 {"index_bytes", built.bytes},
                 {"unreachable", or_null(built.unreachable)},
                 {"expanded", or_null(first.expanded)},
                 {"build_threads", built.threads},
                 {"rounds", trial.samples.size()}};
  if (built.extra_bytes) fields["extra_bytes"] = *built.extra_bytes;
  if (trial.point.dials || style.tuned_always) fields["tuned_for"] = trial.point.tuned_for;
  Json row;
  take(row, trial.identity, kHead);
  take(row, fields, kMeasured);
  row.update(trial.identity);
  take(row, fields, style.notes);
  return row;
}

double median(std::vector<double> values) {
  const std::size_t half = values.size() / 2;
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>(half);
  std::nth_element(values.begin(), middle, values.end());
  if (values.size() % 2 == 1) return *middle;
  return (*std::max_element(values.begin(), middle) + *middle) / 2;
}

}  // namespace keyseek::sweep
