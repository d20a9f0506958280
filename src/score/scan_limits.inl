// The beginning of a scan of blocks, for all of the including units.

namespace {

/// Nothing kept yet; and what a key's score has to be above, in units of the query's scale.
inline void begin_scan(const CodeTile& tile, const ScanSink& sink,
                       float (&limit)[CodeTile::kMaxTile]) {
  for (std::size_t g = 0; g < tile.group; ++g) {
    sink.count[g] = 0;
    limit[g] = sink.threshold[g] / tile.scale[g];
  }
}

}  // namespace
