// A HeadCache in a file: docs/index-format.md, "A head".
#include <algorithm>
#include <cmath>
#include <limits>

#include "base/fail.hpp"
#include "base/saved_count.hpp"
#include "decode/head_index.hpp"
#include "decode/params.hpp"
#include "index/index_state.hpp"
#include "keyseek/decode.hpp"
#include "score/kernels.hpp"

namespace keyseek {
namespace {

constexpr const char* kKind = "head";

double number(std::size_t x) { return saved_count(x); }
template <class Enum>
double word(Enum x) {
  return static_cast<double>(static_cast<int>(x));
}

template <class T>
std::span<const std::byte> bytes_of(const std::vector<T>& values) {
  return std::as_bytes(std::span<const T>(values));
}
std::span<const std::byte> bytes_of(AnyMatrixView m) {
  return {static_cast<const std::byte*>(m.data), m.rows * m.row_bytes()};
}
std::span<const std::byte> bytes_of(const Matrix<float>& m) {
  return std::as_bytes(std::span<const float>(m.data(), m.rows() * m.cols()));
}

std::vector<double> numbers_of(const std::vector<std::size_t>& positions) {
  return {positions.begin(), positions.end()};
}

void put(std::vector<double>& to, const StopRule& stop) {
  to.insert(to.end(), {word(stop.rule), number(stop.k), stop.limit, number(stop.least)});
}

std::vector<double> numbers_of(const DecodeParams& p) {
  std::vector<double> out = {p.max_error,
                             p.safety,
                             double{p.scale},
                             p.rope.theta,
                             number(p.rope.rotary_dim),
                             word(p.rope.layout),
                             p.shift ? 1.0 : 0.0,
                             number(p.sink),
                             number(p.window),
                             number(p.horizon),
                             number(p.pinned),
                             number(p.least_indexed),
                             p.int8_values ? 1.0 : 0.0,
                             p.scan_novel ? 1.0 : 0.0,
                             p.share,
                             number(p.observed),
                             number(p.held_out),
                             number(p.tail_vectors),
                             number(p.least_k),
                             number(p.max_k),
                             p.max_memory,
                             word(p.rule),
                             static_cast<double>(p.seed >> 32U),
                             static_cast<double>(p.seed & 0xffffffffU),
                             p.given ? 1.0 : 0.0};
  if (p.given) {
    out.insert(out.end(), {word(p.given->retriever), p.given->target_recall});
    put(out, p.given->stop);
  }
  if (p.rope.rotary_first > 0) out.push_back(number(p.rope.rotary_first));
  return out;
}

/// The soft-cap, then the null logits.
std::vector<double> logits_of(const DecodeParams& p) {
  std::vector<double> out = {double{p.softcap}};
  out.insert(out.end(), p.null_logits.begin(), p.null_logits.end());
  return out;
}

std::vector<double> numbers_of(const HeadPlan& plan) {
  std::vector<double> out = {
      word(plan.retriever),    plan.target_recall,  number(plan.tail_vectors), plan.expected_error,
      plan.error_without_tail, plan.keys_per_query, plan.bytes_per_step};
  put(out, plan.stop);
  return out;
}

StopRule read_stop(Numbers& from) {
  StopRule stop;
  stop.rule = static_cast<Rule>(from.whole_up_to(static_cast<std::size_t>(Rule::mass)));
  stop.k = from.whole();
  stop.limit = from.real();
  stop.least = from.whole();
  return stop;
}

Retriever read_retriever(Numbers& from, Retriever last) {
  return static_cast<Retriever>(from.whole_up_to(static_cast<std::size_t>(last)));
}

DecodeParams read_params_of_head(const ContainerReader& file) {
  Numbers n(file, "head.params");
  DecodeParams p;
  p.max_error = n.real();
  p.safety = n.real();
  p.scale = static_cast<float>(n.real());
  p.rope.theta = n.real();
  p.rope.rotary_dim = n.whole();
  p.rope.layout =
      static_cast<RopeLayout>(n.whole_up_to(static_cast<std::size_t>(RopeLayout::interleaved)));
  p.shift = n.whole_up_to(1) == 1;
  for (std::size_t* count : {&p.sink, &p.window, &p.horizon, &p.pinned, &p.least_indexed})
    *count = n.whole();
  p.int8_values = n.whole_up_to(1) == 1;
  p.scan_novel = n.whole_up_to(1) == 1;
  p.share = n.real();
  for (std::size_t* count : {&p.observed, &p.held_out, &p.tail_vectors, &p.least_k, &p.max_k})
    *count = n.whole();
  p.max_memory = n.real_or_infinite();
  p.rule = static_cast<Rule>(n.whole_up_to(static_cast<std::size_t>(Rule::mass)));
  p.seed = (std::uint64_t{n.whole_up_to(0xffffffffU)} << 32U);
  p.seed |= n.whole_up_to(0xffffffffU);
  if (n.whole_up_to(1) == 1) {
    GivenPlan given;
    given.retriever = read_retriever(n, Retriever::complete);
    given.target_recall = n.real();
    given.stop = read_stop(n);
    p.given = given;
  }
  if (!n.done()) p.rope.rotary_first = n.whole();
  n.finish();
  const auto frequencies = file.array<double>("head.frequencies").span();
  p.rope.frequencies.assign(frequencies.begin(), frequencies.end());
  Numbers logits(file, "head.logits");
  p.softcap = static_cast<float>(logits.real());
  while (!logits.done()) p.null_logits.push_back(static_cast<float>(logits.real()));
  return p;
}

HeadPlan read_plan(const ContainerReader& file) {
  Numbers n(file, "head.plan");
  HeadPlan plan;
  plan.retriever = read_retriever(n, Retriever::projection);
  plan.target_recall = n.real_in(0, 1);
  n.check(plan.retriever != Retriever::projection || plan.target_recall > 0,
          "searches for a recall of 0");
  plan.tail_vectors = n.whole();
  for (double* value :
       {&plan.expected_error, &plan.error_without_tail, &plan.keys_per_query, &plan.bytes_per_step})
    *value = n.real_in(0, std::numeric_limits<double>::max());
  plan.stop = read_stop(n);
  n.finish();
  // Without a search, the rule has no limit.
  if (plan.stop.k > 0) require_stop_rule(plan.stop, "the plan's stop");
  return plan;
}

void check(const ContainerReader& file, bool ok, const char* what) {
  if (!ok) fail(ErrorCode::corrupt, "{}: {}", file.path().string(), what);
}

/// A matrix of known shape; shares the file's memory.
AnyMatrix read_rows(const ContainerReader& file, const char* name, Dtype dtype, std::size_t rows,
                    std::size_t cols) {
  const auto bytes = file.array<std::byte>(name);
  if (bytes.size() != rows * cols * size_of(dtype))
    fail(ErrorCode::corrupt, "{}: section {} has {} bytes, must have {} x {}", file.path().string(),
         name, bytes.size(), rows, cols);
  return {bytes, dtype, rows, cols};
}

/// In f32 where there are so many bytes, else in f16.
AnyMatrix read_tail_rows(const ContainerReader& file, const char* name, std::size_t rows,
                         std::size_t cols) {
  const bool full = file.array<std::byte>(name).size() == rows * cols * sizeof(float);
  AnyMatrix m = read_rows(file, name, full ? Dtype::f32 : Dtype::f16, rows, cols);
  try {
    require_finite(m.view(), name);
  } catch (const Error& e) {
    fail(ErrorCode::corrupt, "{}: section {}", file.path().string(), e.what());
  }
  return m;
}

std::vector<float> read_floats(const ContainerReader& file, const char* name, std::size_t count) {
  const auto floats = file.array<float>(name).span();
  if (floats.size() != count)
    fail(ErrorCode::corrupt, "{}: section {} has {} numbers, must have {}", file.path().string(),
         name, floats.size(), count);
  for (const float x : floats)
    if (!std::isfinite(x))
      fail(ErrorCode::corrupt, "{}: section {} holds a number that is not finite",
           file.path().string(), name);
  return {floats.begin(), floats.end()};
}

Matrix<float> read_matrix(const ContainerReader& file, const char* name, std::size_t rows,
                          std::size_t cols) {
  const std::vector<float> numbers = read_floats(file, name, rows * cols);
  Matrix<float> m(rows, cols);
  std::copy(numbers.begin(), numbers.end(), m.data());
  return m;
}

/// Positions in increasing order, each below `tokens`.
std::vector<std::size_t> read_positions(const ContainerReader& file, const char* name,
                                        std::size_t tokens) {
  Numbers n(file, name);
  std::vector<std::size_t> out;
  while (!n.done()) {
    const std::size_t position = n.whole();
    n.check(position < tokens, "holds a position that is not there");
    n.check(out.empty() || position > out.back(), "is not in increasing order");
    out.push_back(position);
  }
  return out;
}

void write_tail(const Tail& tail, IndexFileWriter& to) {
  const Tail::Parts& p = tail.parts();
  to.add_numbers("tail", {number(tail.vectors()), double{p.logits.scale}});
  to.add_bytes("tail.keys", bytes_of(p.keys.view()));
  to.add_bytes("tail.values", bytes_of(p.values.view()));
  to.add_bytes("tail.bias", bytes_of(p.bias));
  to.add_bytes("tail.correction", bytes_of(p.correction));
  to.add_bytes("tail.limits", bytes_of(p.limits));
}

Tail read_tail(const ContainerReader& file, float softcap, std::size_t group, std::size_t d,
               std::size_t dv) {
  Numbers n(file, "tail");
  const std::size_t count = n.whole_up_to(65536);
  const auto scale = static_cast<float>(n.real());
  n.finish();
  Tail::Parts p;
  p.logits = {scale, softcap};
  p.keys = read_tail_rows(file, "tail.keys", count, d);
  p.values = read_tail_rows(file, "tail.values", group * count, dv);
  p.bias = read_matrix(file, "tail.bias", count, group);
  p.correction = read_matrix(file, "tail.correction", group, Tail::kFeatures);
  p.limits = read_matrix(file, "tail.limits", group, Tail::kLimits);
  return Tail::from_parts(std::move(p));
}

}  // namespace

void HeadCache::write(IndexFileWriter& file) const {
  occupancy_.require_idle();
  require(group_ > 0, "the HeadCache is empty: prefill one first");
  if (params_.index)
    fail(ErrorCode::unsupported,
         "params.index is a search of the caller's own, which no file can hold: keep what it was "
         "prefilled from, and prefill again");
  file.add_numbers("head",
                   {number(group_), number(dim_), number(value_dim_), word(recent_keys_.dtype()),
                    word(recent_values_.dtype()), number(sink_keys_.rows()), number(indexed()),
                    number(recent_keys_.rows())});
  file.add_numbers("head.params", numbers_of(params_));
  file.add_numbers("head.frequencies", params_.rope.frequencies);
  file.add_numbers("head.logits", logits_of(params_));
  file.add_numbers("head.plan", numbers_of(plan_));
  file.add_numbers("pinned", numbers_of(pinned_));
  file.add_bytes("sink.keys", bytes_of(sink_keys_.view()));
  file.add_bytes("sink.values", bytes_of(sink_values_.view()));
  file.add_bytes("indexed.values", bytes_of(indexed_values_.view()));
  file.add_bytes("indexed.scales", bytes_of(value_scales_));
  file.add_bytes("recent.keys", bytes_of(recent_keys_.view()));
  file.add_bytes("recent.values", bytes_of(recent_values_.view()));
  file.add_bytes("asked", bytes_of(remembered_));
  file.add_numbers("asked.at", numbers_of(remembered_at_));
  if (!tail_.empty()) write_tail(tail_, file);
  if (!index_.index.empty()) write_index(index_.index, file);
  if (index_.empty()) file.add_bytes("indexed.keys", bytes_of(indexed_keys_.view()));
}

void HeadCache::save(const std::filesystem::path& path) const {
  IndexFileWriter file(kKind);
  write(file);
  file.save(path);
}

std::vector<std::byte> HeadCache::to_bytes() const {
  IndexFileWriter file(kKind);
  write(file);
  return file.bytes();
}

void HeadCache::read_tokens(const ContainerReader& file) {
  constexpr std::size_t kMostTokens = kNoId, kMostDims = 1U << 24U;
  Numbers n(file, "head");
  group_ = n.whole_up_to(kMaxGroup);
  dim_ = n.whole_up_to(kMostDims);
  value_dim_ = n.whole_up_to(kMostDims);
  const auto dtype = [&] {
    return static_cast<Dtype>(n.whole_up_to(static_cast<std::size_t>(Dtype::bf16)));
  };
  const Dtype keys = dtype(), values = dtype();
  const std::size_t sink = n.whole_up_to(kMostTokens), indexed = n.whole_up_to(kMostTokens),
                    recent = n.whole_up_to(kMostTokens);
  n.finish();
  n.check(group_ > 0 && dim_ > 0 && value_dim_ > 0, "is of a head of no size");
  check(file, params_.null_logits.empty() || params_.null_logits.size() == group_,
        "there is not one null logit for each query head");

  sink_keys_ = read_rows(file, "sink.keys", keys, sink, dim_);
  sink_values_ = read_rows(file, "sink.values", values, sink, value_dim_);
  recent_keys_ = StoredRows(read_rows(file, "recent.keys", keys, recent, dim_).view());
  recent_values_ = StoredRows(read_rows(file, "recent.values", values, recent, value_dim_).view());
  const bool coded = params_.int8_values;
  indexed_values_ =
      read_rows(file, "indexed.values", coded ? Dtype::i8 : values, indexed, value_dim_);
  value_scales_ = read_floats(file, "indexed.scales", coded ? indexed : 0);
  check(file,
        std::all_of(value_scales_.begin(), value_scales_.end(), [](float x) { return x > 0; }),
        "a scale of the values is not positive");
  if (const auto kind = index_kind_of(plan_.retriever)) index_.index = read_index(*kind, file);
  if (!index_.index.empty()) indexed_keys_ = index_.index.keys();
  if (index_.empty()) indexed_keys_ = read_rows(file, "indexed.keys", keys, indexed, dim_);
  check(file, indexed_keys_.rows() == indexed && indexed_keys_.cols() == dim_,
        "the index is of other keys");
  check(file, indexed_keys_.dtype() == keys, "the index is of keys of another type");
  for (const AnyMatrixView m : {sink_keys_.view(), indexed_keys_.view(), recent_keys_.view()})
    require_finite(m, "keys");
  for (const AnyMatrixView m : {sink_values_.view(), recent_values_.view()})
    require_finite(m, "values");
  if (!coded) require_finite(indexed_values_.view(), "values");
}

void HeadCache::read_rest(const ContainerReader& file) {
  pinned_ = read_positions(file, "pinned", tokens());
  const std::size_t exact = sink_keys_.rows();
  check(file, pinned_.size() <= exact, "there are more pinned tokens than exact ones");
  check(file, pinned_.empty() || pinned_[0] >= exact - pinned_.size(),
        "a pinned token is one of the sink");
  remembered_at_ = read_positions(file, "asked.at", tokens());
  remembered_ = read_floats(file, "asked", remembered_at_.size() * group_ * dim_);
  if (plan_.tail_vectors > 0) tail_ = read_tail(file, params_.softcap, group_, dim_, value_dim_);
  check(file, tail_.vectors() == plan_.tail_vectors, "the tail is not the plan's");
  check(file, plan_.stop.k <= indexed(), "the plan retrieves more keys than there are");
  check(file, index_.empty() == (plan_.stop.k == 0),
        "the plan's retriever and k contradict each other");
}

HeadCache HeadCache::read(const ContainerReader& file) {
  HeadCache cache;
  try {
    cache.params_ = read_params_of_head(file);
    cache.params_.validate();
    cache.plan_ = read_plan(file);
    cache.read_tokens(file);
    if (cache.params_.shift) cache.params_.rope.validate(cache.dim_);
    cache.read_rest(file);
  } catch (const Error& e) {
    const std::string path = file.path().string(), what = e.what();
    if (what.starts_with(path)) throw;
    fail(ErrorCode::corrupt, "{}: {}", path, what);
  }
  return cache;
}

HeadCache HeadCache::load(const std::filesystem::path& path) {
  return read(ContainerReader::load(path, kKind));
}
HeadCache HeadCache::map(const std::filesystem::path& path) {
  return read(ContainerReader::map(path, kKind));
}
HeadCache HeadCache::from_bytes(std::span<const std::byte> bytes) {
  return read(ContainerReader::copy_of(bytes, kKind));
}

}  // namespace keyseek
