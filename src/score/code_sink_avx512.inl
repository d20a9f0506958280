// Where the sums of a block go that are made 16 at a time.

namespace {

/// The keys of one block that are above their query's limit, into the sink.
class BlockSink {
 public:
  BlockSink(const CodeBlocks& blocks, std::size_t block, const CodeTile& tile, const float* limit,
            const ScanSink& sink)
      : tile_(tile),
        limit_(limit),
        sink_(sink),
        key_scale_(_mm512_loadu_ps(blocks.scales + block * 16)),
        real_(_mm512_cmp_ps_mask(key_scale_, _mm512_setzero_ps(), _CMP_GT_OQ)),
        ids_(_mm512_add_epi32(
            _mm512_set1_epi32(static_cast<int>(block * 16)),
            _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0))) {}

  /// `dots`: of the keys with query g, less the correction.
  void keep(std::size_t g, __m512i dots) const {
    const __m512 score = _mm512_mul_ps(key_scale_, _mm512_cvtepi32_ps(dots));
    const __mmask16 above =
        _mm512_mask_cmp_ps_mask(real_, score, _mm512_set1_ps(limit_[g]), _CMP_GT_OQ);
    if (above == 0) return;
    const std::size_t at = g * sink_.stride + sink_.count[g];
    _mm512_mask_compressstoreu_epi32(sink_.ids + at, above, ids_);
    _mm512_mask_compressstoreu_ps(sink_.scores + at, above,
                                  _mm512_mul_ps(_mm512_set1_ps(tile_.scale[g]), score));
    sink_.count[g] += static_cast<std::size_t>(__builtin_popcount(above));
  }

 private:
  const CodeTile& tile_;
  const float* limit_;
  const ScanSink& sink_;
  __m512 key_scale_;
  __mmask16 real_;
  __m512i ids_;
};

}  // namespace
