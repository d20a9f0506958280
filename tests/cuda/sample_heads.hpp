/// KV heads of the sample as HeadCaches beside a session, and the same caches alone.
#pragma once

#include <vector>

#include "cuda/runtime.hpp"
#include "support/decode_head.hpp"

namespace keyseek::cuda::test {

using keyseek::test::DecodeHead;

/// Heads of the sample: as many KV heads of one made-up layer.
class SampleHeads {
 public:
  static constexpr std::size_t kPrompt = 3000, kHorizon = 64, kSink = 16, kWindow = 32;

  explicit SampleHeads(Retriever retriever = Retriever::flat,
                       const std::vector<float>& null_logits = {}) {
    for (const std::size_t layer : {2U, 15U}) {
      DecodeHead head = keyseek::test::sample_head(layer);
      // As they reach the CPU from a device.
      head.queries = to_f32(keyseek::test::stored_as(head.queries, Dtype::f16).view());
      head.params.sink = kSink;
      head.params.window = kWindow;
      head.params.horizon = kHorizon;
      head.params.null_logits = null_logits;
      keyseek::test::give(head.params, retriever, 40);
      caches_.push_back(head.prefill(kPrompt, head.params));
      heads_.push_back(std::move(head));
    }
    alone_ = caches_;
  }

  [[nodiscard]] std::vector<HeadCache*> caches() {
    std::vector<HeadCache*> pointers;
    for (HeadCache& cache : caches_) pointers.push_back(&cache);
    return pointers;
  }

  /// On the stream: the next token of each head, queries and key and value in f16.
  void write_token(Runtime& runtime, const DecodeSession& session, Stream stream) {
    const std::size_t token = alone_[0].tokens(), row = session.shape().dim * sizeof(Half);
    const std::size_t group = session.shape().group;
    for (std::size_t i = 0; i < heads_.size(); ++i) {
      const auto at = [&](void* to, std::size_t rows) {
        return static_cast<std::byte*>(to) + i * rows * row;
      };
      queries_[i] = keyseek::test::stored_as(rows_of(heads_[i].at(token)), Dtype::f16);
      const TokenInputs to = session.inputs();
      runtime.copy(at(to.queries, group), queries_[i].view().data, group * row, stream);
      runtime.copy(at(to.key, 1), heads_[i].keys.view().row(token), row, stream);
      runtime.copy(at(to.value, 1), heads_[i].values.view().row(token), row, stream);
    }
  }

  /// The largest difference of the session's output to that of the caches alone, which take the
  /// same step.
  double difference(Runtime& runtime, const DecodeSession& session, Stream stream) {
    const SessionShape& shape = session.shape();
    std::vector<std::byte> sent(shape.queries() * shape.dim * size_of(shape.dtype));
    runtime.copy(sent.data(), session.output(), sent.size(), stream);
    Event done = runtime.make_event();
    runtime.record(done, stream);
    runtime.synchronize(done);
    runtime.free_event(done);
    const AnyMatrixView got{sent.data(), shape.dtype, shape.queries(), shape.dim, shape.dim};
    double worst = 0;
    std::vector<float> row(shape.dim);
    for (std::size_t i = 0; i < heads_.size(); ++i) {
      const Matrix<float> expected = heads_[i].step(alone_[i], scratch_);
      for (std::size_t g = 0; g < shape.group; ++g) {
        got.copy_row(i * shape.group + g, row.data());
        worst = keyseek::test::worse(
            worst, keyseek::test::relative_error(row.data(), expected.row(g), shape.dim));
      }
    }
    return worst;
  }

  /// `steps` of the caches beside the session; the largest difference.
  double decode(Runtime& runtime, DecodeSession& session, Stream stream, std::size_t steps) {
    DecodePool pool(2);
    double worst = 0;
    for (std::size_t s = 0; s < steps; ++s) {
      write_token(runtime, session, stream);
      session.step(caches(), pool);
      worst = keyseek::test::worse(worst, difference(runtime, session, stream));
    }
    return worst;
  }

  /// The same without a session.
  double decode_alone(std::size_t steps) {
    double worst = 0;
    for (std::size_t s = 0; s < steps; ++s) {
      for (std::size_t i = 0; i < heads_.size(); ++i) {
        const Matrix<float> expected = heads_[i].step(alone_[i], scratch_);
        const Matrix<float> got = heads_[i].step(caches_[i], scratch_);
        for (std::size_t g = 0; g < got.rows(); ++g)
          worst = keyseek::test::worse(
              worst, keyseek::test::relative_error(got.row(g), expected.row(g), got.cols()));
      }
    }
    return worst;
  }

 private:
  static Matrix<float> rows_of(MatrixView<float> rows) {
    Matrix<float> copy(rows.rows, rows.cols);
    for (std::size_t i = 0; i < rows.rows; ++i) std::copy_n(rows.row(i), rows.cols, copy.row(i));
    return copy;
  }

  std::vector<DecodeHead> heads_;
  std::vector<HeadCache> caches_, alone_;
  AnyMatrix queries_[2];
  DecodeScratch scratch_;
};

}  // namespace keyseek::cuda::test
