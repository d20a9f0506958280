#include "base/fail.hpp"
#include "base/worker_pool.hpp"
#include "keyseek/decode.hpp"

namespace keyseek {
namespace {

void require_alike(std::span<HeadCache* const> heads, MatrixView<float> queries,
                   MatrixView<float> keys, MatrixView<float> values) {
  for (const HeadCache* head : heads) {
    require(head != nullptr && head->group() > 0, "a HeadCache is empty: prefill it first");
    require(head->group() == heads[0]->group() && head->dim() == heads[0]->dim() &&
                head->value_dim() == heads[0]->value_dim(),
            "heads differ in shape");
  }
  const std::size_t group = heads[0]->group();
  require(queries.rows == heads.size() * group, "queries has {} rows, must have {}", queries.rows,
          heads.size() * group);
  require(queries.cols == heads[0]->dim() && keys.cols == heads[0]->dim(),
          "queries and keys have dimension {} and {}, the heads {}", queries.cols, keys.cols,
          heads[0]->dim());
  require(keys.rows == heads.size() && values.rows == heads.size(),
          "keys has {} rows and values {}, there are {} heads", keys.rows, values.rows,
          heads.size());
  require(values.cols == heads[0]->value_dim(), "values have dimension {}, the heads {}",
          values.cols, heads[0]->value_dim());
}

}  // namespace

struct DecodePool::State {
  explicit State(int threads)
      : workers(threads), scratch(static_cast<std::size_t>(workers.threads())) {}
  WorkerPool workers;
  std::vector<DecodeScratch> scratch;  ///< one per worker
};

DecodePool::DecodePool(int threads) {
  const Execution run = {.threads = threads};
  run.validate();
  state_ = std::make_unique<State>(run.thread_count());
}
DecodePool::~DecodePool() = default;
DecodePool::DecodePool(DecodePool&&) noexcept = default;
DecodePool& DecodePool::operator=(DecodePool&&) noexcept = default;

int DecodePool::threads() const noexcept { return state_->workers.threads(); }

void DecodePool::run(std::size_t count,
                     const std::function<void(std::size_t, DecodeScratch&)>& body) {
  state_->workers.run(count, [&](std::size_t i, int worker) {
    body(i, state_->scratch[static_cast<std::size_t>(worker)]);
  });
}

void step_heads(std::span<HeadCache* const> heads, MatrixView<float> queries,
                MatrixView<float> keys, MatrixView<float> values, DecodePool& pool, float* out) {
  if (heads.empty()) return;
  require_alike(heads, queries, keys, values);
  const std::size_t group = heads[0]->group(), dv = heads[0]->value_dim();
  pool.run(heads.size(), [&](std::size_t i, DecodeScratch& scratch) {
    heads[i]->step(queries.slice(i * group, group), keys.row(i), values.row(i), scratch,
                   out + i * group * dv);
  });
}

void step_heads_beside_static(std::span<HeadCache* const> heads, MatrixView<float> queries,
                              MatrixView<float> keys, MatrixView<float> values, DecodePool& pool,
                              float* out, float* lse) {
  if (heads.empty()) return;
  require_alike(heads, queries, keys, values);
  const std::size_t group = heads[0]->group(), dv = heads[0]->value_dim();
  pool.run(heads.size(), [&](std::size_t i, DecodeScratch& scratch) {
    heads[i]->step_beside_static(queries.slice(i * group, group), keys.row(i), values.row(i),
                                 scratch, out + i * group * dv, lse + i * group);
  });
}

}  // namespace keyseek
