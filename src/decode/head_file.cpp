// A head in a file: docs/index-format.md, "A head".
#include <algorithm>
#include <cmath>
#include <limits>

#include "base/fail.hpp"
#include "base/saved_count.hpp"
#include "decode/head_state.hpp"
#include "decode/params.hpp"
#include "index/index_file.hpp"
#include "keyseek/decode_options.hpp"
#include "score/kernels.hpp"

namespace keyseek {
namespace {

double number(std::size_t x) { return saved_count(x); }
template <class Enum>
double word(Enum x) {
  return static_cast<double>(static_cast<int>(x));
}

template <class T>
std::span<const std::byte> bytes_of(const std::vector<T>& values) {
  return std::as_bytes(std::span<const T>(values));
}
std::span<const std::byte> bytes_of(std::string_view text) {
  return std::as_bytes(std::span<const char>(text));
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

std::vector<double> numbers_of(const HeadPlan& plan) {
  std::vector<double> out = {word(plan.retriever), plan.target_recall, number(plan.tail_vectors),
                             plan.expected_error,  plan.planted_error, plan.error_without_tail,
                             plan.keys_per_query,  plan.bytes_per_step};
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

HeadPlan read_plan(const ContainerReader& file) {
  Numbers n(file, "head.plan");
  HeadPlan plan;
  plan.retriever =
      static_cast<Retriever>(n.whole_up_to(static_cast<std::size_t>(Retriever::projection)));
  plan.target_recall = n.real_in(0, 1);
  n.check(plan.retriever != Retriever::projection || plan.target_recall > 0,
          "searches for a recall of 0");
  plan.tail_vectors = n.whole();
  for (double* value : {&plan.expected_error, &plan.planted_error, &plan.error_without_tail,
                        &plan.keys_per_query, &plan.bytes_per_step})
    *value = n.real_in(0, std::numeric_limits<double>::max());
  plan.stop = read_stop(n);
  n.finish();
  // Without a search, the rule has no limit.
  if (plan.stop.k > 0) require_limit(plan.stop.rule, plan.stop.limit, "the plan's limit");
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
  to.add_rows("tail.keys", p.keys.view());
  to.add_rows("tail.values", p.values.view());
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

void HeadCache::State::write(IndexFileWriter& file, std::string_view options) const {
  occupancy.require_idle();
  file.add_numbers("head",
                   {number(group), number(dim), number(value_dim), word(recent_keys.dtype()),
                    word(recent_values.dtype()), number(sink_keys.rows()), number(indexed()),
                    number(recent_keys.rows())});
  file.add_bytes("head.params", bytes_of(options));
  file.add_numbers("head.plan", numbers_of(plan));
  file.add_numbers("pinned", numbers_of(pinned));
  file.add_rows("sink.keys", sink_keys.view());
  file.add_rows("sink.values", sink_values.view());
  file.add_rows("indexed.values", indexed_values.view());
  file.add_bytes("indexed.scales", bytes_of(value_scales));
  file.add_rows("recent.keys", recent_keys.view());
  file.add_rows("recent.values", recent_values.view());
  file.add_bytes("asked", bytes_of(remembered));
  file.add_numbers("asked.at", numbers_of(remembered_at));
  if (!tail.empty()) write_tail(tail, file);
  index.write(file);
  if (index.empty()) file.add_rows("indexed.keys", indexed_keys.view());
}

void HeadCache::State::read_tokens(const ContainerReader& file) {
  constexpr std::size_t kMostTokens = kNoId, kMostDims = 1U << 24U;
  Numbers n(file, "head");
  group = n.whole_up_to(kMaxGroup);
  dim = n.whole_up_to(kMostDims);
  value_dim = n.whole_up_to(kMostDims);
  const auto dtype = [&] {
    return static_cast<Dtype>(n.whole_up_to(static_cast<std::size_t>(Dtype::bf16)));
  };
  const Dtype keys = dtype(), values = dtype();
  const std::size_t exact = n.whole_up_to(kMostTokens), count = n.whole_up_to(kMostTokens),
                    recent = n.whole_up_to(kMostTokens);
  n.finish();
  n.check(group > 0 && dim > 0 && value_dim > 0, "is of a head of no size");
  check(file, params.null_logits.empty() || params.null_logits.size() == group,
        "there is not one null logit for each query head");

  sink_keys = read_rows(file, "sink.keys", keys, exact, dim);
  sink_values = read_rows(file, "sink.values", values, exact, value_dim);
  recent_keys = StoredRows(read_rows(file, "recent.keys", keys, recent, dim));
  recent_values = StoredRows(read_rows(file, "recent.values", values, recent, value_dim));
  const bool coded = params.int8_values;
  indexed_values = read_rows(file, "indexed.values", coded ? Dtype::i8 : values, count, value_dim);
  value_scales = read_floats(file, "indexed.scales", coded ? count : 0);
  check(file, std::all_of(value_scales.begin(), value_scales.end(), [](float x) { return x > 0; }),
        "a scale of the values is not positive");
  index = HeadIndex::read(file, plan.retriever);
  indexed_keys = index.empty() ? read_rows(file, "indexed.keys", keys, count, dim)
                               : index.keys_or(indexed_keys);
  check(file, indexed_keys.rows() == count && indexed_keys.cols() == dim,
        "the index is of other keys");
  check(file, indexed_keys.dtype() == keys, "the index is of keys of another type");
  for (const AnyMatrixView m : {sink_keys.view(), indexed_keys.view(), recent_keys.view()})
    require_finite(m, "keys");
  for (const AnyMatrixView m : {sink_values.view(), recent_values.view()})
    require_finite(m, "values");
  if (!coded) require_finite(indexed_values.view(), "values");
}

void HeadCache::State::read_rest(const ContainerReader& file) {
  pinned = read_positions(file, "pinned", tokens());
  const std::size_t exact = sink_keys.rows();
  check(file, pinned.size() <= exact, "there are more pinned tokens than exact ones");
  check(file, pinned.empty() || pinned[0] >= exact - pinned.size(),
        "a pinned token is one of the sink");
  remembered_at = read_positions(file, "asked.at", tokens());
  remembered = read_floats(file, "asked", remembered_at.size() * group * dim);
  if (plan.tail_vectors > 0) tail = read_tail(file, params.softcap, group, dim, value_dim);
  check(file, tail.vectors() == plan.tail_vectors, "the tail is not the plan's");
  check(file, plan.stop.k <= indexed(), "the plan retrieves more keys than there are");
  check(file, index.empty() == (plan.stop.k == 0),
        "the plan's retriever and k contradict each other");
}

void HeadCache::State::read_all(const ContainerReader& file) {
  try {
    params = decode_params_from(file.text("head.params"));
    require_possible(params);
    plan = read_plan(file);
    read_tokens(file);
    if (params.shift) params.rope.validate(dim);
    read_rest(file);
  } catch (const Error& e) {
    const std::string path = file.path().string(), what = e.what();
    if (what.starts_with(path)) throw;
    const bool newer = e.code() == ErrorCode::unsupported;
    fail(newer ? ErrorCode::unsupported : ErrorCode::corrupt, "{}: {}", path, what);
  }
}

HeadCache HeadCache::State::read(const ContainerReader& file) {
  auto state = std::make_unique<State>();
  state->read_all(file);
  return HeadCache(std::move(state));
}

}  // namespace keyseek
