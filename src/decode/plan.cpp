#include "decode/plan.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <numeric>
#include <optional>

#include "base/fail.hpp"
#include "decode/probes.hpp"

namespace keyseek {
namespace {

// Fewer keys than this are scanned whole: near the size where both are equally fast.
constexpr std::size_t kLeastGraph = 6000;
// Consecutive positions of a held-out run: enough for warm starts to count.
constexpr std::size_t kRun = 8;
constexpr std::array<std::size_t, 11> kSizes = {0, 16, 32, 48, 64, 100, 150, 200, 300, 400, 512};
constexpr std::array<double, 3> kRecalls = {0.95, 0.98, 0.995};

double mean(const std::vector<float>& values) {
  return std::accumulate(values.begin(), values.end(), 0.0) / static_cast<double>(values.size());
}

/// Rows [first, last) of blocks, `count` of them in runs of `run`, evenly spread.
std::vector<std::size_t> spread(std::size_t first, std::size_t last, std::size_t count,
                                std::size_t run) {
  const std::size_t runs = std::max<std::size_t>(1, std::min(count, last - first) / run);
  std::vector<std::size_t> rows;
  for (std::size_t r = 0; r < runs; ++r) {
    const std::size_t begin = first + (last - first - run) * r / std::max<std::size_t>(1, runs - 1);
    for (std::size_t i = 0; i < run; ++i) rows.push_back(begin + i);
  }
  return rows;
}

class Planner {
 public:
  Planner(const PlanInput& input, const DecodeParams& params, Planned before, const Execution& run)
      : input_(input),
        params_(params),
        run_(run),
        result_(std::move(before)),
        keys_(input.tokens.indexed.keys),
        values_{input.tokens.indexed.values},
        goal_(params.safety * params.max_error) {}

  Planned make() {
    result_.plan = {};
    result_.tail = {};
    if (!worth_planning()) return everything();
    look();
    const auto choice = choose();
    if (!choice) return everything();
    return apply(*choice);
  }

 private:
  /// k keys per query and a tail of C vectors, or none.
  struct Choice {
    std::size_t k = 0;
    std::size_t tail = 0;
  };

  [[nodiscard]] bool worth_planning() const {
    const std::size_t positions = input_.positions.size();
    return keys_.rows >= std::max<std::size_t>(1, params_.least_indexed) &&
           positions >= kLeastPositions;
  }

  Planned everything() {
    result_ = {};
    result_.plan.bytes_per_step = full_bytes();
    result_.plan.keys_per_query = static_cast<double>(keys_.rows);
    return std::move(result_);
  }

  /// Held-out runs lie before the positions that train, as far from them as decoding will be.
  void look() {
    const std::size_t positions = input_.positions.size();
    const std::size_t held = std::max<std::size_t>(2 * kRun, positions / 4);
    const auto held_rows = spread(0, held, params_.held_out, kRun);
    const auto train_rows = spread(held, positions, params_.observed, 1);
    first_training_ = held;
    held_ = make_probes(input_, held_rows, kRun, params_, params_.seed + 1);
    const Probes train = make_probes(input_, train_rows, 1, params_, params_.seed);
    const ObserveParams top = {.top = std::min(params_.max_k, keys_.rows)};
    train_seen_ =
        observe(train.queries, input_.group, train.exact, keys_, values_, params_.scale, top, run_);
    held_seen_ =
        observe(held_.queries, input_.group, held_.exact, keys_, values_, params_.scale, top, run_);
  }

  /// The cheapest that keeps the goal with exact keys; nothing when none does, or reading
  /// everything is cheaper.
  [[nodiscard]] std::optional<Choice> choose() {
    std::optional<Choice> best;
    for (const std::size_t tail : {std::size_t{0}, params_.tail_vectors}) {
      if (tail == 0 && best) continue;
      const auto k = least_k(tail);
      if (!k) continue;
      const Choice choice = {*k, tail};
      if (!best || bytes(choice) < bytes(*best)) best = choice;
    }
    if (best && bytes(*best) >= full_bytes()) best.reset();
    return best;
  }

  /// By bisection: more keys, less error.
  [[nodiscard]] std::optional<std::size_t> least_k(std::size_t tail) const {
    std::size_t count = 0;
    while (count < kSizes.size() && kSizes[count] <= held_seen_.top_ids.cols()) ++count;
    std::size_t low = 0, high = count;
    while (low < count && kSizes[low] < params_.least_k)
      ++low;  // kSizes[high] is enough, or high == count
    while (low < high) {
      const std::size_t middle = (low + high) / 2;
      if (exact_error({kSizes[middle], tail}) <= goal_) {
        high = middle;
      } else {
        low = middle + 1;
      }
    }
    if (high == count) return std::nullopt;
    return kSizes[high];
  }

  [[nodiscard]] Tail fit(const Choice& choice) const {
    if (choice.tail == 0) return {};
    return Tail::fit(train_seen_, keys_, values_, choice.k,
                     {.vectors = choice.tail, .seed = params_.seed});
  }

  [[nodiscard]] double exact_error(const Choice& choice) const {
    return mean(attention_errors(held_seen_, values_, choice.k, fit(choice)));
  }

  [[nodiscard]] double row_bytes() const {
    return static_cast<double>(keys_.cols * size_of(keys_.dtype) +
                               values_.rows.cols * size_of(values_.rows.dtype));
  }
  [[nodiscard]] double full_bytes() const { return static_cast<double>(keys_.rows) * row_bytes(); }

  /// Estimate, to compare choices: what a search reads is not known before there is one.
  [[nodiscard]] double bytes(const Choice& choice) const {
    const auto group = static_cast<double>(input_.group), n = static_cast<double>(keys_.rows);
    const double searched = choice.k == 0 ? 0.0
                            : keys_.rows < kLeastGraph
                                ? n
                                : n * 0.03 + 4.0 * static_cast<double>(choice.k);
    return searched * static_cast<double>(keys_.cols + sizeof(float)) +
           group * static_cast<double>(choice.k) * row_bytes() + tail_bytes(choice.tail);
  }
  [[nodiscard]] double tail_bytes(std::size_t vectors) const {
    return 2.0 * static_cast<double>(vectors) *
           static_cast<double>(keys_.cols + input_.group * values_.rows.cols);
  }

  /// Finds the cheapest search that keeps the goal; more keys when none does.
  Planned apply(Choice choice) {
    if (choice.k == 0) {
      Tail tail = fit(choice);
      return finish({.retriever = Retriever::none}, choice, std::move(tail));
    }
    build(choice.k);
    // An index that misses some keys may make up for it with a few more of them; only then
    // is a whole scan the better way.
    if (result_.projection) {
      for (std::size_t k = choice.k; k > 0; k = next_size(k)) {
        Tail tail = fit({k, choice.tail});
        for (const double recall : kRecalls) {
          if (flat_is_better(recall)) break;
          const HeadPlan plan = {
              .retriever = Retriever::projection, .k = k, .target_recall = recall};
          if (searched_error(plan, tail) <= goal_)
            return finish(plan, {k, choice.tail}, std::move(tail));
        }
      }
    }
    if (!result_.flat) result_.flat = FlatIndex::build(keys_, run_);
    for (std::size_t k = choice.k; k > 0; k = next_size(k)) {
      Tail tail = fit({k, choice.tail});
      const HeadPlan plan = {.retriever = Retriever::flat, .k = k, .target_recall = 1.0};
      if (searched_error(plan, tail) <= goal_)
        return finish(plan, {k, choice.tail}, std::move(tail));
    }
    return everything();
  }

  /// The next larger number of keys to try; 0: none.
  [[nodiscard]] std::size_t next_size(std::size_t k) const {
    for (const std::size_t size : kSizes)
      if (size > k && size <= train_seen_.top_ids.cols()) return size;
    return 0;
  }

  void build(std::size_t k) {
    if (result_.projection || keys_.rows < kLeastGraph) return;
    const std::size_t positions = input_.positions.size();
    const auto wanted = static_cast<std::size_t>(
        std::ceil(params_.share * static_cast<double>(input_.tokens.size())));
    const std::size_t count = std::clamp<std::size_t>(wanted, 1, positions - first_training_);
    const std::size_t first = positions - count;
    TrainingQueries training =
        sample_training_queries(input_.queries.slice(first * input_.group, count * input_.group),
                                input_.positions.subspan(first), input_.group, params_.rope,
                                {.now = input_.tokens.size(),
                                 .horizon = params_.horizon,
                                 .share = 1.0,
                                 .seed = params_.seed,
                                 .shift = params_.shift,
                                 .tuning_runs = 0});
    training.tuning = held_.queries;
    training.tuning_steps = kRun;
    ProjectionParams projection;
    projection.target_recalls.assign(kRecalls.begin(), kRecalls.end());
    projection.tuning_k = k;
    result_.projection = ProjectionIndex::build(keys_, training, projection, run_);
  }

  [[nodiscard]] bool flat_is_better(double recall) const {
    for (const OperatingPoint& point : result_.projection->dials())
      if (point.target_recall >= recall) return point.flat_is_better;
    return false;
  }

  /// Mean error on the held-out steps by the search as it is; notes what it reads.
  double searched_error(const HeadPlan& plan, const Tail& tail) {
    SearchScratch search;
    read_ = 0;
    const auto retrieve = [&](std::size_t step, Hits& hits) {
      retrieve_planned(plan, result_.flat, result_.projection,
                       held_.queries.view().slice(step * input_.group, input_.group),
                       step % held_.run == 0 ? nullptr : &hits, search, hits);
      read_ += static_cast<double>(hits.stats.bytes_read);
    };
    last_error_ = mean(attention_errors(held_seen_, values_, tail, retrieve));
    read_ /= static_cast<double>(held_seen_.steps());
    return last_error_;
  }

  Planned finish(HeadPlan plan, const Choice& choice, Tail tail) {
    plan.tail_vectors = tail.vectors();
    plan.keys_per_query = static_cast<double>(choice.k + tail.vectors());
    plan.error_without_tail = mean(attention_errors(held_seen_, values_, choice.k, {}));
    plan.expected_error = plan.retriever == Retriever::none
                              ? mean(attention_errors(held_seen_, values_, 0, tail))
                              : last_error_;
    plan.bytes_per_step = (plan.retriever == Retriever::none ? 0.0 : read_) +
                          tail_bytes(tail.vectors()) +
                          static_cast<double>(input_.group * choice.k * values_.rows.cols *
                                              size_of(values_.rows.dtype));
    result_.plan = plan;
    result_.tail = std::move(tail);
    if (plan.retriever != Retriever::flat) result_.flat.reset();
    if (plan.retriever != Retriever::projection) result_.projection.reset();
    return std::move(result_);
  }

  const PlanInput& input_;
  const DecodeParams& params_;
  const Execution& run_;
  Planned result_;
  AnyMatrixView keys_;
  ValuesView values_;
  double goal_;
  std::size_t first_training_ = 0;  ///< of input_.positions
  Probes held_;
  Observations train_seen_, held_seen_;
  double read_ = 0, last_error_ = 0;  ///< of the last search that was tried
};

}  // namespace

Planned make_plan(const PlanInput& input, const DecodeParams& params, Planned before,
                  const Execution& run) {
  return Planner(input, params, std::move(before), run).make();
}

void retrieve_planned(const HeadPlan& plan, const std::optional<FlatIndex>& flat,
                      const std::optional<ProjectionIndex>& projection, MatrixView<float> queries,
                      const Hits* previous, SearchScratch& scratch, Hits& hits) {
  SearchParams params = {.k = plan.k, .previous = previous};
  if (plan.retriever == Retriever::flat) {
    flat->search(queries, params, scratch, hits);
    return;
  }
  params.target_recall = plan.target_recall;
  projection->search(queries, params, scratch, hits);
}

}  // namespace keyseek
