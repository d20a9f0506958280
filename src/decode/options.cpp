// The table of options: what each is called, where it is kept, what it may be and what it means.
#include <algorithm>
#include <array>
#include <limits>
#include <type_traits>
#include <utility>

#include "base/fail.hpp"
#include "decode/options_read.hpp"
#include "keyseek/decode_options.hpp"

namespace keyseek {
namespace {

using Word = std::string_view;
constexpr std::array<Word, 3> kRules = {"top-k", "dipr", "mass"};
constexpr std::array<Word, 2> kLayouts = {"half-split", "interleaved"};
// In the order of Retriever, and last what a given plan may leave open.
constexpr std::array<Word, 7> kRetrievers = {"everything", "none",   "flat",    "sketch",
                                             "projection", "custom", "complete"};
constexpr std::span<const Word, 6> kNamedRetrievers = std::span(kRetrievers).first<6>();

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr OptionRange kAny = {}, kFinite = {};
constexpr OptionRange kAboveZero = {.least = 0};
constexpr OptionRange kFromZero = {.least = 0, .with_least = true};
constexpr OptionRange kFromOne = {.least = 1, .with_least = true};
constexpr OptionRange kAboveOne = {.least = 1, .most = kInfinity, .with_most = true};
constexpr OptionRange kInside = {.least = 0, .most = 1};
constexpr OptionRange kShare = {.least = 0, .most = 1, .with_most = true};
constexpr OptionRange kBelowOne = {.least = 0, .most = 1, .with_least = true};
constexpr OptionRange kTailVectors = {
    .least = 0, .most = 65536, .with_least = true, .with_most = true};

/// An enumerator that is none, which a cast may make, keeps its number.
template <class Enum>
OptionValue word_of(std::span<const Word> words, Enum value) {
  const auto i = static_cast<std::size_t>(value);
  return i < words.size() ? std::string(words[i]) : fmt::format("{}", i);
}

template <class Enum, std::size_t N>
Enum enum_of(const std::array<Word, N>& words, const OptionValue& value) {
  const auto at = std::find(words.begin(), words.end(), std::get<std::string>(value));
  return static_cast<Enum>(at - words.begin());
}

template <class Number>
OptionValue value_of(const Number& x) {
  if constexpr (std::is_same_v<Number, bool> || std::is_same_v<Number, std::size_t>)
    return x;
  else if constexpr (std::is_arithmetic_v<Number>)
    return static_cast<double>(x);
  else
    return std::vector<double>(x.begin(), x.end());
}

template <class Number>
void put(Number& x, const OptionValue& value) {
  if constexpr (std::is_same_v<Number, bool> || std::is_same_v<Number, std::size_t>) {
    x = std::get<Number>(value);
  } else if constexpr (std::is_arithmetic_v<Number>) {
    x = static_cast<Number>(std::get<double>(value));
  } else {
    x.clear();
    for (const double each : std::get<std::vector<double>>(value))
      x.push_back(static_cast<typename Number::value_type>(each));
  }
}

/// A member of DecodeParams, or a member of a member.
template <auto... Path>
struct Kept {
  static OptionValue get(const DecodeParams& params) { return value_of((params.*....*Path)); }
  static void take(DecodeParams& params, const OptionValue& value) {
    put((params.*....*Path), value);
  }
};

template <const auto& Words, auto... Path>
struct KeptWord {
  static OptionValue get(const DecodeParams& params) { return word_of(Words, (params.*....*Path)); }
  static void take(DecodeParams& params, const OptionValue& value) {
    auto& member = (params.*....*Path);
    member = enum_of<std::remove_cvref_t<decltype(member)>>(Words, value);
  }
};

/// A member of the given plan; nothing where there is none, and nothing leaves it as it is.
template <auto Member>
struct OfGiven {
  static OptionValue get(const DecodeParams& params) {
    return params.given ? value_of((*params.given).*Member) : OptionValue();
  }
  static void take(DecodeParams& params, const OptionValue& value) {
    if (params.given && value.index() != 0) put((*params.given).*Member, value);
  }
};

struct OfLimit {
  static OptionValue get(const DecodeParams& params) {
    return params.given && params.given->limit ? OptionValue(*params.given->limit) : OptionValue();
  }
  static void take(DecodeParams& params, const OptionValue& value) {
    if (!params.given) return;
    params.given->limit.reset();
    if (const auto* limit = std::get_if<double>(&value)) params.given->limit = *limit;
  }
};

/// Whether a plan is given at all goes by its retriever.
struct OfRetriever {
  static OptionValue get(const DecodeParams& params) {
    if (!params.given) return {};
    if (!params.given->retriever) return std::string(kRetrievers.back());
    return word_of(kNamedRetrievers, *params.given->retriever);
  }
  static void take(DecodeParams& params, const OptionValue& value) {
    if (value.index() == 0) return params.given.reset();
    if (!params.given) params.given.emplace();
    params.given->retriever.reset();
    if (std::get<std::string>(value) != kRetrievers.back())
      params.given->retriever = enum_of<Retriever>(kRetrievers, value);
  }
};

using P = DecodeParams;
using R = RopeParams;
using G = GivenPlan;
using Unread = std::string (*)(const DecodeParams&);

template <class Member>
constexpr DecodeOption option(Word group, Word name, OptionKind kind, OptionRange range,
                              Unread unread, Word meaning, std::span<const Word> words = {}) {
  return {group, name, kind, range, words, meaning, &Member::get, &Member::take, unread};
}

using enum OptionKind;

// clang-format off
constexpr std::array kOptions = std::to_array<DecodeOption>({
    option<Kept<&P::max_error>>("plan", "max_error", number, kInside, read_by::planner,
        "wanted mean of |out - full| / |full| over decode queries"),
    option<Kept<&P::safety>>("plan", "safety", number, kShare, read_by::planner,
        "the plan aims at so much of max_error on held-out queries of the prompt"),
    option<Kept<&P::confidence>>("plan", "confidence", number, kBelowOne, read_by::planner,
        "0: max_error is about the mean; else the share of held-out queries that keep it"),
    option<Kept<&P::max_planted_error>>("plan", "max_planted_error", number, kShare,
        read_by::choice_of_index,
        "largest error of queries of the prompt that were turned towards one token each; 1: any"),
    option<KeptWord<kRules, &P::rule>>("plan", "rule", word, kAny, read_by::search,
        "which of the keys found are attended: the k best; of these, logits near the largest; of "
        "these, the fewest that hold a share of the mass", kRules),
    option<Kept<&P::least_k>>("plan", "least_k", count, kFromZero, read_by::least,
        "keys retrieved per query, at least"),
    option<Kept<&P::max_k>>("plan", "max_k", count, kFromZero, read_by::planner,
        "keys retrieved per query, at most"),
    option<Kept<&P::may_miss>>("plan", "may_miss", flag, kAny, read_by::choice_of_index,
        "a plan also tries a projection index, which reads least but may miss the one key that no "
        "query of the prompt wanted; without, it looks at every key"),
    option<Kept<&P::max_memory>>("plan", "max_memory", number, kAboveOne, read_by::weighed_index,
        "most memory, in units of keys and values as stored: how much an index may take"),
    option<Kept<&P::plan_share>>("plan", "plan_share", number, kShare, read_by::trial,
        "newest share of the prompt whose queries a plan sees, at least 2,048 positions"),
    option<Kept<&P::held_out>>("plan", "held_out", count, kFromOne, read_by::trial,
        "positions that the plan is tried on, of each of two kinds"),
    option<Kept<&P::seed>>("plan", "seed", count, kFromZero, read_by::all, "of random numbers"),
    option<OfRetriever>("given plan", "retriever", word, kAny, read_by::all,
        "how indexed tokens are attended, instead of a plan; complete: every key is looked at, by a "
        "sketch where that reads markedly less, else flat", kRetrievers),
    option<OfGiven<&G::k>>("given plan", "k", count, kFromOne,
        read_by::search, "keys searched per query"),
    option<OfLimit>("given plan", "limit", number, kFromZero, read_by::limited_rule,
        "of the rule: logits (dipr), a share in (0, 1] (mass)"),
    option<OfGiven<&G::target_recall>>("given plan", "target_recall", number, kInside,
        read_by::given_projection, "of a projection index's search"),
    option<Kept<&P::sink>>("static tokens", "sink", count, kFromZero, read_by::all,
        "first tokens, attended exactly"),
    option<Kept<&P::window>>("static tokens", "window", count, kFromOne, read_by::all,
        "newest tokens, attended exactly"),
    option<Kept<&P::horizon>>("static tokens", "horizon", count, kFromOne, read_by::all,
        "tokens decoded between refreshes; attended exactly as well"),
    option<Kept<&P::refresh_delay>>("static tokens", "refresh_delay", count, kFromZero, read_by::all,
        "tokens after which a refresh is adopted that is planned aside; 0: one step plans and adopts"),
    option<Kept<&P::pinned>>("static tokens", "pinned", count, kFromZero, read_by::all,
        "tokens that the prompt's end attends to most, attended exactly"),
    option<Kept<&P::tail_vectors>>("tail", "tail_vectors", count, kTailVectors, read_by::tail,
        "vectors of the tail; 0: none"),
    option<Kept<&P::observed>>("tail", "observed", count, kFromOne, read_by::tail_training,
        "positions that train the tail"),
    option<Kept<&P::least_indexed>>("index", "least_indexed", count, kFromZero, read_by::all,
        "with fewer tokens than this to index, all are attended"),
    option<Kept<&P::share>>("index", "share", number, kShare, read_by::trained_index,
        "newest share of the prompt whose queries train the index, at least 1,024 positions"),
    option<Kept<&P::int8_values>>("index", "int8_values", flag, kAny, read_by::all,
        "keep values of indexed tokens in 8 bits"),
    option<Kept<&P::scan_novel>>("index", "scan_novel", flag, kAny, read_by::projection,
        "answer a query unlike all that trained the index by a scan"),
    option<Kept<&P::scale>>("logits", "scale", number, kAboveZero, read_by::all,
        "of the softmax; has no default"),
    option<Kept<&P::softcap>>("logits", "softcap", number, kFromZero, read_by::all,
        "c of logits c * tanh(scale * <q, k> / c); 0: they are not capped"),
    option<Kept<&P::null_logits>>("logits", "null_logits", numbers, kFinite, read_by::all,
        "one for each query head of the group, or none: logits that take part in the softmax and "
        "have no value (s_aux of gpt-oss)"),
    option<Kept<&P::shift>>("rotary embedding", "shift", flag, kAny, read_by::all,
        "re-rotate queries to where decoding will be; false: there is no rotary embedding"),
    option<Kept<&P::rope, &R::theta>>("rotary embedding", "theta", number, kFinite, read_by::theta,
        "base of the frequencies"),
    option<Kept<&P::rope, &R::rotary_dim>>("rotary embedding", "rotary_dim", count, kFromZero,
        read_by::shift, "elements that are rotated; 0: all from rotary_first on"),
    option<KeptWord<kLayouts, &P::rope, &R::layout>>("rotary embedding", "layout", word, kAny,
        read_by::shift, "which elements form a pair", kLayouts),
    option<Kept<&P::rope, &R::frequencies>>("rotary embedding", "frequencies", numbers, kFinite,
        read_by::shift, "radians per position of each pair, instead of theta's; or none"),
    option<Kept<&P::rope, &R::rotary_first>>("rotary embedding", "rotary_first", count, kFromZero,
        read_by::shift, "the first element that is rotated"),
});
// clang-format on

}  // namespace

std::span<const DecodeOption> decode_options() { return kOptions; }

const DecodeOption& decode_option(std::string_view name) {
  std::string known;
  for (const DecodeOption& option : kOptions) {
    if (option.name == name) return option;
    known += (known.empty() ? "" : ", ") + std::string(option.name);
  }
  fail(ErrorCode::invalid_argument, "there is no option {}; options are {}", name, known);
}

}  // namespace keyseek
