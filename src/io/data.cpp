/// Opens whatever a path names as a problem, by its ending.
#include <charconv>
#include <optional>
#include <string>
#include <string_view>

#include "base/fail.hpp"
#include "io/extension.hpp"
#include "keyseek/io.hpp"

namespace keyseek::io {
namespace {

constexpr std::string_view kCaptureExtension = ".attn.h5";

/// Takes `letter` and a number from the front of `text`.
std::optional<std::size_t> take_number(std::string_view& text, char letter) {
  std::size_t number = 0;
  if (text.empty() || text[0] != letter) return std::nullopt;
  const char* const end = text.data() + text.size();
  const auto [stop, error] = std::from_chars(text.data() + 1, end, number);
  if (error != std::errc()) return std::nullopt;
  text.remove_prefix(static_cast<std::size_t>(stop - text.data()));
  return number;
}

}  // namespace

DataName parse_data_name(const std::string& name) {
  require(!name.empty(), "data name is empty");
  const std::size_t colon = name.rfind(':');
  if (colon == std::string::npos) return {.path = name};
  std::string_view rest = std::string_view(name).substr(colon + 1);
  const auto layer = take_number(rest, 'L');
  const bool slash = rest.starts_with('/');
  rest.remove_prefix(slash ? 1 : 0);
  const auto kv_head = take_number(rest, 'K');
  const std::string path = name.substr(0, colon);
  if (layer && slash && kv_head && rest.empty() && !path.empty()) {
    return {.path = path, .layer = layer, .kv_head = kv_head, .dataset = {}};
  }
  // A colon may be part of a path, but not behind a capture's extension.
  require(!path.ends_with(kCaptureExtension),
          "data name is '{}', must be {}:L<layer>/K<KV head>, for example {}:L2/K0", name, path,
          path);
  if (!is_hdf5(path)) return {.path = name};
  return {.path = path, .layer = {}, .kv_head = {}, .dataset = name.substr(colon + 1)};
}

Benchmark read_data(const std::string& name, const DecodeViewParams& view, const Execution& run,
                    const Hdf5Access& access) {
  const DataName data = parse_data_name(name);
  if (data.layer)
    return decode_view(read_capture(data.path, *data.layer, *data.kv_head, access), view, run);
  if (name.ends_with(kCaptureExtension)) {
    const CaptureEntry first = capture_info(data.path, access).heads.front();
    fail(ErrorCode::invalid_argument, "{} is a capture: say which head, for example {}:L{}/K{}",
         name, name, first.layer, first.kv_head);
  }
  require(!data.dataset, "data is '{}', one dataset: a search problem is the whole of {}", name,
          data.path.string());
  return read_benchmark(data.path, access);
}

}  // namespace keyseek::io
