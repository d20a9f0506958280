/// A made-up model that decodes through a session, and what its attention should have been.
#pragma once

#include <deque>
#include <vector>

#include "cuda/runtime.hpp"
#include "static_problem.hpp"

namespace keyseek::cuda::test {

inline SessionShape small_shape() {
  return {.heads = 2, .group = 2, .dim = 64, .sink = 2, .window = 3, .scale = 0.125F, .splits = 2};
}

/// The vectors of a sequence, by token and head.
class Model {
 public:
  Model(const SessionShape& shape, std::size_t tokens)
      : shape_(shape),
        keys_(keyseek::test::stored_as(
            keyseek::test::normal_matrix(tokens * shape.heads, shape.dim, 1), shape.dtype)),
        values_(keyseek::test::stored_as(
            keyseek::test::normal_matrix(tokens * shape.heads, shape.dim, 2), shape.dtype)),
        queries_(keyseek::test::stored_as(
            keyseek::test::normal_matrix(tokens * shape.queries(), shape.dim, 3), shape.dtype)) {}

  [[nodiscard]] AnyMatrixView keys(std::size_t token) const {
    return keys_.view().slice(token * shape_.heads, shape_.heads);
  }
  [[nodiscard]] AnyMatrixView values(std::size_t token) const {
    return values_.view().slice(token * shape_.heads, shape_.heads);
  }
  [[nodiscard]] AnyMatrixView queries(std::size_t token) const {
    return queries_.view().slice(token * shape_.queries(), shape_.queries());
  }

  /// Full attention of query q of `token`.
  [[nodiscard]] Reference truth(std::size_t token, std::size_t q) const {
    std::vector<float> query(shape_.dim);
    queries(token).copy_row(q, query.data());
    std::vector<Id> ids;
    for (std::size_t t = 0; t <= token; ++t)
      ids.push_back(static_cast<Id>(t * shape_.heads + q / shape_.group));
    return keyseek::test::reference(query.data(), keys_.view(), {values_.view()}, ids,
                                    double{shape_.scale});
  }

 private:
  SessionShape shape_;
  AnyMatrix keys_, values_, queries_;
};

/// All tokens, one list for each head; those that the device has not are attended in full.
class CpuTokens {
 public:
  explicit CpuTokens(const SessionShape& shape)
      : shape_(shape), keys_(shape.heads), values_(shape.heads) {}

  void add(AnyMatrixView keys, AnyMatrixView values) {
    for (std::size_t head = 0; head < keys.rows; ++head) {
      extend(keys_[head], keys, head);
      extend(values_[head], values, head);
    }
  }

  void attend(const CpuStep& step, Partial& out) {
    add(step.keys, step.values);
    const Matrix<float> queries = to_f32(step.queries);
    for (std::size_t head = 0; head < shape_.heads; ++head) {
      const std::size_t first = head * shape_.group, rows = keys_[head].size() / shape_.dim;
      const std::size_t lost = rows - std::min(rows, shape_.capacity());  // by the window
      Partial part;
      keyseek::attend(queries.view().slice(first, shape_.group), view(keys_[head], lost),
                      {view(values_[head], lost)}, shape_.scale, scratch_, part);
      std::copy_n(part.out.data(), shape_.group * shape_.dim, out.out.row(first));
      std::copy(part.lse.begin(), part.lse.end(), out.lse.data() + first);
    }
  }

 private:
  void extend(std::vector<float>& rows, AnyMatrixView from, std::size_t head) const {
    rows.resize(rows.size() + shape_.dim);
    from.copy_row(head, rows.data() + rows.size() - shape_.dim);
  }
  /// `count` rows behind the sink.
  [[nodiscard]] AnyMatrixView view(const std::vector<float>& rows, std::size_t count) const {
    const std::size_t sink = count > 0 ? shape_.sink * shape_.dim : 0;
    return {rows.data() + sink, Dtype::f32, count, shape_.dim, shape_.dim};
  }

  SessionShape shape_;
  std::vector<std::vector<float>> keys_, values_;
  AttendScratch scratch_;
};

/// Decodes tokens [prompt, tokens); the device starts with the prompt.
class SessionRun {
 public:
  SessionRun(std::shared_ptr<Runtime> runtime, const SessionShape& shape, std::size_t prompt,
             std::size_t tokens)
      : runtime_(std::move(runtime)),
        shape_(shape),
        model_(shape, tokens),
        stream_(runtime_->make_stream()),
        done_(runtime_->make_event()),
        session_(runtime_, shape, stream_),
        cpu_(shape),
        next_(prompt) {
    for (std::size_t t = 0; t < prompt; ++t) cpu_.add(model_.keys(t), model_.values(t));
    prompt_keys_ = by_head(prompt, [&](std::size_t t) { return model_.keys(t); });
    prompt_values_ = by_head(prompt, [&](std::size_t t) { return model_.values(t); });
    session_.load(prompt_keys_.data(), prompt_values_.data(), prompt);
  }
  ~SessionRun() {
    try {
      finish_stream();
    } catch (const DeviceError&) {  // a stub that was lost
    }
    runtime_->free_event(done_);
  }
  SessionRun(const SessionRun&) = delete;
  SessionRun& operator=(const SessionRun&) = delete;

  [[nodiscard]] DecodeSession& session() { return session_; }
  [[nodiscard]] CpuTokens& cpu() { return cpu_; }

  /// On the stream: the next token's vectors to where the session takes them.
  void write_token() {
    const TokenInputs to = session_.inputs();
    copy_in(to.queries, model_.queries(next_));
    copy_in(to.key, model_.keys(next_));
    copy_in(to.value, model_.values(next_));
    ++next_;
  }

  /// On the stream: zeros over the inputs, which the session has promised not to mind.
  void spoil_inputs() {
    const TokenInputs to = session_.inputs();
    runtime_->copy(to.queries, zeros_.data(), bytes(shape_.queries()), stream_);
    runtime_->copy(to.key, zeros_.data(), bytes(shape_.heads), stream_);
    runtime_->copy(to.value, zeros_.data(), bytes(shape_.heads), stream_);
  }

  /// On the stream: the attention of this step, for error().
  void read_output() {
    outputs_.emplace_back(bytes(shape_.queries()));
    runtime_->copy(outputs_.back().data(), session_.output(), outputs_.back().size(), stream_);
  }

  void step() {
    write_token();
    session_.begin();
    spoil_inputs();
    const CpuStep sent = session_.wait();
    Partial part;
    part.reset(shape_.queries(), shape_.dim);
    cpu_.attend(sent, part);
    session_.finish(part);
    read_output();
  }

  /// The largest relative error of all outputs so far; infinite for what is not a number.
  double error() {
    finish_stream();
    double worst = 0;
    std::vector<float> out(shape_.dim);
    for (std::size_t i = 0; i < outputs_.size(); ++i) {
      const AnyMatrixView rows{outputs_[i].data(), shape_.dtype, shape_.queries(), shape_.dim,
                               shape_.dim};
      for (std::size_t q = 0; q < rows.rows; ++q) {
        rows.copy_row(q, out.data());
        const Reference truth = model_.truth(next_ - outputs_.size() + i, q);
        worst = keyseek::test::worse(worst, keyseek::test::relative_error(out.data(), truth.out));
      }
    }
    return worst;
  }

 private:
  using Bytes = std::vector<std::byte>;

  void finish_stream() {
    runtime_->record(done_, stream_);
    runtime_->synchronize(done_);
  }
  [[nodiscard]] std::size_t bytes(std::size_t rows) const {
    return rows * shape_.dim * size_of(shape_.dtype);
  }
  void copy_in(void* to, AnyMatrixView from) {
    runtime_->copy(to, from.data, bytes(from.rows), stream_);
  }
  /// [tokens, heads, dim] of the model as [heads, tokens, dim].
  template <class Of>
  Bytes by_head(std::size_t tokens, Of of) {
    Bytes all;
    for (std::size_t head = 0; head < shape_.heads; ++head) {
      for (std::size_t t = 0; t < tokens; ++t) {
        const auto* row = static_cast<const std::byte*>(of(t).row(head));
        all.insert(all.end(), row, row + bytes(1));
      }
    }
    return all;
  }

  std::shared_ptr<Runtime> runtime_;
  SessionShape shape_;
  Model model_;
  Bytes prompt_keys_, prompt_values_, zeros_ = Bytes(bytes(shape_.queries()));
  Stream stream_;
  Event done_;
  DecodeSession session_;
  CpuTokens cpu_;
  std::deque<Bytes> outputs_;
  std::size_t next_;
};

}  // namespace keyseek::cuda::test
