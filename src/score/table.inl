// The table of the including unit's kernels: the last of its pieces.

namespace {

constexpr Kernels table_of(Isa isa) {
  return {isa,
          {score_rows<LoadF32>, score_rows<LoadF16>, score_rows<LoadBF16>, score_rows<LoadI8>},
          score_codes,
          scan_blocks<Bytes>,
          scan_blocks<Halves>,
          select_above,
          keep_top,
          rank_descending,
          softmax_rows,
          cap,
          {add_rows<LoadF32>, add_rows<LoadF16>, add_rows<LoadBF16>, add_rows<LoadI8>}};
}

}  // namespace
