// Softmax weights and weighted sums of stored values, for the instruction set of the including
// unit; uses the loads of float_rows.inl.

namespace {

/// Turns logits [n, group] into exp(scale * (logit - best[g])) and writes best[g], the largest
/// logit of query g, and sum[g], the sum of its weights. n >= 1, group <= kMaxGroup.
///
/// A vector holds kLanes neighbours of the flat array. `group` vectors in a row hold every
/// query equally often and always in the same lanes, so each has a best and a sum of its own.
void softmax_rows(float* logits, std::size_t n, std::size_t group, float scale, float* best,
                  float* sum) {
  constexpr std::size_t kMost = kMaxGroup * kLanes;
  const std::size_t period = group * kLanes, total = n * group, whole = total / period * period;
  alignas(64) float bests[kMost];
  alignas(64) float sums[kMost];
  for (std::size_t i = 0; i < period; ++i) {
    bests[i] = logits[i % group];
    sums[i] = 0.0F;
  }
  for (std::size_t i = 0; i < whole; i += period) {
    for (std::size_t v = 0; v < period; v += kLanes) {
      xsimd::max(Floats::load_aligned(bests + v), Floats::load_unaligned(logits + i + v))
          .store_aligned(bests + v);
    }
  }
  for (std::size_t g = 0; g < group; ++g) {
    best[g] = bests[g];
    sum[g] = 0.0F;
  }
  for (std::size_t i = group; i < period; ++i) {
    if (bests[i] > best[i % group]) best[i % group] = bests[i];
  }
  for (std::size_t i = whole; i < total; ++i) {
    if (logits[i] > best[i % group]) best[i % group] = logits[i];
  }

  for (std::size_t i = 0; i < period; ++i) bests[i] = best[i % group];
  const Floats factor(scale);
  for (std::size_t i = 0; i < whole; i += period) {
    for (std::size_t v = 0; v < period; v += kLanes) {
      const Floats weight = xsimd::exp(factor * (Floats::load_unaligned(logits + i + v) -  //
                                                 Floats::load_aligned(bests + v)));
      weight.store_unaligned(logits + i + v);
      (Floats::load_aligned(sums + v) + weight).store_aligned(sums + v);
    }
  }
  // The rest, less than a period: in vectors too, since an exp of one number costs as much.
  alignas(64) float rest[kMost];
  const std::size_t left = total - whole;
  for (std::size_t i = 0; i < left; ++i) rest[i] = logits[whole + i];
  for (std::size_t v = 0; v < left; v += kLanes) {
    for (std::size_t i = left; i < v + kLanes; ++i) rest[i] = bests[i];
    xsimd::exp(factor * (Floats::load_aligned(rest + v) - Floats::load_aligned(bests + v)))
        .store_aligned(rest + v);
  }
  for (std::size_t i = 0; i < left; ++i) {
    logits[whole + i] = rest[i];
    sums[i] += rest[i];
  }
  for (std::size_t i = 0; i < period; ++i) sum[i % group] += sums[i];
}

/// Turns inner products into softcap * tanh(scale * product / softcap), softcap > 0.
void cap(float* products, std::size_t n, float scale, float softcap) {
  const Floats factor(scale), most(softcap);
  const auto capped = [&](const Floats& x) { return most * xsimd::tanh(factor * x / most); };
  const std::size_t whole = n / kLanes * kLanes;
  for (std::size_t i = 0; i < whole; i += kLanes)
    capped(Floats::load_unaligned(products + i)).store_unaligned(products + i);
  if (whole == n) return;
  alignas(64) float rest[kLanes] = {};
  for (std::size_t i = whole; i < n; ++i) rest[i - whole] = products[i];
  capped(Floats::load_aligned(rest)).store_aligned(rest);
  for (std::size_t i = whole; i < n; ++i) products[i] = rest[i - whole];
}

/// Adds R rows, each times its weight, to the sums [group, d] of all queries.
template <class Load, int R>
inline void add_tile(const typename Load::Element* const* rows, const float* weights,
                     std::size_t group, std::size_t d, float* sums) {
  std::size_t c = 0;
  for (; c + kLanes <= d; c += kLanes) {
    Floats values[R];
    for (int r = 0; r < R; ++r) values[r] = Load::many(rows[r] + c);
    for (std::size_t g = 0; g < group; ++g) {
      float* to = sums + g * d + c;
      // Two chains: an addition waits for the one before it.
      Floats even = Floats::load_unaligned(to), odd(0.0F);
      for (int r = 0; r < R; ++r) {
        const Floats weight(weights[static_cast<std::size_t>(r) * group + g]);
        Floats& chain = r % 2 == 0 ? even : odd;
        chain = xsimd::fma(weight, values[r], chain);
      }
      (even + odd).store_unaligned(to);
    }
  }
  for (; c < d; ++c) {
    for (std::size_t g = 0; g < group; ++g) {
      for (int r = 0; r < R; ++r) {
        sums[g * d + c] += weights[static_cast<std::size_t>(r) * group + g] * Load::one(rows[r][c]);
      }
    }
  }
}

/// Adds each row times its weight to the sums of all queries.
template <class Load>
void add_rows(const RowsView& values, const WeightsView& weights, float* sums) {
  using Element = typename Load::Element;
  constexpr std::size_t kRows = 8, kAhead = 8;
  const auto* first = static_cast<const Element*>(values.matrix.data);
  const Id* ids = values.ids;
  const std::size_t n = values.count, d = values.matrix.cols, stride = values.matrix.stride;
  const std::size_t group = weights.group;
  const auto row = [&](std::size_t j) { return first + (ids != nullptr ? ids[j] : j) * stride; };
  const auto prefetch = [&](std::size_t j) {
    const char* line = reinterpret_cast<const char*>(row(j));
    for (std::size_t b = 0; b < d * sizeof(Element); b += 64) __builtin_prefetch(line + b);
  };
  std::size_t j = 0;
  for (; j < n && j < kAhead; ++j) prefetch(j);
  for (j = 0; j + kRows <= n; j += kRows) {
    for (std::size_t a = j + kAhead; a < j + kAhead + kRows && a < n; ++a) prefetch(a);
    const Element* rows[kRows];
    for (std::size_t r = 0; r < kRows; ++r) rows[r] = row(j + r);
    add_tile<Load, kRows>(rows, weights.data + j * group, group, d, sums);
  }
  for (; j < n; ++j) {
    const Element* rows[1] = {row(j)};
    add_tile<Load, 1>(rows, weights.data + j * group, group, d, sums);
  }
}

}  // namespace
