/// All KV heads of a layer at once.
#include <fmt/format.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/vector.h>

#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "arrays.hpp"
#include "bindings.hpp"
#include "errors.hpp"
#include "gil.hpp"
#include "keyseek/decode_pool.hpp"
#include "work.hpp"

namespace keyseek::python {
namespace {

constexpr const char* kAppendHeadsDoc = R"(HeadCache.append of many heads, as in step_heads.

keys: [heads * m, d], values: [heads * m, dv], queries: None or [heads * m * group, d] float32, those of
a head in consecutive rows.)";

constexpr const char* kAnnounceHeadsDoc = R"(HeadCache.announce of many heads, as in step_heads.

pages: new ones of each head, or None. queries: None or [heads * tokens * group, d] float32, those of a
head in consecutive rows.)";

constexpr const char* kExtendHeadsDoc = R"(HeadCache.extend of many heads, as in step_heads.

queries: [heads * m * group, d], keys: [heads * m, d], values: [heads * m, dv] float32, those of a head
in consecutive rows. Returns [heads * m * group, dv] float32.)";

constexpr const char* kTruncateHeadsDoc = R"(HeadCache.truncate of many heads, or of none.

heads: each once, of any shapes. tokens: of each, how many stay.)";

constexpr const char* kCopyTokensDoc = R"(Writes the tokens of many heads in order of position.

keys: [heads, m, d], values: [heads, m, dv] of the heads' key_dtype and value_dtype, written to; m may
be more than there are tokens. What is kept in 8 bits is decoded.)";

constexpr const char* kAttendHeadsDoc = R"(HeadCache.attend of many heads, as in step_heads.

queries: [heads * group, d] float32, float16 or bfloat16. Returns [heads * group, dv] float32.)";

constexpr const char* kStepHeadsDoc = R"(HeadCache.step of many heads of one shape, in parallel.

heads: any of a layer's, each once. queries: [heads * group, d] float32, keys: [heads, d], values:
[heads, dv]. Returns [heads * group, dv] float32. pool: threads to share the heads; None: the
calling one alone. When it raises, all heads are as before.)";

constexpr const char* kBesideStaticDoc =
    R"(step_heads where something else attends to sink and window, the new token included.

Returns the partial attention over all other tokens: out [heads * group, dv] and lse
[heads * group], the logarithms of the sums of exponentials, -inf over no token.)";

/// The caller's pool, or one of the calling thread alone.
DecodePool& pool_or_alone(DecodePool* pool) {
  thread_local DecodePool alone;
  return pool != nullptr ? *pool : alone;
}

/// Heads that are there: None in the list becomes null.
void require_heads(const std::vector<HeadCache*>& heads) {
  if (heads.empty()) refuse("heads is empty");
  for (std::size_t i = 0; i < heads.size(); ++i)
    if (heads[i] == nullptr) refuse("heads[{}] is None, must be a HeadCache", i);
}

void append_all(const std::vector<HeadCache*>& heads, const Array& keys, const Array& values,
                DecodePool* pool, const std::optional<Array>& queries) {
  const auto k = borrow_floats(keys, "keys");
  const auto v = borrow_floats(values, "values");
  Borrowed<MatrixView<float>> q;
  if (queries) q = borrow_floats(*queries, "queries");
  require_heads(heads);
  const GilReleased released;
  append_heads(heads, k.view, v.view, pool_or_alone(pool), q.view);
}

void announce_all(const std::vector<HeadCache*>& heads, const Whole& tokens,
                  const std::optional<std::vector<std::vector<Whole>>>& pages, DecodePool* pool,
                  const std::optional<Array>& queries) {
  require_heads(heads);
  const std::size_t count = count_of(tokens, "tokens");
  std::vector<std::vector<Id>> ids;
  if (pages)
    for (const std::vector<Whole>& of_head : *pages) ids.push_back(ids_of(of_head));
  const std::vector<std::span<const Id>> each(ids.begin(), ids.end());
  Borrowed<MatrixView<float>> q;
  if (queries) q = borrow_floats(*queries, "queries");
  const GilReleased released;
  announce_heads(heads, count, each, pool_or_alone(pool), q.view);
}

Table<float> extend_all(const std::vector<HeadCache*>& heads, const Array& queries,
                        const Array& keys, const Array& values, DecodePool* pool) {
  const auto q = borrow_floats(queries, "queries");
  const auto k = borrow_floats(keys, "keys");
  const auto v = borrow_floats(values, "values");
  require_heads(heads);
  Matrix<float> out(q.view.rows, heads[0]->value_dim());
  {
    const GilReleased released;
    extend_heads(heads, q.view, k.view, v.view, pool_or_alone(pool), out.data());
  }
  return numpy_of(std::move(out));
}

void truncate_all(const std::vector<HeadCache*>& heads, const std::vector<Whole>& tokens,
                  DecodePool* pool) {
  require_heads(heads);
  std::vector<std::size_t> kept;
  for (const Whole& count : tokens) kept.push_back(count_of(count, "tokens"));
  const GilReleased released;
  truncate_heads(heads, kept, pool_or_alone(pool));
}

/// Where the tokens of one head go. Asked while nobody else is at work on it.
std::byte* place_in(const Room& room, const char* name, std::size_t i, std::size_t tokens,
                    std::size_t cols, Dtype dtype) {
  if (room.cols != cols || room.rows < tokens)
    refuse("{} has room for {} x {}, a head has {} x {}", name, room.rows, room.cols, tokens, cols);
  if (room.dtype != dtype)
    refuse("{} is {}, a head has {}", name, to_string(room.dtype), to_string(dtype));
  return room.data + i * room.rows * room.cols * size_of(room.dtype);
}

void copy_all(const std::vector<HeadCache*>& heads, const Array& keys, const Array& values,
              DecodePool* pool) {
  require_heads(heads);
  const Room k = borrow_room(keys, "keys"), v = borrow_room(values, "values");
  if (k.blocks != heads.size() || v.blocks != heads.size())
    refuse("keys is for {} heads and values for {}, there are {}", k.blocks, v.blocks,
           heads.size());
  const GilReleased released;
  copy_tokens(heads, pool_or_alone(pool), [&](std::size_t i) -> std::pair<void*, void*> {
    const HeadCache& head = *heads[i];
    return {place_in(k, "keys", i, head.tokens(), head.dim(), head.key_dtype()),
            place_in(v, "values", i, head.tokens(), head.value_dim(), head.value_dtype())};
  });
}

Table<float> attend_all(const std::vector<HeadCache*>& heads, const Array& queries,
                        DecodePool* pool) {
  const auto q = borrow_vectors(queries, "queries");
  require_heads(heads);
  Matrix<float> out(heads.size() * heads[0]->group(), heads[0]->value_dim());
  {
    const GilReleased released;
    attend_heads(heads, q.view, pool_or_alone(pool), out.data());
  }
  return numpy_of(std::move(out));
}

Table<float> step_all(const std::vector<HeadCache*>& heads, const Array& queries, const Array& keys,
                      const Array& values, DecodePool* pool) {
  const auto q = borrow_floats(queries, "queries");
  const auto k = borrow_floats(keys, "keys");
  const auto v = borrow_floats(values, "values");
  require_heads(heads);
  Matrix<float> out(heads.size() * heads[0]->group(), heads[0]->value_dim());
  {
    const GilReleased released;
    step_heads(heads, q.view, k.view, v.view, pool_or_alone(pool), out.data());
  }
  return numpy_of(std::move(out));
}

std::pair<Table<float>, Vector<float>> step_all_beside_static(const std::vector<HeadCache*>& heads,
                                                              const Array& queries,
                                                              const Array& keys,
                                                              const Array& values,
                                                              DecodePool& pool) {
  const auto q = borrow_floats(queries, "queries");
  const auto k = borrow_floats(keys, "keys");
  const auto v = borrow_floats(values, "values");
  require_heads(heads);
  const std::size_t rows = heads.size() * heads[0]->group();
  Matrix<float> out(rows, heads[0]->value_dim());
  std::vector<float> lse(rows);
  {
    const GilReleased released;
    step_heads_beside_static(heads, q.view, k.view, v.view, pool, out.data(), lse.data());
  }
  return {numpy_of(std::move(out)), numpy_of(std::move(lse))};
}

}  // namespace

void bind_decode_heads(nb::module_& m) {
  nb::class_<DecodePool>(m, "DecodePool",
                         R"(Threads for step_heads, and the memory they work in.

threads: 0 for all that this process may use. They start at first use and wait between calls. Serves
any number of callers at once. A copy, or one from a pickle, is another pool of as many threads.)")
      .def(
          "__init__",
          [](DecodePool* self, const Whole& threads) {
            new (self) DecodePool(int_of(threads, "threads"));
          },
          nb::arg("threads") = 0)
      .def_prop_ro("threads", &DecodePool::threads)
      .def("__reduce__",
           [](nb::handle self) {
             const int threads = nb::cast<const DecodePool&>(self).threads();
             return nb::make_tuple(self.type(), nb::make_tuple(threads));
           })
      .def("__repr__",
           [](const DecodePool& self) { return fmt::format("DecodePool({})", self.threads()); });
  m.def("append_heads", &append_all, nb::arg("heads"), nb::arg("keys"), nb::arg("values"),
        nb::arg("pool") = nb::none(), nb::arg("queries") = nb::none(), kAppendHeadsDoc);
  m.def("announce_heads", &announce_all, nb::arg("heads"), nb::arg("tokens"),
        nb::arg("pages") = nb::none(), nb::arg("pool") = nb::none(),
        nb::arg("queries") = nb::none(), kAnnounceHeadsDoc);
  m.def("extend_heads", &extend_all, nb::arg("heads"), nb::arg("queries"), nb::arg("keys"),
        nb::arg("values"), nb::arg("pool") = nb::none(), kExtendHeadsDoc);
  m.def("truncate_heads", &truncate_all, nb::arg("heads"), nb::arg("tokens"),
        nb::arg("pool") = nb::none(), kTruncateHeadsDoc);
  m.def("copy_tokens", &copy_all, nb::arg("heads"), nb::arg("keys"), nb::arg("values"),
        nb::arg("pool") = nb::none(), kCopyTokensDoc);
  m.def("attend_heads", &attend_all, nb::arg("heads"), nb::arg("queries"),
        nb::arg("pool") = nb::none(), kAttendHeadsDoc);
  m.def("step_heads", &step_all, nb::arg("heads"), nb::arg("queries"), nb::arg("keys"),
        nb::arg("values"), nb::arg("pool") = nb::none(), kStepHeadsDoc);
  m.def("step_heads_beside_static", &step_all_beside_static, nb::arg("heads"), nb::arg("queries"),
        nb::arg("keys"), nb::arg("values"), nb::arg("pool"), kBesideStaticDoc);
}

}  // namespace keyseek::python
