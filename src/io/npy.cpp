/// Reads and writes the headers of NumPy's .npy files.
#include "io/npy.hpp"

#include <algorithm>
#include <array>
#include <bit>
#include <charconv>
#include <optional>
#include <span>
#include <vector>

#include "base/fail.hpp"

namespace keyseek::io {
namespace {

constexpr std::string_view kMagic = "\x93NUMPY";
/// NumPy aligns the data to this.
constexpr std::size_t kAlignment = 64;
/// NumPy itself refuses longer ones unless told otherwise.
constexpr std::uint64_t kLongestHeader = 10000;

/// Reads the Python dictionary of a header, left to right.
class Literal {
 public:
  Literal(std::string text, std::string where) : text_(std::move(text)), where_(std::move(where)) {}

  /// Skips blanks, then `c` if it is next.
  bool accept(char c) {
    while (at_ < text_.size() && (text_[at_] == ' ' || text_[at_] == '\n')) ++at_;
    if (at_ == text_.size() || text_[at_] != c) return false;
    ++at_;
    return true;
  }
  void expect(char c) {
    if (!accept(c)) malformed();
  }
  std::string quoted() {
    const char quote = accept('\'') ? '\'' : '"';
    if (quote == '"') expect('"');
    const std::size_t end = text_.find(quote, at_);
    if (end == std::string::npos) malformed();
    std::string found = text_.substr(at_, end - at_);
    at_ = end + 1;
    return found;
  }
  bool boolean() {
    accept(' ');
    for (const std::string_view word : {"True", "False"}) {
      if (text_.compare(at_, word.size(), word) != 0) continue;
      at_ += word.size();
      return word == "True";
    }
    malformed();
  }
  std::vector<std::uint64_t> tuple() {
    std::vector<std::uint64_t> numbers;
    expect('(');
    while (!accept(')')) {
      numbers.push_back(number());
      if (!accept(',')) {
        expect(')');
        break;
      }
    }
    return numbers;
  }
  [[noreturn]] void malformed() const {
    fail(ErrorCode::corrupt, "{}: malformed npy header at character {}", where_, at_);
  }

 private:
  std::uint64_t number() {
    std::uint64_t value = 0;
    const char* const begin = text_.data() + at_;
    const auto [end, error] = std::from_chars(begin, text_.data() + text_.size(), value);
    if (error != std::errc()) malformed();
    at_ += static_cast<std::size_t>(end - begin);
    return value;
  }

  std::string text_;
  std::string where_;
  std::size_t at_ = 0;
};

struct Fields {
  std::optional<std::string> type;
  std::optional<bool> fortran_order;
  std::optional<std::vector<std::uint64_t>> shape;
};

Fields parse(Literal literal) {
  Fields fields;
  literal.expect('{');
  while (!literal.accept('}')) {
    const std::string key = literal.quoted();
    literal.expect(':');
    if (key == "descr") {
      fields.type = literal.quoted();
    } else if (key == "fortran_order") {
      fields.fortran_order = literal.boolean();
    } else if (key == "shape") {
      fields.shape = literal.tuple();
    } else {
      literal.malformed();
    }
    if (!literal.accept(',')) {
      literal.expect('}');
      break;
    }
  }
  if (!fields.type || !fields.fortran_order || !fields.shape) literal.malformed();
  return fields;
}

/// Where the dictionary lies: [begin, end).
struct Extent {
  std::uint64_t begin;
  std::uint64_t end;
};

Extent find_dictionary(const InputFile& file) {
  const std::string where = file.path().string();
  std::array<std::byte, 12> bytes{};
  const auto have = std::min<std::uint64_t>(file.size(), bytes.size());
  file.read_at(0, std::span(bytes).first(have));
  const auto head = std::bit_cast<std::array<unsigned char, 12>>(bytes);
  const bool ours = std::equal(kMagic.begin(), kMagic.end(), head.begin(),
                               [](char a, unsigned char b) { return a == static_cast<char>(b); });
  if (!ours) fail(ErrorCode::corrupt, "{}: not an npy file (wrong magic)", where);
  if (have < 10) fail(ErrorCode::corrupt, "{}: {} bytes, shorter than an npy header", where, have);
  const unsigned version = head[6];
  if (version < 1 || version > 3) {
    fail(ErrorCode::unsupported, "{}: npy version {}, must be 1 to 3", where, version);
  }
  // Versions 2 and 3 count with four bytes instead of two.
  std::uint64_t length = head[8] + 256U * head[9];
  if (version > 1) length += 65536U * (head[10] + std::uint64_t{256} * head[11]);
  const std::uint64_t begin = version == 1 ? 10 : 12;
  if (length > kLongestHeader || begin + length > file.size()) {
    fail(ErrorCode::corrupt, "{}: npy header of {} bytes in a file of {}", where, length,
         file.size());
  }
  return {begin, begin + length};
}

/// "<f4" to "f4"; the order of single bytes does not matter.
std::string without_order(const std::string& type, const std::string& where) {
  if (type.size() < 2) fail(ErrorCode::corrupt, "{}: npy type '{}'", where, type);
  if (type[0] == '>') {
    fail(ErrorCode::unsupported, "{}: npy type '{}' is big-endian, must be little-endian", where,
         type);
  }
  return type[0] == '<' || type[0] == '|' || type[0] == '=' ? type.substr(1) : type;
}

/// "f4" to 4; 0 when it says no size.
std::uint64_t element_size(const std::string& type) {
  std::uint64_t size = 0;
  const auto [end, error] = std::from_chars(type.data() + 1, type.data() + type.size(), size);
  return error == std::errc() && end == type.data() + type.size() && size <= 16 ? size : 0;
}

}  // namespace

NpyHeader read_npy_header(const InputFile& file) {
  const std::string where = file.path().string();
  const auto [begin, end] = find_dictionary(file);
  std::string text(end - begin, '\0');
  file.read_at(begin, std::as_writable_bytes(std::span(text)));
  const Fields fields = parse(Literal(text, where));

  NpyHeader header{.type = without_order(*fields.type, where), .shape = {}, .data = end};
  if (*fields.fortran_order) {
    fail(ErrorCode::unsupported, "{}: the array is in Fortran order, must be in C order", where);
  }
  if (fields.shape->size() != 2) {
    fail(ErrorCode::unsupported, "{}: the array has {} dimensions, must have 2", where,
         fields.shape->size());
  }
  header.shape = {(*fields.shape)[0], (*fields.shape)[1]};
  const std::uint64_t size = element_size(header.type);
  if (size == 0) fail(ErrorCode::unsupported, "{}: npy type '{}'", where, *fields.type);
  const std::uint64_t bytes = byte_size(where, header.shape, size);
  if (bytes != file.size() - end) {
    fail(ErrorCode::corrupt,
         "{}: {} x {} elements of {} bytes do not match the {} behind the header", where,
         header.shape.rows, header.shape.cols, size, file.size() - end);
  }
  return header;
}

std::string make_npy_header(std::string_view type, Shape shape) {
  const char order = type.back() == '1' ? '|' : '<';
  std::string text = fmt::format("{{'descr': '{}{}', 'fortran_order': False, 'shape': ({}, {}), }}",
                                 order, type, shape.rows, shape.cols);
  constexpr std::size_t kPrefix = 10;
  const std::size_t whole = (kPrefix + text.size() + 1 + kAlignment - 1) / kAlignment * kAlignment;
  text.append(whole - kPrefix - text.size() - 1, ' ');
  text += '\n';
  std::string header(kMagic);
  header +=
      {'\1', '\0', static_cast<char>(text.size() % 256), static_cast<char>(text.size() / 256)};
  return header + text;
}

}  // namespace keyseek::io
