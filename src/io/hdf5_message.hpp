/// What a process and its HDF5 helper say to each other over a socket: fields in an agreed order,
/// behind their length. Whoever takes a field checks that it is there.
#pragma once

#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>
#include <type_traits>

#include "base/fail.hpp"
#include "io/hdf5_backend.hpp"

namespace keyseek::io::hdf5 {

/// Descriptors of a helper: the file, the socket, and memory that both sides map.
inline constexpr int kHelperFile = 3, kHelperSocket = 4, kHelperMemory = 5;

enum class Ask : std::uint8_t { open = 0, has, names, dataset, read, text, number };

class Message {
 public:
  Message() = default;
  explicit Message(std::string bytes) : bytes_(std::move(bytes)) {}

  template <class T>
  Message& put(T value) {
    static_assert(std::is_trivially_copyable_v<T> && !std::is_pointer_v<T>);
    bytes_.append(reinterpret_cast<const char*>(&value), sizeof value);
    return *this;
  }
  Message& put_text(std::string_view text) {
    put<std::uint64_t>(text.size());
    bytes_.append(text);
    return *this;
  }
  template <class T>
  T take() {
    T value{};
    std::memcpy(&value, next(sizeof value), sizeof value);
    return value;
  }
  std::string take_text() {
    const auto size = take<std::uint64_t>();
    const char* const text = next(size);
    return {text, size};
  }
  [[nodiscard]] const std::string& bytes() const noexcept { return bytes_; }

 private:
  const char* next(std::uint64_t size) {
    if (size > bytes_.size() - at_) fail(ErrorCode::corrupt, "the HDF5 helper breaks off");
    at_ += size;
    return bytes_.data() + (at_ - size);
  }

  std::string bytes_;
  std::size_t at_ = 0;
};

/// Longest message: names and sentences, never elements.
inline constexpr std::uint64_t kLongestMessage = std::uint64_t{1} << 26U;

}  // namespace keyseek::io::hdf5
