// Which options a plan looks at: an option that nobody reads is refused, not ignored.
#include "decode/options_read.hpp"

#include <initializer_list>
#include <optional>
#include <string_view>

#include "base/fail.hpp"

namespace keyseek::read_by {
namespace {

constexpr std::string_view kOwnIndex =
    "index is a search of your own, which takes the place of ours";

/// Whether a plan is given whose retriever is one of these; none: complete.
bool is_given(const DecodeParams& params,
              std::initializer_list<std::optional<Retriever>> retrievers) {
  if (!params.given) return false;
  for (const std::optional<Retriever>& retriever : retrievers)
    if (retriever == params.given->retriever) return true;
  return false;
}

std::string of_retriever(const DecodeParams& params, std::string_view what) {
  const std::optional<Retriever>& retriever = params.given->retriever;
  return fmt::format("retriever is {}, {}", retriever ? to_string(*retriever) : "complete", what);
}

}  // namespace

std::string all(const DecodeParams& /*params*/) { return {}; }

std::string planner(const DecodeParams& params) {
  if (!params.given) return {};
  return of_retriever(params, "a plan that is given: leave out one of the two");
}

std::string choice_of_index(const DecodeParams& params) {
  return !params.given && params.index ? std::string(kOwnIndex) : planner(params);
}

std::string search(const DecodeParams& params) {
  if (!is_given(params, {Retriever::everything, Retriever::none})) return {};
  return of_retriever(params, "which searches for no keys");
}

std::string least(const DecodeParams& params) {
  if (std::string why = search(params); !why.empty() || !params.given) return why;
  return params.rule == Rule::top_k ? "rule is top-k, of which a given plan keeps k keys" : "";
}

std::string limited_rule(const DecodeParams& params) {
  if (std::string why = search(params); !why.empty()) return why;
  return params.rule == Rule::top_k ? "the rule top-k has none" : "";
}

std::string weighed_index(const DecodeParams& params) {
  if (!params.given) return params.index ? std::string(kOwnIndex) : "";
  if (is_given(params, {Retriever::projection, std::nullopt})) return {};
  return of_retriever(params, "whose memory is what it is");
}

std::string trained_index(const DecodeParams& params) {
  if (!params.given) return params.index ? std::string(kOwnIndex) : "";
  if (is_given(params, {Retriever::sketch, Retriever::projection, std::nullopt})) return {};
  return of_retriever(params, "which no queries train");
}

std::string given_projection(const DecodeParams& params) {
  if (!params.given || is_given(params, {Retriever::projection})) return {};
  return of_retriever(params, "and only a projection index is tuned to a recall");
}

std::string projection(const DecodeParams& params) {
  if (is_given(params, {Retriever::projection})) return {};
  if (params.given) return of_retriever(params, "and only a projection index knows novel queries");
  if (params.index) return std::string(kOwnIndex);
  if (params.may_miss) return {};
  return "only a projection index knows novel queries, which a plan takes where may_miss is true";
}

std::string trial(const DecodeParams& params) {
  if (!is_given(params, {Retriever::everything})) return {};
  return of_retriever(params, "which needs no trial");
}

std::string tail(const DecodeParams& params) {
  if (!is_given(params, {Retriever::everything})) return {};
  return of_retriever(params, "which leaves nothing to a tail");
}

std::string tail_training(const DecodeParams& params) {
  if (std::string why = tail(params); !why.empty()) return why;
  return params.tail_vectors == 0 ? "tail_vectors is 0: there is no tail to train" : "";
}

std::string shift(const DecodeParams& params) {
  return params.shift ? "" : "shift is false: queries are not re-rotated";
}

std::string theta(const DecodeParams& params) {
  if (std::string why = shift(params); !why.empty()) return why;
  return params.rope.frequencies.empty() ? "" : "frequencies are given instead";
}

}  // namespace keyseek::read_by
