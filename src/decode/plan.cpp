// The planner: which rule, retriever, recall and tail keep the promise for the least bytes.
#include "decode/plan.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <functional>
#include <numeric>
#include <optional>
#include <utility>

#include "decode/evidence.hpp"
#include "decode/plan_indexes.hpp"
#include "decode/stop.hpp"

namespace keyseek {
namespace {

constexpr std::array<std::size_t, 11> kSizes = {0, 16, 32, 48, 64, 100, 150, 200, 300, 400, 512};
constexpr std::array<double, 9> kBetas = {1, 2, 3, 4, 5, 6, 7, 8, 10};
constexpr std::array<double, 9> kShares = {0.5, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.999};
constexpr std::array<double, 3> kRecalls = {0.95, 0.98, 0.995};
// A sketch costs a second look: taken where it reads less than this share of what a full scan does.
// With more, the scan is as fast or faster.
constexpr double kWorthSketching = 0.7;
// A projection index may miss a key that no query of the prompt wanted: taken where it reads less
// than this share of what a search reads that looks at every key.
constexpr double kWorthMissing = 0.5;
// Rungs beyond the first one that keeps the goal: more keys at a lower recall may cost less.
constexpr std::size_t kFurther = 2;

double mean(const std::vector<std::size_t>& values) {
  return std::accumulate(values.begin(), values.end(), 0.0) / static_cast<double>(values.size());
}

double largest(const std::vector<float>& errors) {
  return errors.empty() ? 0.0 : double{*std::max_element(errors.begin(), errors.end())};
}

bool worth_planning(const PlanInput& input, const DecodeParams& params) {
  if (params.given && params.given->retriever == Retriever::everything) return false;
  return input.tokens.indexed.keys.rows >= std::max<std::size_t>(1, params.least_indexed) &&
         input.positions.size() >= kLeastPositions;
}

double full_bytes(const Tokens::Piece& indexed) {
  return static_cast<double>(indexed.keys.rows * indexed.row_bytes());
}

Planned everything(const PlanInput& input) {
  return {plan_of_everything(input.tokens.indexed), {}, {}};
}

class Planner {
 public:
  Planner(const PlanInput& input, const DecodeParams& params, const Evidence& seen,
          const Execution& run, HeadIndex before)
      : input_(input),
        params_(params),
        seen_(seen),
        keys_(input.tokens.indexed.keys),
        values_(input.tokens.indexed.values),
        goal_(params.safety * params.max_error),
        indexes_(input, params, seen, run, std::move(before)),
        ladder_(ladder()) {}

  Planned make() {
    if (params_.given) return as_given(*params_.given);
    const auto choice = choose();
    if (!choice) return everything(input_);
    return search_for(*choice);
  }

 private:
  /// What the held-out queries saw of a search: their error; per step, bytes read, values included;
  /// keys kept per query. And the largest error of planted ones.
  struct Outcome {
    double error = 0, read = 0, keys = 0, planted = 0;
  };

  struct Found {
    HeadPlan plan;
    Tail tail;
    Outcome outcome;
  };

  /// A rung of the ladder of stop rules and a tail of C vectors, or none.
  struct Choice {
    std::size_t rung = 0;
    std::size_t tail = 0;
  };

  /// Stop rules to choose from, by rising cost.
  [[nodiscard]] std::vector<StopRule> ladder() const {
    const std::size_t most = seen_.held_seen.top_ids.cols();
    const std::size_t least = std::min(params_.least_k, most);
    std::vector<StopRule> rungs;
    if (params_.rule == Rule::top_k) {
      for (const std::size_t k : kSizes)
        if (k >= least && k <= most) rungs.push_back({.k = k});
      return rungs;
    }
    for (const double limit : params_.rule == Rule::dipr ? kBetas : kShares)
      rungs.push_back({.rule = params_.rule, .k = most, .limit = limit, .least = least});
    return rungs;
  }

  /// How many of the best keys of each observed query a rule keeps.
  [[nodiscard]] std::vector<std::size_t> kept(const Observations& seen,
                                              const StopRule& stop) const {
    std::vector<std::size_t> counts;
    for (std::size_t q = 0; q < seen.queries.rows(); ++q)
      counts.push_back(kept_by(stop, {seen.top_scores.row(q), seen.top_scores.cols()}, seen.logits,
                               seen.exact.best[q], seen.exact.lse[q]));
    return counts;
  }

  /// The fewest keys that keep the goal, found exactly; nothing when none does, or reading
  /// everything is cheaper. With the tail where it does not ask for more of them: it is little to
  /// read, and what a head is off by less than the goal is what a model's answer does not lose.
  [[nodiscard]] std::optional<Choice> choose() {
    std::optional<Choice> best;
    for (const std::size_t tail : {params_.tail_vectors, std::size_t{0}}) {
      if (best && (best->tail == 0 || best->rung == 0)) break;
      const auto rung = lowest_rung(tail);
      if (rung && (!best || *rung < best->rung)) best = {*rung, tail};
    }
    if (best && bytes(*best) >= full_bytes(input_.tokens.indexed)) best.reset();
    return best;
  }

  /// By bisection: more keys, less error.
  [[nodiscard]] std::optional<std::size_t> lowest_rung(std::size_t tail) {
    std::size_t low = 0, high = ladder_.size();
    while (low < high) {
      const std::size_t middle = (low + high) / 2;
      if (keeps_goal(ladder_[middle], fit(ladder_[middle], tail))) {
        high = middle;
      } else {
        low = middle + 1;
      }
    }
    if (high == ladder_.size()) return std::nullopt;
    return high;
  }

  [[nodiscard]] Tail fit(const StopRule& stop, std::size_t vectors) {
    if (vectors == 0) return {};
    const TailParams tail = {.vectors = vectors, .seed = params_.seed};
    const std::vector<std::size_t> counts = kept(seen_.train_seen, stop);
    if (clusters_.empty()) clusters_ = Tail::cluster(seen_.train_seen, keys_, counts, tail);
    return Tail::fit(seen_.train_seen, keys_, values_, counts, tail, &clusters_);
  }

  [[nodiscard]] double exact_error(const StopRule& stop, const Tail& tail) const {
    return seen_.error(
        attention_errors(seen_.held_seen, values_, kept(seen_.held_seen, stop), tail),
        params_.confidence);
  }

  /// With exact keys.
  [[nodiscard]] bool keeps_goal(const StopRule& stop, const Tail& tail) const {
    return exact_error(stop, tail) <= goal_ &&
           answers_planted(largest(attention_errors(seen_.planted_seen, values_,
                                                    kept(seen_.planted_seen, stop), tail)));
  }

  /// Of a search. What a projection index misses is the choice of who set may_miss.
  [[nodiscard]] bool keeps_goal(const HeadPlan& plan, const Outcome& outcome) const {
    return outcome.error <= goal_ &&
           (plan.retriever == Retriever::projection || answers_planted(outcome.planted));
  }

  /// What a search of the caller's own misses is the caller's choice. Errors may exceed 1.
  [[nodiscard]] bool answers_planted(double error) const {
    return params_.index || params_.max_planted_error >= 1 || error <= params_.max_planted_error;
  }

  /// Estimate, to compare choices: what a search reads is not known before there is one.
  [[nodiscard]] double bytes(const Choice& choice) const {
    const StopRule& stop = ladder_[choice.rung];
    const auto group = static_cast<double>(input_.group), n = static_cast<double>(keys_.rows);
    const double searched = stop.k == 0     ? 0.0
                            : may_project() ? n * 0.03 + 4.0 * static_cast<double>(stop.k)
                                            : n;
    const double tail = 2.0 * static_cast<double>(choice.tail) *
                        static_cast<double>(keys_.cols + input_.group * values_.rows.cols);
    return searched * static_cast<double>(keys_.cols + sizeof(float)) +
           group * mean(kept(seen_.held_seen, stop)) *
               static_cast<double>(input_.tokens.indexed.row_bytes()) +
           tail;
  }

  /// An answer may hang on a key that no query of the prompt wanted, and no mean shows that: a plan
  /// looks at every key, unless it is told that it need not.
  [[nodiscard]] bool may_project() const {
    return params_.may_miss && keys_.rows >= kLeastProjection;
  }

  /// Finds the cheapest search that keeps the goal; a higher rung when none does.
  Planned search_for(const Choice& choice) {
    const std::size_t k = ladder_[choice.rung].k;
    if (k == 0) return without_search(choice.tail);
    if (params_.index) {
      indexes_.build_custom();
      return finish(climb(choice, Retriever::custom, {1.0}));
    }
    indexes_.build_complete();
    std::optional<Found> best = climb(choice, Retriever::flat, {1.0});
    if (indexes_.has(Retriever::sketch))
      best = cheaper(std::move(best), climb(choice, Retriever::sketch, {1.0}), kWorthSketching);
    if (may_project()) {
      // An index that misses some keys may make up for it with a few more of them.
      const std::vector<double> recalls(kRecalls.begin(), kRecalls.end());
      indexes_.build_projection(k, recalls);
      best = cheaper(std::move(best), climb(choice, Retriever::projection, recalls), kWorthMissing);
    }
    return finish(std::move(best));
  }

  /// `other` where it reads less than a share `worth` of what `best` does.
  static std::optional<Found> cheaper(std::optional<Found> best, std::optional<Found> other,
                                      double worth) {
    if (best && (!other || other->outcome.read >= worth * best->outcome.read)) return best;
    return other;
  }

  /// The first rung that keeps the goal, at its lowest recall that does; or one of the next two,
  /// where a lower recall still keeps it and reads less. Nothing when none does.
  std::optional<Found> climb(const Choice& choice, Retriever retriever,
                             const std::vector<double>& recalls) {
    std::optional<Found> best;
    std::size_t tried = recalls.size(), last = ladder_.size();
    for (std::size_t rung = choice.rung; rung < last && tried > 0; ++rung) {
      Tail tail = fit(ladder_[rung], choice.tail);
      for (std::size_t r = 0; r < tried; ++r) {
        if (retriever == Retriever::projection && indexes_.of(retriever).flat_is_better(recalls[r]))
          break;
        const HeadPlan plan = {
            .retriever = retriever, .stop = ladder_[rung], .target_recall = recalls[r]};
        const Outcome outcome = outcome_of(plan, tail);
        if (!keeps_goal(plan, outcome)) continue;
        if (!best) last = std::min(last, rung + 1 + kFurther);
        if (!best || outcome.read < best->outcome.read)
          best = Found{plan, std::move(tail), outcome};
        tried = r;
        break;
      }
    }
    return best;
  }

  Planned as_given(const GivenPlan& given) {
    if (given.retriever == Retriever::none) return without_search(params_.tail_vectors);
    const StopRule stop = given_stop(given);
    if (!given.retriever) return finish(complete(stop));
    const Retriever retriever = *given.retriever;
    if (retriever == Retriever::flat) indexes_.build_flat();
    if (retriever == Retriever::sketch) indexes_.build_sketch();
    if (retriever == Retriever::custom) indexes_.build_custom();
    if (retriever == Retriever::projection)
      indexes_.build_projection(stop.k, {given.target_recall});
    const double recall = retriever == Retriever::projection ? given.target_recall : 1.0;
    return finish(tried({.retriever = retriever, .stop = stop, .target_recall = recall},
                        fit(stop, params_.tail_vectors)));
  }

  /// The rule with the k and the limit of a given plan.
  [[nodiscard]] StopRule given_stop(const GivenPlan& given) const {
    const std::size_t k = std::min(given.k, keys_.rows);
    if (params_.rule == Rule::top_k) return {.k = k};
    return {.rule = params_.rule,
            .k = k,
            .limit = given.limit.value(),
            .least = std::min(params_.least_k, k)};
  }

  /// A scan, or a sketch where that reads markedly less.
  Found complete(const StopRule& stop) {
    indexes_.build_complete();
    const Tail tail = fit(stop, params_.tail_vectors);
    const auto by = [&](Retriever retriever) {
      return tried({.retriever = retriever, .stop = stop, .target_recall = 1.0}, tail);
    };
    Found scan = by(Retriever::flat);
    if (!indexes_.has(Retriever::sketch)) return scan;
    return *cheaper(std::move(scan), by(Retriever::sketch), kWorthSketching);
  }

  [[nodiscard]] Found tried(const HeadPlan& plan, const Tail& tail) const {
    return {plan, tail, outcome_of(plan, tail)};
  }

  /// Of a search with an index that is built.
  [[nodiscard]] Outcome outcome_of(const HeadPlan& plan, const Tail& tail) const {
    double read = 0, attended = 0;
    const std::vector<float> held =
        errors_of(plan, tail, seen_.held, seen_.held_seen, [&](const Hits& hits) {
          read += static_cast<double>(hits.stats.bytes_read);
          for (const std::size_t kept : hits.count) attended += static_cast<double>(kept);
        });
    Outcome outcome;
    outcome.error = seen_.error(held, params_.confidence);
    outcome.planted = largest(
        errors_of(plan, tail, seen_.planted, seen_.planted_seen, [](const Hits& /*hits*/) {}));
    read += attended * static_cast<double>(values_.row_bytes());
    outcome.read = read / static_cast<double>(seen_.held_seen.steps());
    outcome.keys = attended / static_cast<double>(seen_.held_seen.queries.rows());
    return outcome;
  }

  /// Of each query, by the index that is built; `visit` sees what each step attends.
  [[nodiscard]] std::vector<float> errors_of(const HeadPlan& plan, const Tail& tail,
                                             const AnsweredQueries& asked, const Observations& seen,
                                             const std::function<void(const Hits&)>& visit) const {
    SearchScratch search;
    Hits found;
    const auto retrieve = [&](std::size_t step, Hits& hits) {
      const std::size_t first = step * input_.group;
      indexes_.of(plan.retriever)
          .search(plan, asked.queries.view().slice(first, input_.group), params_.scan_novel,
                  step % asked.run == 0 ? nullptr : &found, search, found);
      hits = found;
      for (std::size_t g = 0; g < input_.group; ++g)
        hits.count[g] = kept_by(plan.stop, found.row_scores(g), params_.logits(),
                                seen.exact.best[first + g], seen.exact.lse[first + g]);
      visit(hits);
    };
    return attention_errors(seen, values_, tail, retrieve);
  }

  /// All by the tail.
  Planned without_search(std::size_t tail_vectors) {
    const StopRule stop = {.k = 0};
    Tail tail = fit(stop, tail_vectors);
    const Outcome outcome = {
        .error = exact_error(stop, tail),
        .planted = largest(attention_errors(seen_.planted_seen, values_, 0, tail))};
    return finish(Found{{.retriever = Retriever::none, .stop = stop}, std::move(tail), outcome});
  }

  /// The search that was found, or everything.
  Planned finish(std::optional<Found> found) {
    if (!found) return everything(input_);
    HeadPlan plan = found->plan;
    const Tail& tail = found->tail;
    plan.tail_vectors = tail.vectors();
    plan.keys_per_query = found->outcome.keys + static_cast<double>(tail.vectors());
    plan.error_without_tail = exact_error(plan.stop, {});
    plan.expected_error = found->outcome.error;
    plan.planted_error = found->outcome.planted;
    plan.bytes_per_step = found->outcome.read + static_cast<double>(tail.bytes());
    return {plan, indexes_.take(plan.retriever), std::move(found->tail)};
  }

  const PlanInput& input_;
  const DecodeParams& params_;
  const Evidence& seen_;
  AnyMatrixView keys_;
  ValuesView values_;
  double goal_;
  PlanIndexes indexes_;
  KeyClusters clusters_;  ///< of the first tail that was fitted; they serve all
  std::vector<StopRule> ladder_;
};

}  // namespace

HeadPlan plan_of_everything(const Tokens::Piece& indexed) {
  return {.keys_per_query = static_cast<double>(indexed.keys.rows),
          .bytes_per_step = full_bytes(indexed)};
}

Planned make_plan(const PlanInput& input, const DecodeParams& params, HeadIndex before,
                  const Execution& run) {
  if (!worth_planning(input, params)) return everything(input);
  const std::size_t k = params.given ? params.given->k : params.max_k;
  const Evidence seen = gather_evidence(input, params, k, run);
  return Planner(input, params, seen, run, std::move(before)).make();
}

}  // namespace keyseek
