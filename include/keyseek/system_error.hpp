/// What the operating system refused, for those who want more than the sentence.
///
/// An Error(io) with the system's error number and the file. A value; reading one is thread-safe.
///
///     try {
///       index = keyseek::Index::open("head.ks");
///     } catch (const keyseek::SystemError& e) {
///       if (e.number() != ENOENT) throw;
///       build();  // there is none yet
///     }
#pragma once

#include <filesystem>
#include <string>
#include <utility>

#include "keyseek/error.hpp"

namespace keyseek {

class SystemError : public Error {
 public:
  SystemError(const std::string& sentence, int number, std::filesystem::path path)
      : Error(ErrorCode::io, sentence), number_(number), path_(std::move(path)) {}
  [[nodiscard]] int number() const noexcept { return number_; }  ///< errno
  [[nodiscard]] const std::filesystem::path& path() const noexcept { return path_; }

 private:
  int number_;
  std::filesystem::path path_;
};

}  // namespace keyseek
