// Selection by bisection, over the including unit's `range_of`, `count_above` and
// `compress_above`: a few passes of compare-and-count cost less than one partition with
// its unpredictable branches.

namespace {

/// Halves the range of the bar until few enough items stay above it. The number above only
/// depends on the items, so every instruction set keeps the same ones.
std::size_t keep_top(std::uint64_t* items, std::size_t n, std::size_t at_least, std::size_t at_most,
                     std::uint64_t* bar) {
  *bar = 0;
  if (n <= at_most) return n;
  // Invariant: more than at_most items are above low, fewer than at_least above high.
  std::uint64_t low, high;
  range_of(items, n, &low, &high);
  low = low == 0 ? 0 : low - 1;
  for (;;) {
    const std::uint64_t middle = low + (high - low) / 2;
    const std::size_t above = count_above(items, n, middle);
    if (above > at_most) {
      low = middle;
    } else if (above < at_least) {
      high = middle;
    } else {
      *bar = middle;
      return compress_above(items, n, middle);
    }
  }
}

}  // namespace
