/// Handles and errors of the HDF5 C library, as values and keyseek::Error.
#pragma once

#include <hdf5.h>

#include <mutex>
#include <string>
#include <utility>

namespace keyseek::io::hdf5 {

/// An open HDF5 object; closed with the function that fits its kind.
class Handle {
 public:
  using Close = herr_t (*)(hid_t);
  Handle() = default;
  Handle(hid_t id, Close closer) : id_(id), close_(closer) {}
  Handle(Handle&& other) noexcept : id_(std::exchange(other.id_, -1)), close_(other.close_) {}
  Handle& operator=(Handle&& other) noexcept {
    std::swap(id_, other.id_);
    std::swap(close_, other.close_);
    return *this;
  }
  ~Handle() {
    if (id_ >= 0) close_(id_);
  }

  [[nodiscard]] explicit operator bool() const noexcept { return id_ >= 0; }
  [[nodiscard]] hid_t get() const noexcept { return id_; }

 private:
  hid_t id_ = -1;
  Close close_ = nullptr;
};

/// Use of the library by one thread, which keeps its state in globals. While a session
/// lives, errors go to nobody's stderr; the caller's handler is put back after it.
class Session {
 public:
  Session();
  ~Session();
  Session(const Session&) = delete;
  Session& operator=(const Session&) = delete;

 private:
  std::unique_lock<std::recursive_mutex> lock_;
  H5E_auto2_t handler_ = nullptr;
  void* handler_data_ = nullptr;
};

/// What the library says of its last failure.
[[nodiscard]] std::string reason();

/// IEEE binary16, little-endian: HDF5 has no such native type. NumPy's float16 as h5py
/// stores it.
[[nodiscard]] Handle half_type();

}  // namespace keyseek::io::hdf5
