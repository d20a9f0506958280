/// The training queries of a router on their way into its arrays.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "keyseek/router.hpp"

namespace keyseek {

/// As a gap, adds so much and names no key.
inline constexpr std::uint16_t kFullGap = 0xffff;

/// One training query, wherever it is kept.
struct Member {
  std::uint32_t cluster;
  std::span<const std::uint8_t> code;
  float scale;
  std::span<const std::uint16_t> gaps;
};

/// Appends the queries of `codes` etc. to `members`.
void add_members(std::span<const std::uint32_t> cluster, std::span<const std::uint8_t> codes,
                 std::span<const float> scales, std::span<const std::uint32_t> list_offsets,
                 std::span<const std::uint16_t> gaps, std::vector<Member>& members);

/// Those of a router, whose parts they look at.
[[nodiscard]] std::vector<Member> members_of(const Router::Parts& parts);

/// The gaps of a list that name keys below n.
[[nodiscard]] std::span<const std::uint16_t> gaps_below(std::span<const std::uint16_t> gaps,
                                                        std::size_t n) noexcept;

/// Sorts the members by cluster into the parts.
void place(std::vector<Member> members, std::size_t clusters, Router::Parts& parts);

}  // namespace keyseek
