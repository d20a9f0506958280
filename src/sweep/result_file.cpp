// Reads, locks and appends to files of rows.
#include "sweep/result_file.hpp"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "base/fail.hpp"

namespace keyseek::sweep {
namespace {

bool is_row(const Json& value, const RowKind& kind) {
  return value.is_object() &&
         std::all_of(kind.fields.begin(), kind.fields.end(),
                     [&](const std::string& field) { return value.contains(field); });
}

/// How a row begins.
std::string beginning(const RowKind& kind) {
  return kind.fields.empty() ? "{" : "{\"" + kind.fields.front() + "\":\"";
}

/// Whether a killed run could have left `text` behind its last whole row.
bool begins_row(std::string_view text, std::string_view beginning) {
  const std::size_t length = std::min(text.size(), beginning.size());
  return text.substr(0, length) == beginning.substr(0, length);
}

[[noreturn]] void fail_line(const std::string& path, std::size_t number, const RowKind& kind) {
  fail(ErrorCode::corrupt, "{}: line {} is no {}: this is no file of results", path, number,
       kind.name);
}

}  // namespace

std::vector<Json> parse_rows(std::string_view text, const std::string& path, const RowKind& kind) {
  std::vector<Json> rows;
  while (!text.empty()) {
    const std::string_view line = text.substr(0, text.find('\n'));
    Json row = Json::parse(line.begin(), line.end(), nullptr, false);
    if (!is_row(row, kind)) fail_line(path, rows.size() + 1, kind);
    rows.push_back(std::move(row));
    text.remove_prefix(std::min(text.size(), line.size() + 1));
  }
  return rows;
}

ResultFile::ResultFile(std::string path, RowKind kind)
    : path_(std::move(path)), kind_(std::move(kind)) {
  constexpr int kFlags = O_RDWR | O_APPEND | O_CLOEXEC;
  descriptor_ = ::open(path_.c_str(), kFlags | O_CREAT | O_EXCL, 0666);
  made_ = descriptor_ >= 0;
  if (!made_) descriptor_ = ::open(path_.c_str(), kFlags);
  if (descriptor_ < 0) fail_io("open");
  try {
    if (::flock(descriptor_, LOCK_EX | LOCK_NB) != 0) {
      fail(ErrorCode::io, "{} is in use by another run", path_);
    }
    read_rows();
  } catch (...) {
    ::close(descriptor_);
    throw;
  }
}

void ResultFile::close() noexcept {
  if (descriptor_ < 0) return;
  if (made_ && rows_.empty()) ::unlink(path_.c_str());
  ::close(std::exchange(descriptor_, -1));
}

void ResultFile::read_rows() {
  struct stat status {};
  if (::fstat(descriptor_, &status) != 0) fail_io("read");
  if (!S_ISREG(status.st_mode)) fail(ErrorCode::io, "cannot append to {}: it is no file", path_);
  char first = '{';  // a foreign file of any size is refused before it is read
  if (status.st_size > 0 && ::pread(descriptor_, &first, 1, 0) != 1) fail_io("read");
  if (first != '{') fail_line(path_, 1, kind_);
  std::string text(static_cast<std::size_t>(status.st_size), '\0');
  if (::pread(descriptor_, text.data(), text.size(), 0) != status.st_size) fail_io("read");
  const std::size_t whole = text.rfind('\n') + 1;  // 0 without any line end
  rows_ = parse_rows(std::string_view(text).substr(0, whole), path_, kind_);
  if (whole < text.size()) finish_last(text.substr(whole), whole);
}

/// The last line has no end. A whole row gets one; only what looks like the beginning of a row is
/// thrown away.
void ResultFile::finish_last(const std::string& text, std::size_t whole) {
  const std::size_t number = rows_.size() + 1;
  Json row = Json::parse(text, nullptr, false);
  if (!row.is_discarded()) {
    if (!is_row(row, kind_)) fail_line(path_, number, kind_);
    if (::write(descriptor_, "\n", 1) != 1) fail_io("write");
    rows_.push_back(std::move(row));
    return;
  }
  const std::string begin = beginning(kind_);
  // A few letters behind no row at all could be anybody's.
  const bool too_short = rows_.empty() && text.size() < begin.size();
  if (too_short || !begins_row(text, begin)) fail_line(path_, number, kind_);
  if (::ftruncate(descriptor_, static_cast<off_t>(whole)) != 0) fail_io("shorten");
}

bool ResultFile::has(const Json& identity) const {
  const auto agrees = [&](const Json& row) {
    const auto items = identity.items();
    return std::all_of(items.begin(), items.end(), [&](const auto& item) {
      const auto field = row.find(item.key());
      return field != row.end() && *field == item.value();
    });
  };
  return std::any_of(rows_.begin(), rows_.end(), agrees);
}

void ResultFile::append(const Json& row) {
  const std::string line = dump(row) + "\n";
  if (::write(descriptor_, line.data(), line.size()) != static_cast<ssize_t>(line.size()) ||
      ::fsync(descriptor_) != 0) {
    fail_io("write");
  }
  rows_.push_back(row);
}

void ResultFile::fail_io(const char* what) const {
  fail(ErrorCode::io, "cannot {} {}: {}", what, path_, std::strerror(errno));
}

}  // namespace keyseek::sweep
