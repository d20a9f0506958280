/// Results as they come: one JSON object per line, appended to a file that a killed run
/// leaves usable.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "sweep/json.hpp"

namespace keyseek::sweep {

/// What a line has to be.
struct RowKind {
  std::string name = "JSON object";
  std::vector<std::string> fields = {};  ///< which a row has at least; the first one is a string
};

/// The rows of whole lines. Throws Error(corrupt), naming `path`, where a line is none.
[[nodiscard]] std::vector<Json> parse_rows(std::string_view text, const std::string& path,
                                           const RowKind& kind = {});

/// A row is appended with one write and synced. Until it is closed, no other process can open the
/// file with this.
class ResultFile {
 public:
  /// Opens or makes the file and reads its rows; the beginning of a row that a
  /// killed run left at the end is cut off. Throws Error(io), and Error(corrupt) where a line is no
  /// row: the file stays as it is.
  explicit ResultFile(std::string path, RowKind kind = {});
  ~ResultFile() { close(); }
  ResultFile(const ResultFile&) = delete;
  ResultFile& operator=(const ResultFile&) = delete;

  /// Whether a row agrees with `identity` in all of its fields.
  [[nodiscard]] bool has(const Json& identity) const;
  void append(const Json& row);
  [[nodiscard]] const std::vector<Json>& rows() const { return rows_; }
  void close() noexcept;

 private:
  void read_rows();
  void finish_last(const std::string& text, std::size_t whole);
  [[noreturn]] void fail_io(const char* what) const;

  std::string path_;
  RowKind kind_;
  int descriptor_ = -1;
  bool made_ = false;  ///< by this object: removed again when no row comes
  std::vector<Json> rows_;
};

}  // namespace keyseek::sweep
