/// Takes the training queries of a router out of its arrays, and puts them there by cluster.
#include "router/members.hpp"

#include <algorithm>
#include <numeric>

#include "base/fail.hpp"

namespace keyseek {

void add_members(std::span<const std::uint32_t> cluster, std::span<const std::uint8_t> codes,
                 std::span<const float> scales, std::span<const std::uint32_t> list_offsets,
                 std::span<const std::uint16_t> gaps, std::vector<Member>& members) {
  const std::size_t cols = scales.empty() ? 0 : codes.size() / scales.size();
  for (std::size_t i = 0; i < scales.size(); ++i) {
    members.push_back({cluster[i], codes.subspan(i * cols, cols), scales[i],
                       gaps.subspan(list_offsets[i], list_offsets[i + 1] - list_offsets[i])});
  }
}

std::vector<Member> members_of(const Router::Parts& parts) {
  std::vector<std::uint32_t> cluster(parts.scales.size());
  for (std::uint32_t c = 0; c + 1 < parts.cluster_offsets.size(); ++c) {
    std::fill(cluster.begin() + parts.cluster_offsets[c],
              cluster.begin() + parts.cluster_offsets[c + 1], c);
  }
  std::vector<Member> members;
  add_members(cluster, parts.codes.span(), parts.scales.span(), parts.list_offsets.span(),
              parts.gaps.span(), members);
  return members;
}

std::span<const std::uint16_t> gaps_below(std::span<const std::uint16_t> gaps,
                                          std::size_t n) noexcept {
  std::size_t id = 0, kept = 0;
  for (std::size_t i = 0; i < gaps.size(); ++i) {
    id += gaps[i];
    if (id >= n) break;
    if (gaps[i] != kFullGap) kept = i + 1;
  }
  return gaps.first(kept);
}

void place(std::vector<Member> members, std::size_t clusters, Router::Parts& parts) {
  std::stable_sort(members.begin(), members.end(),
                   [](const Member& a, const Member& b) { return a.cluster < b.cluster; });
  AlignedVector<std::uint32_t> cluster_offsets(clusters + 1), list_offsets{0};
  AlignedVector<std::uint8_t> codes;
  AlignedVector<float> scales;
  AlignedVector<std::uint16_t> gaps;
  std::size_t total = 0;
  for (const Member& member : members) total += member.gaps.size();
  require(total < kNoId,
          "the router's lists hold {} keys, at most {} are possible: keep fewer queries", total,
          kNoId);
  gaps.reserve(total);
  for (const Member& member : members) {
    ++cluster_offsets[member.cluster + 1];
    codes.insert(codes.end(), member.code.begin(), member.code.end());
    scales.push_back(member.scale);
    gaps.insert(gaps.end(), member.gaps.begin(), member.gaps.end());
    list_offsets.push_back(static_cast<std::uint32_t>(gaps.size()));
  }
  std::partial_sum(cluster_offsets.begin(), cluster_offsets.end(), cluster_offsets.begin());
  parts.cluster_offsets = SharedArray(std::move(cluster_offsets));
  parts.codes = SharedArray(std::move(codes));
  parts.scales = SharedArray(std::move(scales));
  parts.list_offsets = SharedArray(std::move(list_offsets));
  parts.gaps = SharedArray(std::move(gaps));
}

}  // namespace keyseek
