#include "decode/plan.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <numeric>
#include <optional>
#include <utility>

#include "decode/evidence.hpp"
#include "decode/head_index.hpp"
#include "decode/stop.hpp"

namespace keyseek {
namespace {

// Fewer keys than this are scanned whole: near the size where both are equally fast.
constexpr std::size_t kLeastGraph = 6000;
// With fewer, what goes on from the sketch is most of the keys.
constexpr std::size_t kLeastSketch = 1500;
// Positions that train an index, where the prompt has so many: a tenth of a short prompt asks for
// too little of it.
constexpr std::size_t kLeastTraining = 1024;
constexpr std::array<std::size_t, 11> kSizes = {0, 16, 32, 48, 64, 100, 150, 200, 300, 400, 512};
constexpr std::array<double, 9> kBetas = {1, 2, 3, 4, 5, 6, 7, 8, 10};
constexpr std::array<double, 9> kShares = {0.5, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.999};
constexpr std::array<double, 3> kRecalls = {0.95, 0.98, 0.995};
// A sparser graph than an index alone has: the same recall for the same keys scanned here, where
// router and warm start do most of the work, in less memory.
constexpr std::size_t kDegree = 16, kMaxDegree = 24;
// Bytes per key of such a graph, and per training query in the router (its list of 100 in gaps,
// its projected codes); memory for tail and remembered queries, in units of keys and values.
constexpr double kLinkBytes = 55, kRouterBytes = 280, kReserve = 0.08;
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

class Planner {
 public:
  Planner(const PlanInput& input, const DecodeParams& params, HeadIndex before,
          const Execution& run)
      : input_(input),
        params_(params),
        run_(run),
        keys_(input.tokens.indexed.keys),
        values_(input.tokens.indexed.values),
        goal_(params.safety * params.max_error) {
    result_.index = std::move(before);
  }

  Planned make() {
    if (!worth_planning()) return everything();
    seen_ = gather_evidence(input_, params_, params_.given ? params_.given->stop.k : params_.max_k,
                            run_);
    if (params_.given) return as_given(*params_.given);
    ladder_ = ladder();
    const auto choice = choose();
    if (!choice) return everything();
    return search_for(*choice);
  }

 private:
  /// Of a search that was tried: mean error, bytes it read per step, keys kept per query.
  struct Trial {
    double error = 0, bytes = 0, keys = 0;
  };

  struct Found {
    HeadPlan plan;
    Tail tail;
    Trial trial;
    double read = 0;
  };

  /// A rung of the ladder of stop rules and a tail of C vectors, or none.
  struct Choice {
    std::size_t rung = 0;
    std::size_t tail = 0;
  };

  [[nodiscard]] bool worth_planning() const {
    if (params_.given && params_.given->retriever == Retriever::everything) return false;
    return keys_.rows >= std::max<std::size_t>(1, params_.least_indexed) &&
           input_.positions.size() >= kLeastPositions;
  }

  Planned everything() {
    result_ = {};
    result_.plan.bytes_per_step = full_bytes();
    result_.plan.keys_per_query = static_cast<double>(keys_.rows);
    return std::move(result_);
  }

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
      counts.push_back(kept_by(stop, {seen.top_scores.row(q), seen.top_scores.cols()}, seen.scale,
                               seen.fixed.best[q], seen.fixed.lse[q]));
    return counts;
  }

  /// The cheapest that keeps the goal with exact keys; nothing when none does, or reading
  /// everything is cheaper.
  [[nodiscard]] std::optional<Choice> choose() {
    std::optional<Choice> best;
    for (const std::size_t tail : {std::size_t{0}, params_.tail_vectors}) {
      if (tail == 0 && best) continue;
      const auto rung = lowest_rung(tail);
      if (!rung) continue;
      const Choice choice = {*rung, tail};
      if (!best || bytes(choice) < bytes(*best)) best = choice;
    }
    if (best && bytes(*best) >= full_bytes()) best.reset();
    return best;
  }

  /// By bisection: more keys, less error.
  [[nodiscard]] std::optional<std::size_t> lowest_rung(std::size_t tail) {
    std::size_t low = 0, high = ladder_.size();
    while (low < high) {
      const std::size_t middle = (low + high) / 2;
      if (exact_error(ladder_[middle], fit(ladder_[middle], tail)) <= goal_) {
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
    return seen_.worse_mean(
        attention_errors(seen_.held_seen, values_, kept(seen_.held_seen, stop), tail));
  }

  [[nodiscard]] double value_bytes() const {
    const std::size_t scale = values_.scales == nullptr ? 0 : sizeof(float);
    return static_cast<double>(values_.rows.cols * size_of(values_.rows.dtype) + scale);
  }
  [[nodiscard]] double row_bytes() const {
    return static_cast<double>(keys_.cols * size_of(keys_.dtype)) + value_bytes();
  }
  [[nodiscard]] double full_bytes() const { return static_cast<double>(keys_.rows) * row_bytes(); }

  /// Estimate, to compare choices: what a search reads is not known before there is one.
  [[nodiscard]] double bytes(const Choice& choice) const {
    const StopRule& stop = ladder_[choice.rung];
    const auto group = static_cast<double>(input_.group), n = static_cast<double>(keys_.rows);
    const double searched = stop.k == 0 ? 0.0
                            : keys_.rows < kLeastGraph
                                ? n
                                : n * 0.03 + 4.0 * static_cast<double>(stop.k);
    const double tail = 2.0 * static_cast<double>(choice.tail) *
                        static_cast<double>(keys_.cols + input_.group * values_.rows.cols);
    return searched * static_cast<double>(keys_.cols + sizeof(float)) +
           group * mean(kept(seen_.held_seen, stop)) * row_bytes() + tail;
  }

  /// Finds the cheapest search that keeps the goal; a higher rung when none does.
  Planned search_for(const Choice& choice) {
    const std::size_t k = ladder_[choice.rung].k;
    if (k == 0)
      return finish({.retriever = Retriever::none, .stop = {.k = 0}}, fit({.k = 0}, choice.tail));
    if (params_.index) {
      result_.index.custom = params_.index(input_.indexed_keys);
      return finish(climb(choice, Retriever::custom, {1.0}));
    }
    build_complete();
    std::optional<Found> best = climb(choice, Retriever::flat, {1.0});
    if (result_.index.sketch)
      best = cheaper(std::move(best), climb(choice, Retriever::sketch, {1.0}), kWorthSketching);
    // An index that misses some keys may make up for it with a few more of them.
    const std::vector<double> recalls(kRecalls.begin(), kRecalls.end());
    if (keys_.rows >= kLeastGraph) build_projection(k, recalls);
    if (result_.index.projection)
      best = cheaper(std::move(best), climb(choice, Retriever::projection, recalls), kWorthMissing);
    return finish(std::move(best));
  }

  /// `other` where it reads less than a share `worth` of what `best` does.
  static std::optional<Found> cheaper(std::optional<Found> best, std::optional<Found> other,
                                      double worth) {
    if (best && (!other || other->read >= worth * best->read)) return best;
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
        if (retriever == Retriever::projection && flat_is_better(recalls[r])) break;
        const HeadPlan plan = {
            .retriever = retriever, .stop = ladder_[rung], .target_recall = recalls[r]};
        if (searched_error(plan, tail) > goal_) continue;
        if (!best) last = std::min(last, rung + 1 + kFurther);
        if (!best || read() < best->read) best = Found{plan, std::move(tail), last_, read()};
        tried = r;
        break;
      }
    }
    return best;
  }

  Planned as_given(const GivenPlan& given) {
    HeadPlan plan = {.retriever = given.retriever, .stop = given.stop, .target_recall = 1.0};
    plan.stop.k = std::min(plan.stop.k, keys_.rows);
    if (plan.retriever == Retriever::none || plan.stop.k == 0) {
      plan = {.retriever = Retriever::none, .stop = {.k = 0}};
      return finish(plan, fit(plan.stop, params_.tail_vectors));
    }
    if (plan.retriever == Retriever::projection) {
      plan.target_recall = given.target_recall;
      build_projection(plan.stop.k, {given.target_recall});
    }
    if (plan.retriever == Retriever::complete) build_complete();
    if (plan.retriever == Retriever::flat) build_flat();
    if (plan.retriever == Retriever::sketch) build_sketch();
    if (plan.retriever == Retriever::custom)
      result_.index.custom = params_.index(input_.indexed_keys);
    const Tail tail = fit(plan.stop, params_.tail_vectors);
    if (plan.retriever != Retriever::complete) return finish(tried(plan, tail));
    plan.retriever = Retriever::flat;
    std::optional<Found> best = tried(plan, tail);
    plan.retriever = Retriever::sketch;
    if (result_.index.sketch) best = cheaper(std::move(best), tried(plan, tail), kWorthSketching);
    return finish(std::move(best));
  }

  [[nodiscard]] Found tried(const HeadPlan& plan, const Tail& tail) {
    searched_error(plan, tail);
    return {plan, tail, last_, read()};
  }

  void build_flat() {
    if (!result_.index.flat) result_.index.flat = FlatIndex::build(keys_, run_);
  }

  void build_sketch() {
    if (!result_.index.sketch)
      result_.index.sketch = SketchIndex::build(keys_, training().train, {}, run_);
  }

  /// A sketch only where it may pay, and max_memory has room for it.
  void build_complete() {
    build_flat();
    if (keys_.rows < kLeastSketch) return;
    build_sketch();
    const double index = static_cast<double>(result_.index.sketch->bytes()) +
                         static_cast<double>(keys_.rows) * value_bytes();
    if (index > (params_.max_memory - kReserve) * full_bytes()) result_.index.sketch.reset();
  }

  /// What max_memory leaves for the router when codes and links have theirs.
  [[nodiscard]] double queries_per_key() const {
    const double left = (params_.max_memory - kReserve - 1.0) * row_bytes() -
                        static_cast<double>(keys_.cols + sizeof(float)) - kLinkBytes;
    return std::clamp(left / kRouterBytes, 0.02, RouterParams().queries_per_key);
  }

  /// Queries of the prompt moved to where decoding will happen, and those held out.
  [[nodiscard]] TrainingQueries training() const {
    const auto wanted = static_cast<std::size_t>(
        std::ceil(params_.share * static_cast<double>(input_.tokens.size())));
    const std::size_t count =
        std::min(std::max(wanted, kLeastTraining), seen_.last_training - seen_.first_training);
    const std::size_t first = seen_.last_training - count;
    TrainingQueries training =
        sample_training_queries(input_.queries.slice(first * input_.group, count * input_.group),
                                input_.positions.subspan(first, count), input_.group, params_.rope,
                                {.now = input_.tokens.size(),
                                 .horizon = params_.horizon,
                                 .share = 1.0,
                                 .seed = params_.seed,
                                 .shift = params_.shift,
                                 .tuning_runs = 0});
    training.tuning = seen_.held.queries;
    training.tuning_steps = seen_.held.run;
    return training;
  }

  void build_projection(std::size_t k, std::vector<double> recalls) {
    if (result_.index.projection) return;
    ProjectionParams projection;
    projection.graph.degree = kDegree;
    projection.graph.max_degree = kMaxDegree;
    projection.router.queries_per_key = queries_per_key();
    projection.target_recalls = std::move(recalls);
    projection.tuning_k = k;
    result_.index.projection = ProjectionIndex::build(keys_, training(), projection, run_);
  }

  [[nodiscard]] bool flat_is_better(double recall) const {
    for (const OperatingPoint& point : result_.index.projection->dials())
      if (point.target_recall >= recall) return point.flat_is_better;
    return false;
  }

  /// Mean error on the held-out steps by the search as it is; notes what it reads and keeps.
  double searched_error(const HeadPlan& plan, const Tail& tail) {
    SearchScratch search;
    Hits found;
    double read = 0, attended = 0;
    const auto retrieve = [&](std::size_t step, Hits& hits) {
      const std::size_t first = step * input_.group;
      search_index(result_.index, plan, seen_.held.queries.view().slice(first, input_.group),
                   params_.scan_novel, step % seen_.held.run == 0 ? nullptr : &found, search,
                   found);
      read += static_cast<double>(found.stats.bytes_read);
      hits = found;
      for (std::size_t g = 0; g < input_.group; ++g) {
        hits.count[g] =
            kept_by(plan.stop, found.row_scores(g), params_.scale,
                    seen_.held_seen.fixed.best[first + g], seen_.held_seen.fixed.lse[first + g]);
        attended += static_cast<double>(hits.count[g]);
      }
    };
    last_.error = seen_.worse_mean(attention_errors(seen_.held_seen, values_, tail, retrieve));
    last_.bytes = read / static_cast<double>(seen_.held_seen.steps());
    last_.keys = attended / static_cast<double>(seen_.held_seen.queries.rows());
    return last_.error;
  }

  /// The search that was found, or everything.
  Planned finish(std::optional<Found> found) {
    if (!found) return everything();
    last_ = found->trial;
    return finish(found->plan, std::move(found->tail));
  }

  Planned finish(HeadPlan plan, Tail tail) {
    if (plan.retriever == Retriever::none) last_ = {.error = exact_error(plan.stop, tail)};
    plan.tail_vectors = tail.vectors();
    plan.keys_per_query = last_.keys + static_cast<double>(tail.vectors());
    plan.error_without_tail = exact_error(plan.stop, {});
    plan.expected_error = last_.error;
    plan.bytes_per_step = read() + static_cast<double>(tail.bytes());
    result_.plan = plan;
    result_.tail = std::move(tail);
    if (plan.retriever != Retriever::flat) result_.index.flat.reset();
    if (plan.retriever != Retriever::sketch) result_.index.sketch.reset();
    if (plan.retriever != Retriever::projection) result_.index.projection.reset();
    return std::move(result_);
  }

  /// Bytes that the last trial read per step, values included.
  [[nodiscard]] double read() const {
    return last_.bytes + static_cast<double>(input_.group) * last_.keys * value_bytes();
  }

  const PlanInput& input_;
  const DecodeParams& params_;
  const Execution& run_;
  Planned result_;
  AnyMatrixView keys_;
  ValuesView values_;
  double goal_;
  Evidence seen_;
  KeyClusters clusters_;  ///< of the first tail that was fitted; they serve all
  std::vector<StopRule> ladder_;
  Trial last_;
};

}  // namespace

Planned make_plan(const PlanInput& input, const DecodeParams& params, HeadIndex before,
                  const Execution& run) {
  return Planner(input, params, std::move(before), run).make();
}

}  // namespace keyseek
