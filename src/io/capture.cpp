/// Reads captures of attention heads, and checks what they say about themselves.
#include <algorithm>
#include <charconv>
#include <cstdint>
#include <optional>
#include <string>
#include <tuple>

#include "base/fail.hpp"
#include "io/hdf5_reader.hpp"
#include "keyseek/io.hpp"

namespace keyseek::io {
namespace {

/// The newest capture layout this build knows.
constexpr std::size_t kFormatVersion = 1;

/// "L11" with letter 'L' is 11.
std::optional<std::size_t> numbered(const std::string& name, char letter) {
  std::size_t number = 0;
  const char* const end = name.data() + name.size();
  if (name.size() < 2 || name[0] != letter) return std::nullopt;
  const auto [stop, error] = std::from_chars(name.data() + 1, end, number);
  return error == std::errc() && stop == end ? std::optional(number) : std::nullopt;
}

std::string head_name(std::size_t layer, std::size_t kv_head) {
  return fmt::format("L{}/K{}", layer, kv_head);
}

template <class T>
T required(const hdf5::Reader& file, const char* attribute, std::optional<T> value) {
  if (!value) {
    fail(ErrorCode::corrupt, "{}: attribute {} is missing", file.path().string(), attribute);
  }
  return *std::move(value);
}

double positive(const hdf5::Reader& file, const std::string& object, const char* attribute) {
  const double value = required(file, attribute, file.number(object, attribute));
  if (value <= 0) {
    fail(ErrorCode::corrupt, "{}: attribute {} is {}, must be positive", file.path().string(),
         attribute, value);
  }
  return value;
}

void check_format(const hdf5::Reader& file) {
  const std::size_t version = file.count("/", "format_version").value_or(1);
  if (version > kFormatVersion) {
    fail(ErrorCode::unsupported, "{}: capture format version {}, this build reads up to version {}",
         file.path().string(), version, kFormatVersion);
  }
}

/// The datasets of a head, whose extents fit each other.
struct HeadData {
  hdf5::Dataset keys, values, queries;
};

HeadData open_head(const hdf5::Reader& file, std::size_t layer, std::size_t kv_head,
                   std::size_t prefill) {
  const std::string name = head_name(layer, kv_head);
  HeadData head{file.dataset(name + "/keys", 2), file.dataset(name + "/values", 2),
                file.dataset(name + "/queries", 3)};
  const std::uint64_t n = head.keys.rows(), d = head.keys.cols();
  if (head.values.rows() != n) {
    fail(ErrorCode::corrupt, "{}: {} rows, but there are {} keys", head.values.where(),
         head.values.rows(), n);
  }
  if (head.queries.rows() != n || head.queries.cols() != d) {
    fail(ErrorCode::corrupt, "{}: {} rows of {} per query head, but keys have {} of {}",
         head.queries.where(), head.queries.rows(), head.queries.cols(), n, d);
  }
  if (prefill == 0 || prefill > n) {
    fail(ErrorCode::corrupt, "{}: attribute prefill is {}, must be in [1, {}]",
         file.path().string(), prefill, n);
  }
  return head;
}

RopeParams read_rope(const hdf5::Reader& file, std::size_t layer, std::size_t d) {
  const std::string group = fmt::format("L{}", layer);
  const std::string path = file.path().string();
  RopeParams rope;
  rope.theta = positive(file, file.number(group, "rope_theta") ? group : "/", "rope_theta");
  rope.rotary_dim = file.count("/", "rope_dim").value_or(0);
  if (rope.rotary_dim > d || rope.rotary_dim % 2 != 0) {
    fail(ErrorCode::corrupt, "{}: attribute rope_dim is {}, must be even and at most {}", path,
         rope.rotary_dim, d);
  }
  const std::string layout = file.text("/", "rope_layout").value_or("half-split");
  if (layout != "half-split" && layout != "interleaved") {
    fail(ErrorCode::unsupported,
         "{}: attribute rope_layout is '{}', must be half-split or interleaved", path, layout);
  }
  rope.layout = layout == "interleaved" ? RopeLayout::interleaved : RopeLayout::half_split;
  return rope;
}

/// "L2/K0, L15/K0, ...", for errors.
std::string list_heads(const CaptureInfo& info) {
  std::string text;
  constexpr std::size_t kMost = 8;
  for (std::size_t i = 0; i < std::min(info.heads.size(), kMost); ++i) {
    text += (i == 0 ? "" : ", ") + head_name(info.heads[i].layer, info.heads[i].kv_head);
  }
  return info.heads.size() > kMost ? text + ", ..." : text;
}

CaptureInfo read_info(const hdf5::Reader& file) {
  check_format(file);
  CaptureInfo info;
  info.model = file.text("/", "model").value_or("");
  info.text = file.text("/", "text").value_or("");
  info.capture = file.text("/", "capture").value_or("");
  info.prefill = required(file, "prefill", file.count("/", "prefill"));
  for (const std::string& layer_name : file.names("/")) {
    const auto layer = numbered(layer_name, 'L');
    if (!layer) continue;
    for (const std::string& head : file.names(layer_name)) {
      const auto kv_head = numbered(head, 'K');
      if (!kv_head) continue;
      const HeadData data = open_head(file, *layer, *kv_head, info.prefill);
      info.heads.push_back({.layer = *layer,
                            .kv_head = *kv_head,
                            .tokens = data.keys.rows(),
                            .dim = data.keys.cols(),
                            .group = data.queries.planes()});
    }
  }
  if (info.heads.empty()) {
    fail(ErrorCode::corrupt, "{}: no capture: no group L<layer>/K<KV head>", file.path().string());
  }
  std::sort(info.heads.begin(), info.heads.end(), [](const auto& a, const auto& b) {
    return std::tie(a.layer, a.kv_head) < std::tie(b.layer, b.kv_head);
  });
  return info;
}

}  // namespace

CaptureInfo capture_info(const std::filesystem::path& path, const Hdf5Access& access) {
  return read_info(hdf5::Reader(path, access));
}

CapturedHead read_capture(const std::filesystem::path& path, std::size_t layer, std::size_t kv_head,
                          const Hdf5Access& access) {
  const hdf5::Reader file(path, access);
  check_format(file);
  if (const std::string name = head_name(layer, kv_head); !file.has(name)) {
    fail(ErrorCode::invalid_argument, "{}: there is no head {}, but {}", path.string(), name,
         list_heads(read_info(file)));
  }
  CapturedHead head;
  head.prefill = required(file, "prefill", file.count("/", "prefill"));
  head.scale = positive(file, "/", "scale");
  head.model = file.text("/", "model").value_or("");
  head.text = file.text("/", "text").value_or("");
  const HeadData data = open_head(file, layer, kv_head, head.prefill);
  head.rope = read_rope(file, layer, data.keys.cols());
  head.keys = data.keys.read();
  head.values = data.values.read();
  for (std::uint64_t g = 0; g < data.queries.planes(); ++g) {
    head.queries.push_back(data.queries.read_floats(g));
  }
  return head;
}

}  // namespace keyseek::io
