/// The options of decoding by name: one table of what DecodeParams has, in groups, each with its
/// range and its meaning.
///
/// Whatever reads or shows options goes by it: `DecodeParams::validate`, a head's file, Python's
/// `keyseek.DecodeParams`, the options of `keyseek decode`, and docs/decode-options.md. Only
/// `DecodeParams::index`, a function, is not in it.
///
/// The table never changes. Functions are pure but for the params they are given.
///
///     keyseek::DecodeParams params{.scale = 0.125F};
///     keyseek::decode_option("sink").set_text(params, "64");
///     for (const keyseek::DecodeOption& option : keyseek::decode_options())
///       std::cout << option.name << ' ' << option.text(params) << ": " << option.allowed() <<
///       '\n';
#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "keyseek/decode_params.hpp"

namespace keyseek {

/// Nothing (what only a given plan has, and there is none; a limit that is not given); yes or no; a
/// count; a number; a word; numbers.
using OptionValue =
    std::variant<std::monostate, bool, std::size_t, double, std::string, std::vector<double>>;

/// Which of them an option takes, nothing apart.
enum class OptionKind : std::uint8_t { flag, count, number, word, numbers };

/// Numbers from `least` to `most`, with or without these themselves.
struct OptionRange {
  double least = -std::numeric_limits<double>::infinity();
  double most = std::numeric_limits<double>::infinity();
  bool with_least = false, with_most = false;

  [[nodiscard]] bool holds(double x) const noexcept {
    return (with_least ? x >= least : x > least) && (with_most ? x <= most : x < most);
  }
};

struct DecodeOption {
  std::string_view group, name;
  OptionKind kind;
  OptionRange range;  ///< of counts and numbers
  std::span<const std::string_view> words;
  std::string_view meaning;
  OptionValue (*get)(const DecodeParams& params);
  /// Stores what `set` has found to be of its kind.
  void (*take)(DecodeParams& params, const OptionValue& value);
  /// Why nobody reads the option where `params` are asked for, as what follows "sink is 4, but ";
  /// empty where it is read.
  std::string (*unread)(const DecodeParams& params);

  /// Then its value may be nothing.
  [[nodiscard]] bool of_given_plan() const noexcept { return group == "given plan"; }
  /// Throws Error(invalid_argument) that names the option and the value, when it is of another
  /// kind. Ranges are left to `validate`.
  void set(DecodeParams& params, const OptionValue& value) const;
  /// The value as text, "-" for nothing, and its way back: it comes back as it was, bit by bit.
  [[nodiscard]] std::string text(const DecodeParams& params) const;
  void set_text(DecodeParams& params, std::string_view text) const;
  /// Throws Error(invalid_argument) that names option, value and reason where nobody reads it: for
  /// options that were given by name, be their value the default.
  void require_read(const DecodeParams& params) const;
  /// Throws Error(invalid_argument) unless the value is in range.
  void validate(const DecodeParams& params) const;
  /// "in (0, 1)", "at least 1", "top-k, dipr or mass", ...; empty: any.
  [[nodiscard]] std::string allowed() const;
};

/// All of them, group by group.
[[nodiscard]] std::span<const DecodeOption> decode_options();
/// Throws Error(invalid_argument), with the names that there are, when there is none.
[[nodiscard]] const DecodeOption& decode_option(std::string_view name);

/// The same, with what nobody reads as it is by default: to try one set of options with several
/// retrievers.
[[nodiscard]] DecodeParams without_unread(DecodeParams params);

/// A line "version 2", then a line "name value" for every option. Throws Error(unsupported) when
/// `params.index` is there, which no text can hold.
[[nodiscard]] std::string to_text(const DecodeParams& params);
/// Throws Error(invalid_argument) that names a missing, unknown or repeated option, or a value that
/// of another kind; Error(unsupported) for a newer version. Ranges are left to `validate`.
[[nodiscard]] DecodeParams decode_params_from(std::string_view text);

}  // namespace keyseek
