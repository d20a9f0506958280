/// How many keys go on to the next look, in every search.
///
/// A look that is not exact orders keys a little wrongly, so more than k of them go on to the next
/// one. How deep the true k best stand in the order of each look is what `keyseek_pools`
/// (bench/pools) prints for a head of a capture. On those of the sample, 99 % of the queries lose
/// none of their 100 best when 112 go on from trained codes, 112 to 119 from plain ones; the rules
/// take some more, for heads that are worse. From a sketch to the exact scores: sketches differ too
/// much for a rule, so each is measured when it is built (Sketch::pool).
#pragma once

#include <cstddef>

#include "keyseek/search.hpp"

namespace keyseek {

/// From a scan of codes that were made for the queries to the exact scores, for lists that are to
/// hold the true top k (recall .9999).
[[nodiscard]] std::size_t list_pool(std::size_t k, std::size_t d) noexcept;

/// Likewise in a step of a search, where a key that hardly differs from the k-th may be missed.
[[nodiscard]] std::size_t trained_pool(std::size_t k, std::size_t d) noexcept;

/// From a scan of codes that know nothing of the queries: the k best stand a little deeper.
[[nodiscard]] std::size_t untrained_pool(std::size_t k) noexcept;

/// From the codes to the exact scores in a projection search: what the codes ask for, and all whose
/// links are followed. The dials may say another number.
[[nodiscard]] std::size_t projection_pool(std::size_t k, std::size_t d,
                                          const Dials& dials) noexcept;

}  // namespace keyseek
