// DecodeParams: each option in its range, and what options say to each other.
#include "decode/params.hpp"

#include <algorithm>
#include <cmath>

#include "base/fail.hpp"
#include "keyseek/decode_options.hpp"

namespace keyseek {
namespace {

// A plan is of little use with fewer: a share of a short prompt would be too few to hold some out.
constexpr std::size_t kLeastPlanPositions = 2048;

}  // namespace

std::string_view to_string(Retriever retriever) noexcept {
  switch (retriever) {
    case Retriever::none:
      return "none";
    case Retriever::flat:
      return "flat";
    case Retriever::sketch:
      return "sketch";
    case Retriever::projection:
      return "projection";
    case Retriever::custom:
      return "custom";
    case Retriever::everything:
      break;
  }
  return "everything";
}

std::string_view to_string(Rule rule) noexcept {
  switch (rule) {
    case Rule::dipr:
      return "dipr";
    case Rule::mass:
      return "mass";
    case Rule::top_k:
      break;
  }
  return "top-k";
}

void require_limit(Rule rule, double limit, std::string_view name) {
  require(std::isfinite(limit), "{} is {}, must be finite", name, limit);
  require(rule != Rule::dipr || limit >= 0, "{} is {}, must be at least 0 for DIPR", name, limit);
  require(rule != Rule::mass || (limit > 0 && limit <= 1),
          "{} is {}, must be in (0, 1] for a share of mass", name, limit);
}

std::size_t DecodeParams::plan_positions(std::size_t tokens) const noexcept {
  return std::max(kLeastPlanPositions,
                  static_cast<std::size_t>(plan_share * static_cast<double>(tokens)));
}

void DecodeParams::validate() const {
  for (const DecodeOption& option : decode_options()) option.validate(*this);
  logits().validate();
  require(least_k <= max_k, "least_k is {}, max_k only {}", least_k, max_k);
  if (!given) return;
  require(given->retriever != Retriever::custom || index,
          "retriever is custom, but there is no index to make one");
  require(rule == Rule::top_k || given->limit,
          "rule is {} with a given retriever: it needs a limit", to_string(rule));
  require(rule != Rule::top_k || !given->limit, "limit is {}, but the rule top-k has none",
          given->limit.value_or(0.0));
  if (given->limit) require_limit(rule, *given->limit, "limit");
}

}  // namespace keyseek
