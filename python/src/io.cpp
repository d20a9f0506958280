/// Search problems and captures, read from files.
#include "keyseek/io.hpp"

#include <dlfcn.h>
#include <fmt/format.h>
#include <nanobind/stl/filesystem.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <filesystem>
#include <string>
#include <system_error>

#include "arrays.hpp"
#include "bindings.hpp"
#include "errors.hpp"
#include "gil.hpp"
#include "work.hpp"

namespace keyseek::python {
namespace {

using io::Benchmark;

/// HDF5 files are taken apart by the helper that is installed beside this module.
io::Hdf5Access hdf5_access(bool trusted) {
  if (trusted) return {};
  Dl_info module{};
  std::error_code error;
  if (::dladdr(reinterpret_cast<const void*>(&bind_io), &module) == 0) return {};
  const auto here = std::filesystem::canonical(module.dli_fname, error).parent_path();
  const auto helper = here / "libexec" / "keyseek-hdf5";
  if (!std::filesystem::exists(helper, error)) {
    throw Error(ErrorCode::io,
                fmt::format("{} is missing, which reads HDF5 files in a process of its own: "
                            "reinstall keyseek, or pass trusted=True for files that you trust",
                            helper.string()));
  }
  return {.helper = helper};
}

/// A property that shows the matrix `member` in place.
template <auto member>
auto float_property(nb::handle_t<Benchmark> self) {
  return numpy_view((nb::cast<const Benchmark&>(self).*member).view(), self);
}

Matrix<float> copy_queries(const std::optional<Array>& array, const char* name) {
  return array ? to_f32(borrow_vectors(*array, name).view) : Matrix<float>();
}

/// A problem of the caller's own arrays, which are copied.
Benchmark make_benchmark(const Array& keys, const Array& queries, const std::optional<Array>& learn,
                         const std::optional<Array>& tuning, const std::optional<Array>& truth_ids,
                         const Whole& group, const Whole& tuning_steps) {
  Benchmark b;
  b.keys = AnyMatrix::copy_of(borrow_vectors(keys, "keys").view);
  b.queries = copy_queries(queries, "queries");
  if (b.queries.empty()) refuse("queries is empty");
  b.learn = copy_queries(learn, "learn");
  b.tuning = copy_queries(tuning, "tuning");
  if (truth_ids) b.truth_ids = copy_ids(*truth_ids, "truth_ids");
  b.group = count_of(group, "group");
  b.tuning_steps = count_of(tuning_steps, "tuning_steps");
  io::require_matching(b);
  return b;
}

void bind_benchmark(nb::module_& m) {
  nb::class_<Benchmark>(m, "Benchmark", R"(A search problem: keys, queries and the truth.

Arrays are read-only and look at the problem's own memory; ids are new arrays on each access.)")
      .def(
          "__init__",
          [](Benchmark* self, const Array& keys, const Array& queries,
             const std::optional<Array>& learn, const std::optional<Array>& tuning,
             const std::optional<Array>& truth_ids, const Whole& group, const Whole& tuning_steps) {
            new (self) Benchmark(
                make_benchmark(keys, queries, learn, tuning, truth_ids, group, tuning_steps));
          },
          nb::arg("keys"), nb::arg("queries"), nb::kw_only(), nb::arg("learn") = nb::none(),
          nb::arg("tuning") = nb::none(), nb::arg("truth_ids") = nb::none(), nb::arg("group") = 1,
          nb::arg("tuning_steps") = 0,
          R"(Of arrays, which are copied: keys [n, d], queries [m, d], training queries `learn` and
held-out ones `tuning` [l, d], truth_ids [m, k].

Vectors are float32, float16, bfloat16 or int8. Parts that do not fit each other, NaN and infinity
are refused by name.)")
      .def_prop_ro(
          "keys",
          [](nb::handle_t<Benchmark> self) {
            return numpy_view(nb::cast<const Benchmark&>(self).keys.view(), self);
          },
          "[n, d], as stored.")
      .def_prop_ro("queries", &float_property<&Benchmark::queries>, "[steps * group, d] float32.")
      .def_prop_ro("learn", &float_property<&Benchmark::learn>,
                   "Training queries [m, d] float32; no rows when there are none.")
      .def_prop_ro("tuning", &float_property<&Benchmark::tuning>,
                   "Held-out training queries; no rows when there are none.")
      .def_prop_ro("truth_scores", &float_property<&Benchmark::truth_scores>,
                   "[queries, k] float32 inner products.")
      .def_prop_ro(
          "truth_ids", [](const Benchmark& b) { return numpy_ids(b.truth_ids); },
          nb::rv_policy::automatic, "[queries, k] int64, best first.")
      .def_prop_ro(
          "learn_ids", [](const Benchmark& b) { return numpy_ids(b.learn_ids); },
          nb::rv_policy::automatic,
          "[m, k] int64 lists of the training queries; no rows when there are none.")
      .def_prop_ro(
          "training", [](const Benchmark& b) { return io::training_set(b); }, nb::rv_policy::move,
          "TrainingQueries, a copy: learn and tuning. Where there is no tuning, every fifth\n"
          "step of learn is held out, 400 of them at most.")
      .def_ro("group", &Benchmark::group, "Consecutive queries that form a step.")
      .def_ro("tuning_steps", &Benchmark::tuning_steps)
      .def("__repr__", [](const Benchmark& b) {
        return fmt::format("Benchmark(keys: {} x {}, queries: {}, learn: {}, group={})",
                           b.keys.rows(), b.keys.cols(), b.queries.rows(), b.learn.rows(), b.group);
      });
}

void bind_read_data(nb::module_& m) {
  const io::DecodeViewParams defaults;
  nb::dict facts;  // for keyseek.bench, whose rows say how a capture was read
  facts["share"] = defaults.share;
  facts["shift"] = defaults.shift;
  facts["sink"] = defaults.sink;
  facts["window"] = defaults.window;
  facts["horizon"] = defaults.horizon;
  facts["seed"] = defaults.seed;
  m.attr("decode_view_defaults") = facts;
  m.def(
      "read_data",
      [](const std::filesystem::path& name, const Whole& k, const Whole& sink, const Whole& window,
         const Whole& horizon, double share, bool shift, const Whole& seed, const Whole& threads,
         const ProgressCallback& progress, bool trusted) {
        const io::DecodeViewParams view{.sink = count_of(sink, "sink"),
                                        .window = count_of(window, "window"),
                                        .horizon = count_of(horizon, "horizon"),
                                        .share = share,
                                        .shift = shift,
                                        .k = count_of(k, "k"),
                                        .seed = count_of(seed, "seed")};
        const io::Hdf5Access access = hdf5_access(trusted);
        return run_long(threads, progress, [&](const Execution& run) {
          return io::read_data(name.string(), view, run, access);
        });
      },
      nb::arg("name"), nb::kw_only(), nb::arg("k") = defaults.k, nb::arg("sink") = defaults.sink,
      nb::arg("window") = defaults.window, nb::arg("horizon") = defaults.horizon,
      nb::arg("share") = defaults.share, nb::arg("shift") = defaults.shift,
      nb::arg("seed") = defaults.seed, nb::arg("threads") = 0, nb::arg("progress") = nb::none(),
      nb::arg("trusted") = false,
      R"(Reads a search problem from a file.

name: a benchmark in HDF5 (VIBE or ann-benchmarks), or one head of a capture as
"file.attn.h5:L11/K0", which becomes a decode view: keys = tokens [sink, prefill - window),
training queries = the newest `share` of the prefill positions, moved to where decoding will ask
within `horizon` tokens (shift=False: not moved), test queries = decode steps, with the exact
truth for k. These options apply to captures only.

trusted: HDF5 is taken apart by a process of its own, with limits of time and memory, since crafted
files crash or hang libhdf5; True: by this one.)");
}

void bind_vector_files(nb::module_& m) {
  m.def(
      "read_vectors",
      [](const std::filesystem::path& path, bool trusted) {
        AnyMatrix vectors;
        {
          const GilReleased released;
          vectors = io::read_vectors(path, hdf5_access(trusted));
        }
        const AnyMatrixView view = vectors.view();
        return numpy_view(view, kept(std::move(vectors)));
      },
      nb::arg("path"), nb::kw_only(), nb::arg("trusted") = false, "See keyseek.datasets.read.");
  m.def(
      "read_ids",
      [](const std::filesystem::path& path, bool trusted) {
        return numpy_ids(io::read_ids(path, hdf5_access(trusted)));
      },
      nb::arg("path"), nb::kw_only(), nb::arg("trusted") = false, "See keyseek.datasets.read.");
  m.def(
      "write_vectors",
      [](const std::filesystem::path& path, const Array& array) {
        const auto rows = borrow_vectors(array, "array");
        const GilReleased released;
        io::write_vectors(path, rows.view);
      },
      nb::arg("path"), nb::arg("array"), "See keyseek.datasets.write.");
  m.def(
      "write_ids",
      [](const std::filesystem::path& path, const Array& array) {
        io::write_ids(path, copy_ids(array, "array"));
      },
      nb::arg("path"), nb::arg("array"), "See keyseek.datasets.write.");
}

void bind_capture_info(nb::module_& m) {
  nb::class_<io::CaptureEntry>(m, "CaptureEntry", "One KV head of a capture.")
      .def_ro("layer", &io::CaptureEntry::layer)
      .def_ro("kv_head", &io::CaptureEntry::kv_head)
      .def_ro("tokens", &io::CaptureEntry::tokens)
      .def_ro("dim", &io::CaptureEntry::dim)
      .def_ro("group", &io::CaptureEntry::group, "Query heads that share the KV head.")
      .def("__repr__", [](const io::CaptureEntry& e) {
        return fmt::format("CaptureEntry(L{}/K{}: {} x {}, group={})", e.layer, e.kv_head, e.tokens,
                           e.dim, e.group);
      });
  nb::class_<io::CaptureInfo>(m, "CaptureInfo", "What a capture file holds.")
      .def_ro("model", &io::CaptureInfo::model)
      .def_ro("text", &io::CaptureInfo::text)
      .def_ro("capture", &io::CaptureInfo::capture, "How it was made.")
      .def_ro("prefill", &io::CaptureInfo::prefill, "Tokens before decoding starts.")
      .def_ro("heads", &io::CaptureInfo::heads);
}

void bind_captured_head(nb::module_& m) {
  nb::class_<io::CapturedHead>(m, "CapturedHead", "Keys, values and queries of one KV head.")
      .def_prop_ro(
          "keys",
          [](nb::handle_t<io::CapturedHead> self) {
            return numpy_view(nb::cast<const io::CapturedHead&>(self).keys.view(), self);
          },
          "[n, d], as stored.")
      .def_prop_ro(
          "values",
          [](nb::handle_t<io::CapturedHead> self) {
            return numpy_view(nb::cast<const io::CapturedHead&>(self).values.view(), self);
          },
          "[n, dv], as stored.")
      .def_prop_ro("group", [](const io::CapturedHead& h) { return h.queries.size(); })
      .def_ro("prefill", &io::CapturedHead::prefill, "Tokens before decoding starts.")
      .def_ro("scale", &io::CapturedHead::scale, "Of the softmax.")
      .def_prop_ro(
          "rotary",
          [](const io::CapturedHead& h) {
            nb::dict rotary;
            rotary["theta"] = h.rope.theta;
            rotary["rotary_dim"] = h.rope.rotary_dim;
            rotary["layout"] =
                h.rope.layout == RopeLayout::interleaved ? "interleaved" : "half-split";
            return rotary;
          },
          "Of the rotary embedding: keyword arguments for HeadCache.prefill.")
      .def(
          "queries",
          [](const io::CapturedHead& h, const Whole& first, const Whole& last) {
            return numpy_of(io::step_queries(h, count_of(first, "first"), count_of(last, "last")));
          },
          nb::arg("first"), nb::arg("last"),
          "Of positions [first, last): [(last - first) * group, d] float32, the heads of a\n"
          "position in consecutive rows.");
}

void bind_capture(nb::module_& m) {
  bind_capture_info(m);
  bind_captured_head(m);
  m.def(
      "read_capture",
      [](const std::filesystem::path& path, const Whole& layer, const Whole& kv_head,
         bool trusted) {
        const std::size_t of_layer = count_of(layer, "layer"), head = count_of(kv_head, "kv_head");
        const GilReleased released;
        return io::read_capture(path, of_layer, head, hdf5_access(trusted));
      },
      nb::arg("path"), nb::arg("layer"), nb::arg("kv_head") = 0, nb::kw_only(),
      nb::arg("trusted") = false,
      "One head of a capture file (*.attn.h5). trusted: as of read_data.");
  m.def(
      "capture_info",
      [](const std::filesystem::path& path, bool trusted) {
        return io::capture_info(path, hdf5_access(trusted));
      },
      nb::arg("path"), nb::kw_only(), nb::arg("trusted") = false, nb::call_guard<GilReleased>(),
      "What a capture file (*.attn.h5) holds. trusted: as of read_data.");
}

}  // namespace

void bind_io(nb::module_& m) {
  bind_benchmark(m);
  bind_read_data(m);
  bind_vector_files(m);
  bind_capture(m);
}

}  // namespace keyseek::python
