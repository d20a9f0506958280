/// Makes or reads the heads that the decode steps with a GPU are measured on.
#include "heads.hpp"

#include <algorithm>
#include <cmath>

#include "base/fail.hpp"
#include "keyseek/io.hpp"
#include "micro/made_data.hpp"

namespace keyseek::bench {
namespace {

constexpr std::size_t kHeads = 8, kGroup = 4, kDim = 128;
constexpr std::size_t kAsked = 512;  // tokens with queries of made heads

AnyMatrix made(std::size_t rows, std::uint64_t seed) {
  return stored_as(Dtype::f16, made_rows(rows, kDim, seed));
}

DecodedHead captured_head(const std::filesystem::path& capture, const io::CaptureEntry& entry,
                          std::size_t tokens) {
  const io::CapturedHead from = io::read_capture(capture, entry.layer, entry.kv_head);
  require(tokens <= from.keys.rows(), "TOKENS is {}, the capture has {}", tokens, from.keys.rows());
  DecodedHead head;
  head.keys = AnyMatrix::copy_of(from.keys.view().slice(0, tokens));
  head.values = AnyMatrix::copy_of(from.values.view().slice(0, tokens));
  head.group = from.queries.size();
  Matrix<float> queries(tokens * head.group, from.keys.cols());
  for (std::size_t i = 0; i < queries.rows(); ++i)
    std::copy_n(from.queries[i % head.group].row(i / head.group), queries.cols(), queries.row(i));
  head.queries = stored_as(head.keys.dtype(), queries);
  head.params.scale = static_cast<float>(from.scale);
  head.params.rope = from.rope;
  return head;
}

}  // namespace

AnyMatrixView DecodedHead::at(std::size_t token) const {
  const std::size_t first = tokens() - queries.rows() / group;
  return queries.view().slice((token - first) * group, group);
}

HeadCache DecodedHead::planned(std::size_t prompt) const {
  const std::size_t later = (tokens() - prompt) * group;
  const Matrix<float> asked = to_f32(queries.view().slice(0, queries.rows() - later));
  return HeadCache::prefill(keys.view().slice(0, prompt), values.view().slice(0, prompt), asked,
                            group, params);
}

std::vector<DecodedHead> made_heads(std::size_t tokens) {
  std::vector<DecodedHead> heads(kHeads);
  for (std::size_t i = 0; i < kHeads; ++i) {
    DecodedHead& head = heads[i];
    head.keys = made(tokens, 3 * i);
    head.values = made(tokens, 3 * i + 1);
    head.queries = made(std::min(kAsked, tokens) * kGroup, 3 * i + 2);
    head.group = kGroup;
    head.params.scale = 1.0F / std::sqrt(static_cast<float>(kDim));
    head.params.shift = false;
    head.params.given = GivenPlan{.retriever = Retriever::flat, .k = 100};
  }
  return heads;
}

std::vector<DecodedHead> captured_heads(const std::filesystem::path& capture, std::size_t tokens) {
  std::vector<DecodedHead> heads;
  for (const io::CaptureEntry& entry : io::capture_info(capture).heads)
    heads.push_back(captured_head(capture, entry, tokens));
  return heads;
}

}  // namespace keyseek::bench
