/// A search of the caller's own, whose answers are checked before anything is read by them.
#pragma once

#include "keyseek/decode_params.hpp"

namespace keyseek {

/// `search` over `keys`. Its searches throw Error unless hits are of the queries asked, no more
/// than k each, best first, no key twice, and scores are inner products with the keys named: close
/// to them, as they may have been computed in 16 bits.
[[nodiscard]] SearchKeys checked(SearchKeys search, AnyMatrix keys);

}  // namespace keyseek
