/// Tells by the ending of a file's name what it is expected to hold.
#include "cli/file_kind.hpp"

#include <algorithm>
#include <array>
#include <cctype>
#include <string_view>
#include <utility>

#include "keyseek/io.hpp"

namespace keyseek::cli {

FileKind file_kind(const std::string& name) {
  // The first that fits: a capture's name ends like a benchmark's.
  constexpr std::array<std::pair<std::string_view, FileKind>, 12> kEndings = {{
      {".attn.h5", FileKind::capture},
      {".h5", FileKind::benchmark},
      {".hdf5", FileKind::benchmark},
      {".fbin", FileKind::vectors},
      {".f16bin", FileKind::vectors},
      {".i8bin", FileKind::vectors},
      {".u8bin", FileKind::vectors},
      {".fvecs", FileKind::vectors},
      {".bvecs", FileKind::vectors},
      {".ibin", FileKind::ids},
      {".ivecs", FileKind::ids},
      {".npy", FileKind::npy},
  }};
  const io::DataName data = io::parse_data_name(name);
  if (data.layer) return FileKind::capture;
  std::string lower = data.path.string();
  std::transform(lower.begin(), lower.end(), lower.begin(),
                 [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  const auto found = std::find_if(kEndings.begin(), kEndings.end(),
                                  [&](const auto& e) { return lower.ends_with(e.first); });
  return found == kEndings.end() ? FileKind::other : found->second;
}

}  // namespace keyseek::cli
