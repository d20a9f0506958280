// Turns queries of the prompt towards one token each.
#include "decode/planted.hpp"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

#include "base/random.hpp"
#include "matrix/even_rows.hpp"

namespace keyseek {
namespace {

constexpr std::size_t kSample = 1024;  // keys that say how much attention the others get
constexpr int kRounds = 12;            // of bisection
// How far a query is turned at most, in units of its own length: one that is all but something else
// by then would say nothing about those of the prompt.
constexpr double kFarthest = 64;
constexpr int kKeysTried = 8;
// Inner products up to here are far from the end of f32.
constexpr double kLargestProduct = 1e36;

double product(const float* a, const float* b, std::size_t d) {
  return std::inner_product(a, a + d, b, 0.0);
}

/// log(exp(a) + exp(b))
double log_sum(double a, double b) {
  const double most = std::max(a, b);
  return std::isinf(most) ? most : most + std::log(std::exp(a - most) + std::exp(b - most));
}

/// Turns queries towards keys: the sample stands for all others.
class Turning {
 public:
  Turning(const PlanInput& input, const DecodeParams& params)
      : keys_(input.tokens.indexed.keys),
        logits_(params.logits()),
        sample_(even_rows(keys_, kSample)),
        mean_(keys_.cols),
        longest_(double{largest_magnitude(keys_)} * std::sqrt(static_cast<double>(keys_.cols))),
        lines_(sample_.rows()),
        others_(sample_.rows()) {
    for (std::size_t i = 0; i < sample_.rows(); ++i)
      for (std::size_t j = 0; j < mean_.size(); ++j)
        mean_[j] += sample_.row(i)[j] / static_cast<float>(sample_.rows());
  }

  /// Takes a query to be turned; `exact` is the log-sum-exp of what it attends beside the indexed
  /// keys.
  void ask(const float* query, double exact) {
    exact_ = exact;
    for (std::size_t i = 0; i < lines_.size(); ++i)
      lines_[i].start = product(query, sample_.row(i), keys_.cols);
  }

  /// Adds so much of the key, less what all keys share, that its logit is the log-sum-exp of all
  /// others. Where nothing makes it that, as with capped logits, the query stays as it is, and this
  /// is false.
  bool turn(float* query, std::size_t key) {
    const std::size_t d = keys_.cols;
    std::vector<float> wanted(d), direction(d);
    keys_.copy_row(key, wanted.data());
    for (std::size_t j = 0; j < d; ++j) direction[j] = wanted[j] - mean_[j];
    // A key that would move away from the query is asked for along itself.
    if (product(direction.data(), wanted.data(), d) <= 0) direction = wanted;
    for (std::size_t i = 0; i < lines_.size(); ++i)
      lines_[i].slope = product(direction.data(), sample_.row(i), d);
    const Line own = {product(query, wanted.data(), d),
                      product(direction.data(), wanted.data(), d)};
    const double length = std::sqrt(product(query, query, d));
    const double unit = length / std::sqrt(product(direction.data(), direction.data(), d));
    if (!(own.slope > 0) || !(unit > 0) || !(unit < kLargestProduct)) return false;
    if (!(length * longest_ * (1 + kFarthest) < kLargestProduct)) return false;
    double near = 0, far = unit;
    while (far < kFarthest * unit && !above(own, far)) far *= 2;
    if (!above(own, far)) return false;
    for (int round = 0; round < kRounds; ++round) {
      const double middle = (near + far) / 2;
      (above(own, middle) ? far : near) = middle;
    }
    for (std::size_t j = 0; j < d; ++j) query[j] += static_cast<float>(far) * direction[j];
    return true;
  }

 private:
  /// An inner product as a function of how far the query is turned.
  struct Line {
    double start, slope;
    [[nodiscard]] double at(double turned) const { return start + turned * slope; }
  };

  /// Whether the key has half of the attention.
  [[nodiscard]] bool above(const Line& own, double turned) {
    double most = exact_, sum = 0;
    for (std::size_t i = 0; i < lines_.size(); ++i) {
      others_[i] = logits_.of(static_cast<float>(lines_[i].at(turned)));
      most = std::max(most, others_[i]);
    }
    for (const double logit : others_) sum += std::exp(logit - most);
    const double share = static_cast<double>(keys_.rows) / static_cast<double>(sample_.rows());
    const double others = log_sum(exact_, most + std::log(sum * share));
    return logits_.of(static_cast<float>(own.at(turned))) >= others;
  }

  AnyMatrixView keys_;
  Logits logits_;
  Matrix<float> sample_;
  std::vector<float> mean_;
  double longest_;              ///< no key is longer
  std::vector<Line> lines_;     ///< of the sample, for the query and the last key
  std::vector<double> others_;  ///< their logits
  double exact_ = 0;
};

}  // namespace

AnsweredQueries planted_queries(const PlanInput& input, const AnsweredQueries& asked,
                                std::size_t count, const DecodeParams& params, std::uint64_t seed) {
  const std::size_t group = input.group, d = input.queries.cols;
  const std::size_t steps = asked.queries.rows() / group;
  count = std::min(count, steps);
  Random random(seed);
  Turning turning(input, params);
  AnsweredQueries planted;
  planted.queries = Matrix<float>(count * group, d);
  planted.exact.reset(count * group, input.tokens.indexed.values.rows.cols);
  AttendScratch scratch;
  Partial part, exact;
  for (std::size_t i = 0; i < count; ++i) {
    const std::size_t from = i * steps / count * group;
    for (std::size_t g = 0; g < group; ++g) {
      float* query = planted.queries.row(i * group + g);
      std::copy_n(asked.queries.row(from + g), d, query);
      turning.ask(query, double{asked.exact.lse[from + g]});
      for (int tried = 0; tried < kKeysTried; ++tried)
        if (turning.turn(query, random.below(input.tokens.indexed.keys.rows))) break;
    }
    attend_static(input, planted.queries.view().slice(i * group, group), input.tokens.size(),
                  params, scratch, part, exact);
    put(exact, i * group, planted.exact);
  }
  return planted;
}

}  // namespace keyseek
