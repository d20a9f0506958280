/// A value that readers take whole while one writer replaces it.
///
/// Shares ownership of the state with whoever got it. `get` and `set` are thread-safe.
///
///     keyseek::Snapshot<std::string> name(std::make_shared<const std::string>("old"));
///     auto mine = name.get();
///     name.set(std::make_shared<const std::string>("new"));  // *mine is still "old"
#pragma once

#include <memory>
#include <mutex>
#include <utility>

namespace keyseek {

/// Holds an immutable state. `get` and `set` exclude each other for the time it takes to
/// copy a pointer; a reader keeps what it got for as long as it likes. Copying a Snapshot
/// copies the pointer: the two go separate ways from there.
template <class State>
class Snapshot {
 public:
  Snapshot() = default;
  explicit Snapshot(std::shared_ptr<const State> state) : state_(std::move(state)) {}
  Snapshot(const Snapshot& other) : state_(other.get()) {}
  Snapshot(Snapshot&& other) noexcept : state_(other.get()) {}
  Snapshot& operator=(const Snapshot& other) {
    if (this != &other) set(other.get());
    return *this;
  }
  Snapshot& operator=(Snapshot&& other) noexcept {
    set(other.get());
    return *this;
  }
  ~Snapshot() = default;

  [[nodiscard]] std::shared_ptr<const State> get() const {
    const std::lock_guard lock(mutex_);
    return state_;
  }
  void set(std::shared_ptr<const State> state) {
    const std::lock_guard lock(mutex_);
    state_.swap(state);
  }

 private:
  mutable std::mutex mutex_;
  std::shared_ptr<const State> state_;
};

}  // namespace keyseek
