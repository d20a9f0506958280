/// A set of ids that gives its members in order.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "keyseek/matrix.hpp"

namespace keyseek {

/// A bit for each id, and a bit for each word of these that may hold one: adding costs what is
/// added, and so does draining but for one bit in 4,096 ids.
class IdSet {
 public:
  /// Ids are below n from here on. Members stay.
  void resize(std::size_t n) {
    const std::size_t words = (n + kBits - 1) / kBits;
    if (words_.size() >= words) return;
    used_.resize((words + kBits - 1) / kBits);  // first: without memory for both, neither counts
    words_.resize(words);
  }

  void add(Id id) noexcept {
    const std::size_t word = id / kBits;
    words_[word] |= std::uint64_t{1} << id % kBits;
    used_[word / kBits] |= std::uint64_t{1} << word % kBits;
  }

  void remove(std::span<const Id> ids) noexcept {
    for (const Id id : ids) words_[id / kBits] &= ~(std::uint64_t{1} << id % kBits);
  }

  /// Moves the members behind those of `out`, in order.
  void drain(std::vector<Id>& out) {
    for (std::size_t u = 0; u < used_.size(); ++u) {
      for (; used_[u] != 0; used_[u] &= used_[u] - 1) {
        const std::size_t word = u * kBits + static_cast<std::size_t>(std::countr_zero(used_[u]));
        for (; words_[word] != 0; words_[word] &= words_[word] - 1) {
          out.push_back(static_cast<Id>(word * kBits +
                                        static_cast<std::size_t>(std::countr_zero(words_[word]))));
        }
      }
    }
  }

 private:
  static constexpr std::size_t kBits = 64;
  std::vector<std::uint64_t> words_;
  std::vector<std::uint64_t> used_;
};

}  // namespace keyseek
