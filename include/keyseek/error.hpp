/// The one exception type of keyseek.
///
/// Every public function refuses wrong input before it starts working, with an
/// `Error` whose sentence names the argument and the value. Nothing aborts, and
/// nothing is half-written when an `Error` leaves a function.
///
/// A value that owns its sentence; reading one is thread-safe.
///
///     try {
///       index = keyseek::Index::open("head.ks");
///     } catch (const keyseek::Error& e) {
///       if (e.code() != keyseek::ErrorCode::corrupt) throw;
///       rebuild(e.what());  // "head.ks: checksum of section 'codes' does not match"
///     }
#pragma once

#include <stdexcept>
#include <string>
#include <string_view>

namespace keyseek {

enum class ErrorCode {
  invalid_argument,  ///< a value that makes no sense, alone or beside another
  not_finite,        ///< NaN or infinity in keys, values or queries
  io,                ///< the operating system refused to open, read, write or rename
  corrupt,           ///< a file whose content contradicts itself or its checksum
  unsupported,       ///< a valid request that this build or file version cannot serve
  cancelled,         ///< the caller's progress function asked to stop
};

/// Short stable name of a code, e.g. "invalid_argument".
std::string_view to_string(ErrorCode code) noexcept;

class Error : public std::runtime_error {
 public:
  Error(ErrorCode code, const std::string& sentence) : std::runtime_error(sentence), code_(code) {}
  [[nodiscard]] ErrorCode code() const noexcept { return code_; }

 private:
  ErrorCode code_;
};

}  // namespace keyseek
