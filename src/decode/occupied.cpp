#include "decode/occupied.hpp"

#include <algorithm>

#include "base/fail.hpp"

namespace keyseek {
namespace {

constexpr const char* kOccupied =
    "another thread is at work on this HeadCache: it serves one at a time, give each thread a copy";

}  // namespace

void Occupancy::require_idle() const { require(!busy_.load(std::memory_order_acquire), kOccupied); }

Occupied::Occupied(Occupancy& occupancy) : occupancy_(occupancy) {
  require(occupancy_.enter(), kOccupied);
}

OccupiedHeads::OccupiedHeads(std::span<HeadCache* const> heads) : heads_(heads) {
  for (std::size_t i = 0; i < heads.size(); ++i) {
    if (heads[i]->occupancy_.enter()) {
      heads[i]->occupancy_.done = false;
      continue;
    }
    leave(i);
    const auto first = std::find(heads.begin(), heads.end(), heads[i]) - heads.begin();
    require(static_cast<std::size_t>(first) == i,
            "heads[{}] and heads[{}] are the same HeadCache: name each once", first, i);
    fail(ErrorCode::invalid_argument, "heads[{}]: {}", i, kOccupied);
  }
}

void OccupiedHeads::leave(std::size_t count) noexcept {
  for (HeadCache* head : heads_.first(count)) head->occupancy_.leave();
}

template <class Body>
void OccupiedHeads::each(DecodePool& pool, void (HeadCache::*undo)() noexcept, Body body) {
  try {
    pool.run(heads_.size(), [&](std::size_t i, DecodeScratch& scratch) {
      body(i, *heads_[i], scratch);
      heads_[i]->occupancy_.done = true;
    });
  } catch (...) {
    for (HeadCache* head : heads_)
      if (head->occupancy_.done) (head->*undo)();
    throw;
  }
}

void OccupiedHeads::append(MatrixView<float> keys, MatrixView<float> values, DecodePool& pool) {
  each(pool, &HeadCache::drop_token, [&](std::size_t i, HeadCache& head, DecodeScratch&) {
    head.take_token(keys.row(i), values.row(i));
  });
}

void OccupiedHeads::attend(MatrixView<float> queries, DecodePool& pool, float* out) {
  each(pool, &HeadCache::forget_attention,
       [&](std::size_t i, HeadCache& head, DecodeScratch& scratch) {
         const std::size_t group = head.group();
         head.attend_all(queries.slice(i * group, group), scratch,
                         out + i * group * head.value_dim());
       });
}

void OccupiedHeads::step(MatrixView<float> queries, MatrixView<float> keys,
                         MatrixView<float> values, DecodePool& pool, float* out) {
  each(pool, &HeadCache::undo_step, [&](std::size_t i, HeadCache& head, DecodeScratch& scratch) {
    const std::size_t group = head.group();
    head.step_over_all(queries.slice(i * group, group), keys.row(i), values.row(i), scratch,
                       out + i * group * head.value_dim());
  });
}

void OccupiedHeads::step_beside_static(MatrixView<float> queries, MatrixView<float> keys,
                                       MatrixView<float> values, DecodePool& pool, float* out,
                                       float* lse) {
  each(pool, &HeadCache::undo_step, [&](std::size_t i, HeadCache& head, DecodeScratch& scratch) {
    const std::size_t group = head.group();
    head.step_over_rest(queries.slice(i * group, group), keys.row(i), values.row(i), scratch,
                        out + i * group * head.value_dim(), lse + i * group);
  });
}

}  // namespace keyseek
