// The refusal of a second thread that comes to a value at work.
#include "decode/occupancy.hpp"

#include "base/fail.hpp"

namespace keyseek {

void Occupancy::require_idle() const { require(!busy_.load(std::memory_order_acquire), kOccupied); }

Occupied::Occupied(Occupancy& occupancy) : occupancy_(occupancy) {
  require(occupancy_.enter(), kOccupied);
}

}  // namespace keyseek
