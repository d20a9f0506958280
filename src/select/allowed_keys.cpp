/// A set of keys in bits.
#include "keyseek/allowed_keys.hpp"

#include <algorithm>
#include <bit>

#include "base/fail.hpp"

namespace keyseek {

void AllowedKeys::allow(Id id) {
  require(id < keys_, "allowed names key {}, but there are {}", id, keys_);
  const std::uint64_t bit = std::uint64_t{1} << (id % 64);
  count_ += (words_[id / 64] & bit) == 0 ? 1 : 0;
  words_[id / 64] |= bit;
}

void AllowedKeys::first(std::size_t most, std::vector<Id>& ids) const {
  const std::size_t wanted = std::min(most, count_);
  ids.clear();
  ids.reserve(wanted);
  for (std::size_t word = 0; ids.size() < wanted; ++word) {
    for (std::uint64_t bits = words_[word]; bits != 0 && ids.size() < wanted; bits &= bits - 1)
      ids.push_back(static_cast<Id>(word * 64 + static_cast<std::size_t>(std::countr_zero(bits))));
  }
}

}  // namespace keyseek
