/// A head as decoding meets it: tokens with their queries, in order of position.
#pragma once

#include <gtest/gtest.h>

#include <optional>

#include "keyseek/decode_options.hpp"
#include "keyseek/decode_pool.hpp"
#include "keyseek/io.hpp"
#include "support/attention_reference.hpp"
#include "support/random_data.hpp"

namespace keyseek::test {

struct DecodeHead {
  AnyMatrix keys, values;    ///< as stored
  Matrix<float> f32_keys;    ///< as decoding hands them over
  Matrix<float> f32_values;  ///< likewise
  Matrix<float> queries;     ///< [n * group, d]
  std::size_t group = 1;
  DecodeParams params;  ///< with the head's own scale and embedding

  [[nodiscard]] std::size_t tokens() const { return keys.rows(); }
  [[nodiscard]] MatrixView<float> at(std::size_t position) const {
    return queries.view().slice(position * group, group);
  }
  /// A cache of the first n tokens, with the queries of the newest `positions` of them.
  [[nodiscard]] HeadCache prefill(std::size_t n, std::size_t positions, const DecodeParams& p,
                                  const Execution& run = {.threads = 1}) const {
    return HeadCache::prefill(keys.view().slice(0, n), values.view().slice(0, n),
                              queries.view().slice((n - positions) * group, positions * group),
                              group, p, run);
  }
  [[nodiscard]] HeadCache prefill(std::size_t n, const DecodeParams& p,
                                  const Execution& run = {.threads = 1}) const {
    return prefill(n, n, p, run);
  }
  /// The next token of the sequence; its outputs, [group, dv].
  Matrix<float> step(HeadCache& cache, DecodeScratch& scratch) const {
    const std::size_t position = cache.tokens();
    Matrix<float> out(group, values.cols());
    cache.step(at(position), f32_keys.row(position), f32_values.row(position), scratch, out.data());
    EXPECT_EQ(cache.tokens(), position + 1);
    return out;
  }
  /// |out - full| / |full| of each query of a step, against attention over all tokens up to it.
  [[nodiscard]] std::vector<double> errors(std::size_t position, const Matrix<float>& out) const {
    AttendScratch scratch;
    Partial full, nothing;
    attend(at(position), keys.view().slice(0, position + 1), {values.view().slice(0, position + 1)},
           params.logits(), scratch, full);
    nothing.reset(group, values.cols(), params.null_logits);
    merge(nothing, full);
    std::vector<double> each;
    for (std::size_t g = 0; g < group; ++g)
      each.push_back(relative_error(out.row(g), full.out.row(g), values.cols()));
    return each;
  }
  /// Mean error of the next `steps` steps, measured at every so many of them.
  double decode(HeadCache& cache, std::size_t steps, std::size_t every = 1) const {
    DecodeScratch scratch;
    double sum = 0;
    std::size_t count = 0;
    for (std::size_t s = 0; s < steps; ++s) {
      const std::size_t position = cache.tokens();
      const Matrix<float> out = step(cache, scratch);
      if (s % every != 0) continue;
      for (const double error : errors(position, out)) {
        sum += error;
        ++count;
      }
    }
    return sum / static_cast<double>(count);
  }
};

/// What the head's query head g makes of an inner product.
inline NaiveLogits logits_of(const DecodeParams& params, std::size_t g) {
  return {.scale = double{params.scale},
          .softcap = double{params.softcap},
          .null = params.null_logits.empty() ? -kInfinity : double{params.null_logits[g]}};
}

/// Without any structure.
inline DecodeHead normal_head(std::size_t n, std::size_t group, Dtype dtype = Dtype::f32,
                              std::size_t d = 32, std::size_t dv = 24) {
  DecodeHead head;
  head.f32_keys = normal_matrix(n, d, 1);
  head.f32_values = normal_matrix(n, dv, 2);
  head.queries = normal_matrix(n * group, d, 3);
  head.keys = stored_as(head.f32_keys, dtype);
  head.values = stored_as(head.f32_values, dtype);
  head.group = group;
  head.params.scale = 0.25F;
  return head;
}

/// With options of which a few hundred tokens fill sink, window and horizon, beside `params`; those
/// that nobody would read are left out.
inline DecodeHead in_few_tokens(DecodeHead head, const DecodeParams& params, std::size_t window,
                                std::size_t horizon) {
  head.params = params;
  head.params.scale = 0.25F;
  head.params.shift = false;
  head.params.sink = 4;
  head.params.window = window;
  head.params.horizon = horizon;
  head.params.least_indexed = 40;
  head.params = without_unread(std::move(head.params));
  return head;
}

/// A head of the capture in the repository.
inline DecodeHead sample_head(std::size_t layer) {
  const io::CapturedHead captured = io::read_capture(KEYSEEK_SAMPLE, layer, 0);
  DecodeHead head;
  head.keys = captured.keys;
  head.values = captured.values;
  head.f32_keys = to_f32(head.keys.view());
  head.f32_values = to_f32(head.values.view());
  head.group = captured.queries.size();
  const std::size_t d = head.keys.cols();
  head.queries = Matrix<float>(head.tokens() * head.group, d);
  for (std::size_t i = 0; i < head.tokens(); ++i)
    for (std::size_t g = 0; g < head.group; ++g)
      std::copy_n(captured.queries[g].row(i), d, head.queries.row(i * head.group + g));
  head.params.plan_share = 1;  // of prompts as short as those of the tests, all queries
  head.params.scale = static_cast<float>(captured.scale);
  head.params.rope = captured.rope;
  return head;
}

/// The head with other parameters.
inline DecodeParams with(DecodeParams params, const auto& change) {
  change(params);
  return params;
}

/// Layer 2 of the capture in the repository, read once.
inline const DecodeHead& sample_of_layer_2() {
  static const DecodeHead head = sample_head(2);
  return head;
}

/// Whichever retriever looks at every key.
inline constexpr std::optional<Retriever> kComplete = {};

/// A plan that is given, without what its retriever does not read.
inline void give(DecodeParams& p, std::optional<Retriever> retriever, std::size_t k) {
  p.given = GivenPlan{.retriever = retriever, .k = k};
  p = without_unread(std::move(p));
}

/// Parameters with a plan that is given, whose outcome is to be `stop`.
inline void give(DecodeParams& p, std::optional<Retriever> retriever, const StopRule& stop) {
  p.given = GivenPlan{.retriever = retriever, .k = stop.k};
  p.rule = stop.rule;
  if (stop.rule != Rule::top_k) {
    p.given->limit = stop.limit;
    p.least_k = stop.least;
  }
  p = without_unread(std::move(p));
}

/// Those of the sample's layer 2.
inline DecodeParams given_plan(std::optional<Retriever> retriever,
                               const StopRule& stop = {.k = 40}) {
  return with(sample_of_layer_2().params, [&](DecodeParams& p) { give(p, retriever, stop); });
}

}  // namespace keyseek::test
