/// The KV heads of a layer, to be decoded beside a device: from a capture, or made.
#pragma once

#include <cstddef>
#include <filesystem>
#include <vector>

#include "keyseek/decode_pool.hpp"

namespace keyseek::bench {

struct DecodedHead {
  AnyMatrix keys, values;  ///< [tokens, d]
  /// [asked * group, d] of the newest `asked` tokens, in the element type of the keys.
  AnyMatrix queries;
  std::size_t group = 1;
  DecodeParams params;

  [[nodiscard]] std::size_t tokens() const { return keys.rows(); }
  /// The group's queries of a token that has them.
  [[nodiscard]] AnyMatrixView at(std::size_t token) const;
  /// A cache of the first `prompt` tokens.
  [[nodiscard]] HeadCache planned(std::size_t prompt) const;
};

/// The shape of a layer of Llama-3-8B, with random vectors that no plan can do anything with: the
/// plan is given, a flat search for 100 keys.
[[nodiscard]] std::vector<DecodedHead> made_heads(std::size_t tokens);

/// The first `tokens` tokens of every head of a capture, as if they were one layer's; planned for
/// the default max_error. Throws Error when there are fewer tokens.
[[nodiscard]] std::vector<DecodedHead> captured_heads(const std::filesystem::path& capture,
                                                      std::size_t tokens);

}  // namespace keyseek::bench
