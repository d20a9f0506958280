/// Who is at work on a head, and that it is one only.
#pragma once

#include <atomic>

namespace keyseek {

/// Says that a value is at work, so that whoever else comes is refused. A copy starts idle: whoever
/// copies another's value asks for `require_idle` first.
class Occupancy {
 public:
  Occupancy() = default;
  Occupancy(const Occupancy& /*other*/) noexcept {}
  Occupancy& operator=(const Occupancy&) = delete;
  ~Occupancy() = default;

  /// False when somebody else is at work.
  [[nodiscard]] bool enter() noexcept { return !busy_.exchange(true, std::memory_order_acquire); }
  void leave() noexcept { busy_.store(false, std::memory_order_release); }
  void require_idle() const;  ///< throws Error

  bool done = false;  ///< a note of who is at work

 private:
  std::atomic<bool> busy_ = false;
};

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

/// What whoever comes second is told.
inline constexpr const char* kOccupied =
    "another thread is at work on this HeadCache: it serves one at a time, give each thread a copy";

}  // namespace keyseek
