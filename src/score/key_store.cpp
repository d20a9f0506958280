/// Encodes keys in 8 bits by mean, channels and scales, and queries to match them.
#include "keyseek/key_store.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <vector>

#include "base/fail.hpp"
#include "base/parallel.hpp"
#include "score/channel_means.hpp"
#include "score/codes.hpp"
#include "score/range.hpp"

namespace keyseek {
namespace {

constexpr std::size_t kChunk = 1024;  // rows a thread takes at a time

/// Per-channel sums over rows, in an order that does not depend on the number of threads.
template <class Add>
std::vector<double> channel_sums(AnyMatrixView m, const Execution& run, const Add& add) {
  const std::size_t d = m.cols;
  std::vector<std::vector<double>> partial((m.rows + kChunk - 1) / kChunk, std::vector<double>(d));
  parallel_for(m.rows, kChunk, run.silent(), "", [&](std::size_t begin, std::size_t end, int) {
    std::vector<float> row(d);
    std::vector<double>& sums = partial[begin / kChunk];
    for (std::size_t i = begin; i < end; ++i) {
      m.copy_row(i, row.data());
      for (std::size_t j = 0; j < d; ++j) sums[j] += add(row[j], j);
    }
  });
  std::vector<double> sums(d);
  for (const auto& part : partial)
    for (std::size_t j = 0; j < d; ++j) sums[j] += part[j];
  return sums;
}

/// sqrt(rms of the centred keys / rms of the queries) of each channel: the rounding errors
/// of both sides then weigh the same. Channels that never vary get 1. One in which queries are
/// zero matters next to nothing: its keys must not take the codes' range from the others.
AlignedVector<float> channel_scales(AnyMatrixView keys, MatrixView<float> queries,
                                    const AlignedVector<float>& mean, const Execution& run) {
  const std::size_t d = keys.cols;
  const auto key_power = channel_sums(keys, run, [&](float x, std::size_t j) {
    const double centred = double{x} - double{mean[j]};
    return centred * centred;
  });
  std::vector<double> query_power(d, 1.0);
  if (!queries.empty()) {
    query_power = channel_sums(AnyMatrixView::of(queries), run,
                               [](float x, std::size_t) { return double{x} * double{x}; });
    for (double& power : query_power) power /= static_cast<double>(queries.rows);
    const double all = std::accumulate(query_power.begin(), query_power.end(), 0.0);
    for (double& power : query_power) {
      if (power == 0) power = all > 0 ? 1e-8 * all / static_cast<double>(d) : 1.0;
    }
  }
  AlignedVector<float> channel(d);
  for (std::size_t j = 0; j < d; ++j) {
    const double power = key_power[j] / static_cast<double>(keys.rows);
    const double ratio = std::pow(power / query_power[j], 0.25);
    constexpr double kLeast = std::numeric_limits<float>::min();
    const auto scale = static_cast<float>(std::clamp(ratio, kLeast, 0x1p126));
    channel[j] = ratio > 0 ? scale : 1.0F;
  }
  return channel;
}

std::size_t coded_rows(CodeLayout layout, std::size_t n) {
  if (layout == CodeLayout::none) return 0;
  return layout == CodeLayout::rows ? n : blocked_rows(n);
}

/// Length of the longest row.
double longest_of(AnyMatrixView m) {
  std::vector<float> row(m.cols);
  double most = 0;
  for (std::size_t i = 0; i < m.rows; ++i) {
    m.copy_row(i, row.data());
    double power = 0;
    for (const float x : row) power += double{x} * double{x};
    most = std::max(most, power);
  }
  return std::sqrt(most);
}

/// Puts key i's code where the layout keeps it.
void place(const std::uint8_t* code, CodeLayout layout, std::size_t cols, std::size_t i,
           AlignedVector<std::uint8_t>& codes) {
  if (layout == CodeLayout::rows) {
    std::copy_n(code, cols, codes.data() + i * cols);
    return;
  }
  place_in_block(code, cols, i, codes.data());
}

void encode_rows(AnyMatrixView keys, std::size_t first, const float* mean, const float* channel,
                 CodeLayout layout, const Execution& run, AlignedVector<std::uint8_t>& codes,
                 AlignedVector<float>& scales) {
  const std::size_t d = keys.cols;
  parallel_for(keys.rows, kChunk, run, "encoding keys",
               [&](std::size_t begin, std::size_t end, int) {
                 std::vector<float> row(d);
                 std::vector<std::uint8_t> code(code_cols(d));
                 for (std::size_t i = begin; i < end; ++i) {
                   keys.copy_row(i, row.data());
                   for (std::size_t j = 0; j < d; ++j) row[j] = (row[j] - mean[j]) / channel[j];
                   scales[first + i] = encode_key(row.data(), d, code.data());
                   place(code.data(), layout, code.size(), first + i, codes);
                 }
               });
}

}  // namespace

std::string_view to_string(CodeLayout layout) noexcept {
  if (layout == CodeLayout::none) return "none";
  return layout == CodeLayout::rows ? "rows" : "blocks";
}

AlignedVector<float> channel_means(AnyMatrixView keys, const Execution& run) {
  const auto sums = channel_sums(keys, run, [](float x, std::size_t) { return double{x}; });
  AlignedVector<float> mean(keys.cols);
  for (std::size_t j = 0; j < keys.cols; ++j) {
    mean[j] = static_cast<float>(sums[j] / static_cast<double>(keys.rows));
  }
  return mean;
}

KeyStore KeyStore::encode(AnyMatrix stored, MatrixView<float> queries, CodeLayout layout,
                          const Execution& run) {
  const AnyMatrixView keys = stored.view();
  run.validate();
  require(keys.rows > 0, "keys is empty");
  require(keys.cols > 0, "keys have dimension 0");
  require(keys.rows < kNoId, "keys has {} rows, at most {} can be numbered", keys.rows, kNoId - 1);
  require(queries.empty() || queries.cols == keys.cols, "queries have dimension {}, keys have {}",
          queries.cols, keys.cols);
  require_dimension(keys.cols);
  require_range(keys, "keys");
  if (!queries.empty()) {
    require_range(AnyMatrixView::of(queries), "queries");
    require_products(queries, keys, "queries");
  }

  KeyStore store;
  store.keys_ = std::move(stored);
  store.layout_ = layout;
  if (layout == CodeLayout::none) {
    store.longest_ = longest_of(keys);
    return store;
  }
  AlignedVector<float> mean = channel_means(keys, run);
  AlignedVector<float> channel = channel_scales(keys, queries, mean, run);
  const std::size_t rows = coded_rows(layout, keys.rows);
  AlignedVector<std::uint8_t> codes(rows * store.code_cols(), 128);
  AlignedVector<float> scales(rows, 0.0F);
  encode_rows(keys, 0, mean.data(), channel.data(), layout, run, codes, scales);
  store.mean_ = SharedArray(std::move(mean));
  store.channel_ = SharedArray(std::move(channel));
  store.set_codes(std::move(codes), std::move(scales));
  return store;
}

void KeyStore::set_codes(AlignedVector<std::uint8_t> codes, AlignedVector<float> scales) {
  codes_ = SharedArray(std::move(codes));
  scales_ = SharedArray(std::move(scales));
  longest_ = longest_by_codes();
}

KeyStore KeyStore::in_blocks() const {
  KeyStore store = *this;
  store.layout_ = CodeLayout::blocks;
  const std::size_t rows = blocked_rows(size()), cols = code_cols();
  AlignedVector<std::uint8_t> codes(rows * cols, 128);
  AlignedVector<float> scales(rows, 0.0F);
  for (std::size_t i = 0; i < size(); ++i) {
    place_in_block(codes_.data() + i * cols, cols, i, codes.data());
    scales[i] = scales_[i];
  }
  store.set_codes(std::move(codes), std::move(scales));
  return store;
}

KeyStore KeyStore::appended(AnyMatrixView keys) const {
  require(size() > 0, "keys cannot be appended to an empty store");
  require(keys.cols == dim(), "keys have dimension {}, the index has {}", keys.cols, dim());
  require(keys.dtype == keys_.dtype(), "keys are {}, the index holds {}", to_string(keys.dtype),
          to_string(keys_.dtype()));
  require(keys.rows < kNoId - size(), "keys has {} rows, too many behind {}", keys.rows, size());
  require_range(keys, "keys");
  const std::size_t n = size() + keys.rows;

  KeyStore store = *this;
  store.keys_ = keys_.joined(keys);
  if (layout_ == CodeLayout::none) {
    store.longest_ = std::max(longest_, longest_of(keys));
    return store;
  }
  const std::size_t rows = coded_rows(layout_, n);
  AlignedVector<std::uint8_t> codes(codes_.begin(), codes_.end());
  AlignedVector<float> scales(scales_.begin(), scales_.end());
  codes.resize(rows * code_cols(), 128);
  scales.resize(rows, 0.0F);
  encode_rows(keys, size(), mean_.data(), channel_.data(), layout_, {1, {}}, codes, scales);
  store.set_codes(std::move(codes), std::move(scales));
  return store;
}

KeyStore KeyStore::truncated(std::size_t count) const {
  require(count >= 1 && count <= size(), "count is {}, must be in [1, {}]", count, size());
  KeyStore store = *this;
  store.keys_ = keys_.first(count);
  if (layout_ == CodeLayout::none) {
    const bool shorter = longest_of(keys_.view().slice(count, size() - count)) >= longest_;
    if (shorter) store.longest_ = longest_of(store.stored());
    return store;
  }
  if (layout_ == CodeLayout::rows) {
    store.codes_ = codes_.first(count * code_cols());
    store.scales_ = scales_.first(count);
    store.longest_ = store.longest_by_codes();
  } else {
    AlignedVector<std::uint8_t> codes(codes_.begin(), codes_.end());
    AlignedVector<float> scales(scales_.begin(), scales_.end());
    truncate_blocks(count, code_cols(), 128, codes, scales);
    store.set_codes(std::move(codes), std::move(scales));
  }
  return store;
}

/// |mean| + the largest scale times |channel| times what a code may be.
double KeyStore::longest_by_codes() const {
  const auto length = [](const SharedArray<float>& x) {
    double power = 0;
    for (const float each : x) power += double{each} * double{each};
    return std::sqrt(power);
  };
  const float largest = *std::max_element(scales_.begin(), scales_.end());
  return length(mean_) + 128.0 * double{largest} * length(channel_);
}

std::size_t KeyStore::code_bytes() const noexcept {
  return codes_.bytes() + scales_.bytes() + mean_.bytes() + channel_.bytes();
}

EncodedQueries KeyStore::encode_queries(MatrixView<float> queries) const {
  EncodedQueries out;
  encode_queries(queries, out);
  return out;
}

void KeyStore::encode_queries(MatrixView<float> queries, EncodedQueries& out) const {
  require(queries.cols == dim(), "queries have dimension {}, the keys have {}", queries.cols,
          dim());
  const std::size_t d = dim();
  // Each by its own size: memory may have run out after one of them had grown.
  if (out.codes.rows() != queries.rows || out.codes.cols() != code_cols())
    out.codes = Matrix<std::int8_t>(queries.rows, code_cols());
  out.scale.resize(queries.rows);
  out.correction.resize(queries.rows);
  out.offset.resize(queries.rows);
  out.row.resize(d);
  for (std::size_t g = 0; g < queries.rows; ++g) {
    const float* query = queries.row(g);
    float* row = out.row.data();
    float offset = 0.0F;
    for (std::size_t j = 0; j < d; ++j) {
      row[j] = query[j] * channel_[j];
      offset += query[j] * mean_[j];
    }
    const QueryCode code = encode_query(row, d, out.codes.row(g));
    out.scale[g] = code.scale;
    out.correction[g] = code.correction;
    out.offset[g] = offset;
  }
}

KeyStore::Parts KeyStore::parts() const {
  return {keys_, codes_, scales_, mean_, channel_, layout_, longest_};
}

KeyStore KeyStore::from_parts(Parts parts) {
  KeyStore store;
  store.keys_ = std::move(parts.keys);
  store.layout_ = parts.layout;
  const std::size_t rows = coded_rows(parts.layout, store.size());
  const auto check = [](bool ok, const char* what) {
    if (!ok) fail(ErrorCode::corrupt, "key store: {}", what);
  };
  check(store.size() > 0 && store.dim() > 0, "no keys");
  check(store.dim() <= kMostDimensions, "too many dimensions");
  check(parts.codes.size() == rows * store.code_cols(), "codes do not match the keys");
  check(parts.scales.size() == rows, "scales do not match the keys");
  const std::size_t channels = parts.layout == CodeLayout::none ? 0 : store.dim();
  check(parts.mean.size() == channels, "mean does not match the dimension");
  check(parts.channel.size() == channels, "channel scales do not match the dimension");
  for (std::size_t i = 0; i < rows; ++i) {
    const float scale = parts.scales[i];
    check(i < store.size() ? std::isfinite(scale) && scale > 0.0F : scale == 0.0F,
          "a scale is wrong");
  }
  for (std::size_t j = 0; j < channels; ++j) {
    check(std::isfinite(parts.mean[j]), "a mean is not finite");
    check(std::isfinite(parts.channel[j]) && parts.channel[j] > 0.0F, "a channel scale is wrong");
  }
  store.codes_ = std::move(parts.codes);
  store.scales_ = std::move(parts.scales);
  store.mean_ = std::move(parts.mean);
  store.channel_ = std::move(parts.channel);
  if (store.layout_ == CodeLayout::none) {
    check(std::isfinite(parts.longest) && parts.longest >= 0, "the length of its keys is wrong");
    store.longest_ = parts.longest;
  } else {
    store.longest_ = store.longest_by_codes();
  }
  return store;
}

}  // namespace keyseek
