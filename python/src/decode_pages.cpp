/// HeadCache over tokens in pages of somebody else's, and queries of any type.
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <optional>
#include <string>
#include <vector>

#include "arrays.hpp"
#include "bindings.hpp"
#include "decode_params.hpp"
#include "gil.hpp"
#include "work.hpp"

namespace keyseek::python {

std::vector<Id> ids_of(const std::vector<Whole>& pages) {
  std::vector<Id> ids;
  for (const Whole& page : pages) ids.push_back(small_count_of(page, "pages"));
  return ids;
}

namespace {

constexpr const char* kBorrowDoc =
    R"(A head's cache over a prompt whose keys and values stay where they are.

keys: [pages, page_rows, d], values: [pages, page_rows, dv] float32, float16 or bfloat16, with any
strides; [n, d] is one page. pages: those that hold the tokens, in order: token t is in row
t % page_rows of pages[t // page_rows]. tokens: how many there are. Arrays are kept alive; rows that
the cache was told of must stay as they are. All else, and the results, are those of `prefill`.)";

constexpr const char* kAnnounceDoc =
    R"(Takes `tokens` more, which were written into the pages of a cache that borrows.

pages: new ones, behind those that it has. queries: [tokens * group, d] float32, as in append.)";

constexpr const char* kStepAnnouncedDoc = R"(announce of one token, then attend: both, or neither.

queries: [group, d] float32, float16 or bfloat16. pages: as in announce. Returns a new array
[group, dv] float32.)";

constexpr const char* kExtendAnnouncedDoc = R"(announce of m tokens, and attends each exactly.

queries: [m * group, d] float32, float16 or bfloat16. pages: as in announce. Returns a new array
[m * group, dv] float32. All or nothing.)";

constexpr const char* kAttendDoc = R"(Attention of the newest token's queries over all tokens.

queries: [group, d] float32, float16 or bfloat16. Returns a new array [group, dv] float32.)";

DecodeScratch& scratch_of_thread() {
  thread_local DecodeScratch scratch;
  return scratch;
}

HeadCache borrow(const Array& keys, const Array& values, const std::vector<Whole>& pages,
                 const Whole& tokens, const Array& queries, const Whole& group,
                 const Options* params, const Whole& threads, const ProgressCallback& progress,
                 const nb::kwargs& given) {
  const RowPages key_pages = borrow_pages(keys, "keys"),
                 value_pages = borrow_pages(values, "values");
  const auto query_rows = borrow_floats(queries, "queries");
  Options options = params == nullptr ? Options() : *params;
  options.take(given);
  const std::vector<Id> table = ids_of(pages);
  const std::size_t count = count_of(tokens, "tokens"), heads = count_of(group, "group");
  return run_long(threads, progress, [&](const Execution& run) {
    return HeadCache::borrow(key_pages, value_pages, table, count, query_rows.view, heads,
                             options.params, run);
  });
}

std::string borrow_signature() {
  return "def borrow(keys: numpy.typing.NDArray, values: numpy.typing.NDArray, "
         "pages: collections.abc.Sequence[int], tokens: int, queries: numpy.typing.NDArray, "
         "group: int = 1, *, params: DecodeParams | None = None, threads: int = 0, "
         "progress: collections.abc.Callable[[str, int, int], object] | None = None, " +
         option_signature() + ") -> HeadCache";
}

void announce(HeadCache& self, const Whole& tokens, const std::vector<Whole>& pages,
              const std::optional<Array>& queries) {
  const std::size_t count = count_of(tokens, "tokens");
  const std::vector<Id> more = ids_of(pages);
  Borrowed<MatrixView<float>> q;
  if (queries) q = borrow_floats(*queries, "queries");
  const GilReleased released;
  self.announce(count, more, q.view);
}

Table<float> step_announced(HeadCache& self, const Array& queries,
                            const std::vector<Whole>& pages) {
  const auto q = borrow_vectors(queries, "queries");
  const std::vector<Id> more = ids_of(pages);
  Matrix<float> out(self.group(), self.value_dim());
  {
    const GilReleased released;
    self.step_announced(q.view, more, scratch_of_thread(), out.data());
  }
  return numpy_of(std::move(out));
}

Table<float> extend_announced(HeadCache& self, const Array& queries,
                              const std::vector<Whole>& pages) {
  const auto q = borrow_vectors(queries, "queries");
  const std::vector<Id> more = ids_of(pages);
  Matrix<float> out(q.view.rows, self.value_dim());
  {
    const GilReleased released;
    self.extend_announced(q.view, more, scratch_of_thread(), out.data());
  }
  return numpy_of(std::move(out));
}

Table<float> attend_over_all(HeadCache& self, const Array& queries) {
  const auto q = borrow_vectors(queries, "queries");
  Matrix<float> out(self.group(), self.value_dim());
  {
    const GilReleased released;
    self.attend(q.view, scratch_of_thread(), out.data());
  }
  return numpy_of(std::move(out));
}

}  // namespace

void bind_pages(nb::class_<HeadCache>& type) {
  type.def_static("borrow", &borrow, nb::arg("keys"), nb::arg("values"), nb::arg("pages"),
                  nb::arg("tokens"), nb::arg("queries"), nb::arg("group") = 1, nb::kw_only(),
                  nb::arg("params") = nb::none(), nb::arg("threads") = 0,
                  nb::arg("progress") = nb::none(), nb::arg("options"),
                  nb::sig(borrow_signature().c_str()), kBorrowDoc)
      .def("announce", &announce, nb::arg("tokens"), nb::arg("pages") = nb::tuple(),
           nb::arg("queries") = nb::none(), kAnnounceDoc)
      .def("step_announced", &step_announced, nb::arg("queries"), nb::arg("pages") = nb::tuple(),
           kStepAnnouncedDoc)
      .def("extend_announced", &extend_announced, nb::arg("queries"),
           nb::arg("pages") = nb::tuple(), kExtendAnnouncedDoc)
      .def("attend", &attend_over_all, nb::arg("queries"), kAttendDoc);
}

}  // namespace keyseek::python
