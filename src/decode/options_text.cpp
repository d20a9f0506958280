// Options as text and back, and what is said of one that is wrong.
#include <algorithm>
#include <charconv>
#include <cmath>
#include <map>

#include "base/fail.hpp"
#include "keyseek/decode_options.hpp"

namespace keyseek {
namespace {

constexpr std::string_view kVersion = "version", kNothing = "-";
// Of the text; version 1 was numbers without names, 2 had fewer options.
constexpr std::size_t kTextVersion = 3;

std::string shown(const OptionValue& value) {
  if (value.index() == 0) return std::string(kNothing);
  if (const auto* yes = std::get_if<bool>(&value)) return *yes ? "true" : "false";
  if (const auto* n = std::get_if<std::size_t>(&value)) return fmt::format("{}", *n);
  if (const auto* x = std::get_if<double>(&value)) return fmt::format("{}", *x);
  if (const auto* text = std::get_if<std::string>(&value)) return *text;
  std::string all;
  for (const double x : std::get<std::vector<double>>(value))
    all += fmt::format("{}{}", all.empty() ? "" : " ", x);
  return all.empty() ? std::string(kNothing) : all;
}

std::string_view kind_name(OptionKind kind) {
  switch (kind) {
    case OptionKind::flag:
      return "true or false";
    case OptionKind::count:
      return "a whole number";
    case OptionKind::number:
      return "a number";
    case OptionKind::numbers:
      return "numbers";
    case OptionKind::word:
      break;
  }
  return "a word";
}

template <class Number>
bool parse(std::string_view text, Number& x) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), x);
  return error == std::errc() && end == text.data() + text.size();
}

/// Of the kind, or nothing where the text is no such thing.
OptionValue parsed(OptionKind kind, std::string_view text) {
  std::size_t n = 0;
  double x = 0;
  if (kind == OptionKind::flag && (text == "true" || text == "false")) return text == "true";
  if (kind == OptionKind::count && parse(text, n)) return n;
  if (kind == OptionKind::number && parse(text, x)) return x;
  if (kind == OptionKind::word) return std::string(text);
  if (kind != OptionKind::numbers) return {};
  std::vector<double> all;
  for (std::size_t begin = 0; begin < text.size() && text != kNothing;) {
    const std::size_t end = std::min(text.find(' ', begin), text.size());
    if (!parse(text.substr(begin, end - begin), x)) return {};
    all.push_back(x);
    begin = end + 1;
  }
  return all;
}

/// The next line, without its end; `rest` becomes what follows.
std::string_view next_line(std::string_view& rest) {
  const std::size_t end = std::min(rest.find('\n'), rest.size());
  const std::string_view line = rest.substr(0, end);
  rest.remove_prefix(std::min(end + 1, rest.size()));
  return line;
}

void require_version(std::string_view line) {
  std::size_t version = 0;
  require(line.starts_with(kVersion) && line.size() > kVersion.size() &&
              parse(line.substr(kVersion.size() + 1), version),
          "options begin with '{}', must begin with a version", line.substr(0, 40));
  if (version > kTextVersion)
    fail(ErrorCode::unsupported, "options are of version {}, known is {}", version, kTextVersion);
  require(version == kTextVersion, "options are of version {}, must be of {}", version,
          kTextVersion);
}

}  // namespace

void DecodeOption::set(DecodeParams& params, const OptionValue& value) const {
  const bool fits = value.index() == 0           ? of_given_plan()
                    : kind == OptionKind::flag   ? std::holds_alternative<bool>(value)
                    : kind == OptionKind::count  ? std::holds_alternative<std::size_t>(value)
                    : kind == OptionKind::number ? std::holds_alternative<double>(value)
                    : kind == OptionKind::word   ? std::holds_alternative<std::string>(value)
                                               : std::holds_alternative<std::vector<double>>(value);
  require(fits, "{} is '{}', must be {}", name, shown(value), kind_name(kind));
  if (const auto* text = std::get_if<std::string>(&value))
    require(std::find(words.begin(), words.end(), *text) != words.end(), "{} is '{}', must be {}",
            name, *text, allowed());
  require(!of_given_plan() || value.index() == 0 || params.given || name == "retriever",
          "{} is {}, but only a given plan has one: give a retriever", name, shown(value));
  take(params, value);
}

std::string DecodeOption::text(const DecodeParams& params) const { return shown(get(params)); }

void DecodeOption::set_text(DecodeParams& params, std::string_view text) const {
  // Of a plan that is given, only the limit may be left out.
  const bool nothing = text == kNothing && of_given_plan() &&
                       (!params.given || name == "retriever" || name == "limit");
  const OptionValue value = nothing ? OptionValue() : parsed(kind, text);
  require(nothing || value.index() != 0, "{} is '{}', must be {}", name, text, kind_name(kind));
  set(params, value);
}

void DecodeOption::validate(const DecodeParams& params) const {
  const OptionValue value = get(params);
  bool in_range = true;
  if (const auto* n = std::get_if<std::size_t>(&value))
    in_range = range.holds(static_cast<double>(*n));
  if (const auto* x = std::get_if<double>(&value)) in_range = range.holds(*x);
  if (const auto* text = std::get_if<std::string>(&value))
    in_range = std::find(words.begin(), words.end(), *text) != words.end();
  if (const auto* all = std::get_if<std::vector<double>>(&value))
    for (std::size_t i = 0; i < all->size(); ++i)
      require(range.holds((*all)[i]), "{}[{}] is {}, must be {}", name, i, (*all)[i], allowed());
  require(in_range, "{} is {}, must be {}", name, shown(value), allowed());
}

void DecodeOption::require_read(const DecodeParams& params) const {
  const std::string why = unread(params);
  require(why.empty(), "{} is {}, but {}", name, text(params), why);
}

std::string DecodeOption::allowed() const {
  if (!words.empty()) {
    std::string all;
    for (const std::string_view word : words)
      all += fmt::format("{}{}", all.empty() ? "" : word == words.back() ? " or " : ", ", word);
    return all;
  }
  const bool below = std::isfinite(range.most), above = std::isfinite(range.least);
  if (kind == OptionKind::flag) return "true or false";
  if (kind == OptionKind::count && !below && range.least == 0) return "a whole number";
  if (kind == OptionKind::count && below) return fmt::format("at most {}", range.most);
  if (below)
    return fmt::format("in {}{}, {}{}", range.with_least ? '[' : '(', range.least, range.most,
                       range.with_most ? ']' : ')');
  if (above) return fmt::format("{} {}", range.with_least ? "at least" : "above", range.least);
  return "finite";
}

std::string to_text(const DecodeParams& params) {
  if (params.index)
    fail(ErrorCode::unsupported,
         "params.index is a search of the caller's own, which no file can hold: keep what it was "
         "prefilled from, and prefill again");
  std::string all = fmt::format("{} {}\n", kVersion, kTextVersion);
  for (const DecodeOption& option : decode_options())
    all += fmt::format("{} {}\n", option.name, option.text(params));
  return all;
}

DecodeParams decode_params_from(std::string_view text) {
  require_version(next_line(text));
  std::map<std::string_view, std::string_view> values;
  while (!text.empty()) {
    const std::string_view line = next_line(text), name = line.substr(0, line.find(' '));
    require(name.size() < line.size(), "option '{}' has no value", name);
    const bool first =
        values.emplace(decode_option(name).name, line.substr(name.size() + 1)).second;
    require(first, "option {} is there twice", name);
  }
  for (const DecodeOption& option : decode_options())
    require(values.contains(option.name), "option {} is missing", option.name);
  DecodeParams params;
  for (const DecodeOption& option : decode_options())
    option.set_text(params, values.at(option.name));
  return params;
}

}  // namespace keyseek
