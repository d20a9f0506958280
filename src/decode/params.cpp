// DecodeParams: each option in its range, and what options say to each other.
#include "decode/params.hpp"

#include <algorithm>
#include <cmath>

#include "base/fail.hpp"
#include "decode/options_read.hpp"
#include "keyseek/decode_options.hpp"

namespace keyseek {
namespace {

// A plan is of little use with fewer: a share of a short prompt would be too few to hold some out.
constexpr std::size_t kLeastPlanPositions = 2048;

/// Defaults, of a given plan where there is one.
DecodeParams presets_for(const DecodeParams& params) {
  DecodeParams presets;
  if (params.given) presets.given.emplace();
  return presets;
}

bool index_is_unread(const DecodeParams& params) {
  return params.index && params.given && params.given->retriever != Retriever::custom;
}

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
  if (plan_share >= 1) return std::max(kLeastPlanPositions, tokens);  // may be beyond an f64
  return std::max(kLeastPlanPositions,
                  static_cast<std::size_t>(plan_share * static_cast<double>(tokens)));
}

DecodeParams without_unread(DecodeParams params) {
  const DecodeParams presets = presets_for(params);
  if (index_is_unread(params)) params.index = nullptr;
  for (const DecodeOption& option : decode_options())
    if (!option.unread(params).empty()) option.take(params, option.get(presets));
  return params;
}

void require_possible(const DecodeParams& params) {
  const auto& given = params.given;
  require(!given || given->k > 0, "k is 0, which searches for no keys: ask for the retriever none");
  for (const DecodeOption& option : decode_options()) option.validate(params);
  params.logits().validate();
  if (!given) {
    require(params.least_k <= params.max_k, "least_k is {}, max_k only {}", params.least_k,
            params.max_k);
    return;
  }
  require(given->retriever != Retriever::custom || params.index,
          "retriever is custom, but there is no index to make one");
  require(params.rule == Rule::top_k || given->limit || !read_by::search(params).empty(),
          "rule is {} with a given retriever: it needs a limit", to_string(params.rule));
  if (given->limit) require_limit(params.rule, *given->limit, "limit");
}

void DecodeParams::validate() const {
  require_possible(*this);
  const DecodeParams presets = presets_for(*this);
  for (const DecodeOption& option : decode_options())
    if (option.get(*this) != option.get(presets)) option.require_read(*this);
  if (!given) return;
  require(!index_is_unread(*this),
          "index is a search of your own, but retriever is {}: it must be custom",
          decode_option("retriever").text(*this));
  require(rule == Rule::top_k || least_k == presets.least_k || least_k <= given->k,
          "least_k is {}, k only {}", least_k, given->k);
}

}  // namespace keyseek
