#include "cli/result_file.hpp"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <string_view>

#include "base/fail.hpp"

namespace keyseek::cli {
namespace {

/// How a row of a sweep begins, and what it has at least.
constexpr std::string_view kBeginning = R"({"dataset":")";
constexpr std::array kFields = {"dataset", "index", "params", "k", "group", "recall_at_k"};

bool is_row(const Json& value) {
  return value.is_object() && std::all_of(kFields.begin(), kFields.end(),
                                          [&](const char* field) { return value.contains(field); });
}

/// Whether a killed run could have left `text` behind its last whole row.
bool begins_row(std::string_view text) {
  const std::size_t length = std::min(text.size(), kBeginning.size());
  return text.substr(0, length) == kBeginning.substr(0, length);
}

}  // namespace

ResultFile::ResultFile(const std::string& path) : path_(path) {
  constexpr int kFlags = O_RDWR | O_APPEND | O_CLOEXEC;
  descriptor_ = ::open(path.c_str(), kFlags | O_CREAT | O_EXCL, 0666);
  made_ = descriptor_ >= 0;
  if (!made_) descriptor_ = ::open(path.c_str(), kFlags);
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

ResultFile::~ResultFile() {
  if (made_ && rows_.empty()) ::unlink(path_.c_str());
  ::close(descriptor_);
}

void ResultFile::read_rows() {
  struct stat status {};
  if (::fstat(descriptor_, &status) != 0) fail_io("read");
  if (!S_ISREG(status.st_mode)) fail(ErrorCode::io, "cannot append to {}: it is no file", path_);
  char first = '{';  // a foreign file of any size is refused before it is read
  if (status.st_size > 0 && ::pread(descriptor_, &first, 1, 0) != 1) fail_io("read");
  if (first != '{') fail_line(1);
  std::string text(static_cast<std::size_t>(status.st_size), '\0');
  if (::pread(descriptor_, text.data(), text.size(), 0) != status.st_size) fail_io("read");
  const std::size_t whole = text.rfind('\n') + 1;  // 0 without any line end
  std::size_t number = 1;
  for (std::size_t begin = 0; begin < whole; ++number) {
    const std::size_t end = text.find('\n', begin);
    Json row = Json::parse(text.begin() + static_cast<std::ptrdiff_t>(begin),
                           text.begin() + static_cast<std::ptrdiff_t>(end), nullptr, false);
    if (!is_row(row)) fail_line(number);
    rows_.push_back(std::move(row));
    begin = end + 1;
  }
  if (whole == text.size()) return;
  finish_last(text.substr(whole), whole, number);
}

/// The last line has no end. A whole row gets one; only what looks like the beginning of a row is
/// thrown away.
void ResultFile::finish_last(const std::string& text, std::size_t whole, std::size_t number) {
  Json row = Json::parse(text, nullptr, false);
  if (!row.is_discarded()) {
    if (!is_row(row)) fail_line(number);
    if (::write(descriptor_, "\n", 1) != 1) fail_io("write");
    rows_.push_back(std::move(row));
    return;
  }
  // A few letters behind no row at all could be anybody's.
  const bool too_short = rows_.empty() && text.size() < kBeginning.size();
  if (too_short || !begins_row(text)) fail_line(number);
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

void ResultFile::fail_line(std::size_t number) const {
  fail(ErrorCode::corrupt, "{}: line {} is no row of a sweep: this is no file of results", path_,
       number);
}

void ResultFile::fail_io(const char* what) const {
  fail(ErrorCode::io, "cannot {} {}: {}", what, path_, std::strerror(errno));
}

}  // namespace keyseek::cli
