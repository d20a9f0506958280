/// Many heads at once: all KV heads of all requests of a layer, or any of them, on several threads.
///
/// Heads share group, d and dv; each is named once. `queries` are [heads * group, d], `keys`
/// [heads, d], `values` [heads, dv], all f32; `out` is [heads * group, dv]. When one throws, its
/// error leaves all heads as they were. A DecodePool serves any number of callers at once.
/// Refreshes that heads begin (DecodeParams::refresh_delay) are planned on one thread more, beside
/// the steps.
///
///     keyseek::DecodePool pool(2);
///     keyseek::Matrix<float> out(heads.size() * heads[0]->group(), heads[0]->value_dim());
///     keyseek::step_heads(heads, queries, keys, values, pool, out.data());
#pragma once

#include <cstddef>
#include <functional>
#include <memory>
#include <span>
#include <utility>

#include "keyseek/decode.hpp"
#include "keyseek/execution.hpp"
#include "keyseek/matrix.hpp"

namespace keyseek {

/// Threads, and the memory they work in, for step_heads: started at first use, then waiting
/// between calls. Serves any number of callers at once, which share the threads; a body may call
/// it again. A process that forks is safe: the child starts threads of its own.
class DecodePool {
 public:
  /// 0: as many threads as this process may use. The caller's own is one of them. `executor`: whose
  /// they are; null: OpenMP's where keyseek has them, else the pool's own.
  explicit DecodePool(int threads = 1, std::shared_ptr<Executor> executor = {});
  ~DecodePool();
  DecodePool(DecodePool&&) noexcept;
  DecodePool& operator=(DecodePool&&) noexcept;

  [[nodiscard]] int threads() const noexcept;
  /// body(i, scratch) for all i < count, in any order; rethrows the first error.
  void run(std::size_t count, const std::function<void(std::size_t, DecodeScratch&)>& body);
  /// Has work(run) done some time on one thread more, after what was handed over before. It throws
  /// nothing and stops when run.progress says so; a pool that ends drops what has not begun.
  void run_aside(std::function<void(const Execution&)> work);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

/// HeadCache::append of each, one token or m: `keys` [heads * m, d], `values` [heads * m, dv] and,
/// unless empty, `queries` [heads * m * group, d], those of a head in consecutive rows.
void append_heads(std::span<HeadCache* const> heads, MatrixView<float> keys,
                  MatrixView<float> values, DecodePool& pool, MatrixView<float> queries = {});

/// HeadCache::announce of each: `pages` are new ones of each head, or none at all; `queries` as in
/// append_heads.
void announce_heads(std::span<HeadCache* const> heads, std::size_t tokens,
                    std::span<const std::span<const Id>> pages, DecodePool& pool,
                    MatrixView<float> queries = {});

/// HeadCache::extend of each, m tokens, as in append_heads; `out` [heads * m * group, dv].
void extend_heads(std::span<HeadCache* const> heads, MatrixView<float> queries,
                  MatrixView<float> keys, MatrixView<float> values, DecodePool& pool, float* out);

/// HeadCache::truncate of each, to tokens[i], or of none. They need not be alike.
void truncate_heads(std::span<HeadCache* const> heads, std::span<const std::size_t> tokens,
                    DecodePool& pool);

/// HeadCache::copy_tokens of each: to(i) says where its keys and its values go, and is asked while
/// nobody else is at work on it. They need not be alike.
void copy_tokens(std::span<HeadCache* const> heads, DecodePool& pool,
                 const std::function<std::pair<void*, void*>(std::size_t)>& to);

/// HeadCache::attend of each.
void attend_heads(std::span<HeadCache* const> heads, MatrixView<float> queries, DecodePool& pool,
                  float* out);

/// The same for queries of any type but i8.
void attend_heads(std::span<HeadCache* const> heads, AnyMatrixView queries, DecodePool& pool,
                  float* out);

/// HeadCache::step of each.
void step_heads(std::span<HeadCache* const> heads, MatrixView<float> queries,
                MatrixView<float> keys, MatrixView<float> values, DecodePool& pool, float* out);

/// HeadCache::step_beside_static of each; `lse` [heads * group].
void step_heads_beside_static(std::span<HeadCache* const> heads, MatrixView<float> queries,
                              MatrixView<float> keys, MatrixView<float> values, DecodePool& pool,
                              float* out, float* lse);

}  // namespace keyseek
