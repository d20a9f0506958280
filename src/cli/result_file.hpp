/// Results as they come: one JSON object per line, appended to a file that a killed run
/// leaves usable.
#pragma once

#include <string>
#include <vector>

#include "cli/console.hpp"

namespace keyseek::cli {

/// A row is appended with one write and synced. While the object lives, no other process can
/// open the file with it.
class ResultFile {
 public:
  /// Opens or makes the file and reads its rows; the beginning of a row that a
  /// killed run left at the end is cut off. Throws Error(io), and Error(corrupt) where a line is no
  /// row of a sweep: the file stays as it is.
  explicit ResultFile(const std::string& path);
  ~ResultFile();
  ResultFile(const ResultFile&) = delete;
  ResultFile& operator=(const ResultFile&) = delete;

  /// Whether a row agrees with `identity` in all of its fields.
  [[nodiscard]] bool has(const Json& identity) const;
  void append(const Json& row);

 private:
  void read_rows();
  void finish_last(const std::string& text, std::size_t whole, std::size_t number);
  [[noreturn]] void fail_line(std::size_t number) const;
  [[noreturn]] void fail_io(const char* what) const;

  std::string path_;
  int descriptor_ = -1;
  bool made_ = false;  ///< by this object: removed again when no row comes
  std::vector<Json> rows_;
};

}  // namespace keyseek::cli
