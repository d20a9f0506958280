/// What a file's name says about its format.
#pragma once

#include <algorithm>
#include <cctype>
#include <filesystem>
#include <string>

namespace keyseek::io {

/// In lower case, with its dot; empty without one.
[[nodiscard]] inline std::string extension_of(const std::filesystem::path& path) {
  std::string text = path.extension().string();
  std::transform(text.begin(), text.end(), text.begin(),
                 [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  return text;
}

[[nodiscard]] inline bool is_hdf5(const std::filesystem::path& path) {
  const std::string extension = extension_of(path);
  return extension == ".h5" || extension == ".hdf5";
}

}  // namespace keyseek::io
