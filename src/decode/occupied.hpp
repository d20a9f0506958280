/// Who is at work on a head, and that it is one only.
#pragma once

#include "keyseek/decode.hpp"

namespace keyseek {

/// Work on one value, for as long as this lives.
class Occupied {
 public:
  /// Throws Error when somebody else is at work.
  explicit Occupied(Occupancy& occupancy);
  ~Occupied() { occupancy_.leave(); }
  Occupied(const Occupied&) = delete;
  Occupied& operator=(const Occupied&) = delete;

 private:
  Occupancy& occupancy_;
};

/// Work on the heads of one call, each on any thread of a pool: all are done, or none.
class OccupiedHeads {
 public:
  /// Throws Error when one is named twice, or somebody else is at work on it.
  explicit OccupiedHeads(std::span<HeadCache* const> heads);
  ~OccupiedHeads() { leave(heads_.size()); }
  OccupiedHeads(const OccupiedHeads&) = delete;
  OccupiedHeads& operator=(const OccupiedHeads&) = delete;

  void append(MatrixView<float> keys, MatrixView<float> values, DecodePool& pool);
  void attend(MatrixView<float> queries, DecodePool& pool, float* out);
  void step(MatrixView<float> queries, MatrixView<float> keys, MatrixView<float> values,
            DecodePool& pool, float* out);
  void step_beside_static(MatrixView<float> queries, MatrixView<float> keys,
                          MatrixView<float> values, DecodePool& pool, float* out, float* lse);

 private:
  /// body(i, head, scratch) for each; when one throws, `undo` for those that are done.
  template <class Body>
  void each(DecodePool& pool, void (HeadCache::*undo)() noexcept, Body body);
  void leave(std::size_t count) noexcept;

  std::span<HeadCache* const> heads_;
};

}  // namespace keyseek
