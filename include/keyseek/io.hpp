/// Files that hold vectors. Sizes are checked against the real file before anything is
/// allocated; files that hold distances are converted here, so that inside the library
/// there are only inner products. Formats: docs/data-formats.md.
///
/// Readers return values that own what they hold. Thread-safe; calls that read HDF5 without a
/// helper, or write it, wait for each other, since that library keeps its state in globals.
///
///     auto keys = keyseek::io::read_vectors("base.fbin");
///     auto bench = keyseek::io::read_benchmark("llama-128-ip.hdf5");
///     auto head = keyseek::io::read_capture("gemma.attn.h5", 11, 0);
///     auto view = keyseek::io::decode_view(head, {.horizon = 1024});
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "keyseek/knn.hpp"
#include "keyseek/matrix.hpp"
#include "keyseek/rope.hpp"

namespace keyseek::io {

/// Who takes HDF5 files apart. libhdf5 crashes, hangs or fills the memory on files that were
/// damaged on purpose. By default it runs in this process: read only files that you trust. With a
/// helper it runs in a process of its own with limits, and such a file is an Error(corrupt);
/// elements that are stored as they are used are read here all the same, as fast as without. (The
/// command line tool and the Python package use a helper unless told otherwise.)
struct Hdf5Access {
  /// A program that calls `serve_hdf5`: keyseek-hdf5, which is installed with the library, the tool
  /// keyseek, or your own ("/proc/self/exe"). Empty: none.
  std::filesystem::path helper = {};
  double seconds = 60;       ///< for each answer, and a second more for every 10 MB of elements
  std::uint64_t memory = 0;  ///< bytes of its address space; 0: 4 GiB and 4 times the file's size
};

/// By extension: fbin (f32), f16bin (f16), i8bin, u8bin (both u32 n, u32 d, then rows; big-ann
/// format), fvecs, bvecs (a u32 d before each row), npy (f2, f4, f8 -> f32, i1, u1; C order, 2-d);
/// u8 values are returned as f32. Or a dataset of an HDF5 file, "x.hdf5:train" (without a name: the
/// only one it has).
[[nodiscard]] AnyMatrix read_vectors(const std::filesystem::path& path,
                                     const Hdf5Access& access = {});
/// By extension: fbin, fvecs (any type, as f32), f16bin (floats, rounded), i8bin (i8), u8bin, bvecs
/// (whole numbers from 0 to 255), npy and "x.hdf5:name" (bf16 as f32, others as they are). Written
/// to a temporary file, then renamed; an HDF5 file must not be there yet, since it may hold more.
void write_vectors(const std::filesystem::path& path, AnyMatrixView vectors);

/// ibin (u32 n, u32 k, rows of u32), ivecs, npy (i4, u4, i8, u8) or "x.hdf5:neighbors"; -1 becomes
/// kNoId.
[[nodiscard]] Matrix<Id> read_ids(const std::filesystem::path& path, const Hdf5Access& access = {});
void write_ids(const std::filesystem::path& path, MatrixView<Id> ids);

/// The word that a helper is started with.
inline constexpr std::string_view kHdf5HelperWord = "--serve-hdf5";
/// What a program does, first of all in `main`, whose argv[1] is kHdf5HelperWord; returns its exit
/// code.
int serve_hdf5(int argc, char** argv);

/// A search problem: VIBE or ann-benchmarks HDF5.
struct Benchmark {
  AnyMatrix keys;                ///< "train"
  Matrix<float> queries;         ///< "test"
  Matrix<float> learn;           ///< "learn": training queries; empty when absent
  Matrix<Id> learn_ids;          ///< "learn_neighbors"; empty when absent
  Matrix<Id> truth_ids;          ///< "neighbors"; empty when absent
  Matrix<float> truth_scores;    ///< "distances" turned into inner products; empty when absent
  Matrix<float> tuning;          ///< "tuning": held-out training steps; empty when absent
  std::size_t group = 1;         ///< attribute "group": consecutive queries that form a step
  std::size_t tuning_steps = 0;  ///< attribute "tuning_steps": steps of a tuning run
};

/// Accepts distance "ip" or "dot" (stored distance -dot or 1 - dot; found out from the data), and
/// "angular", "cosine", "normalized" only for unit vectors. Others: Error(unsupported).
[[nodiscard]] Benchmark read_benchmark(const std::filesystem::path& path,
                                       const Hdf5Access& access = {});
/// Writes VIBE's layout (distance "ip", distances = -inner product). Temporary file, then renamed.
void write_benchmark(const std::filesystem::path& path, const Benchmark& benchmark);

/// What the parts of a benchmark are called in errors: their files, where each has its own.
struct PartNames {
  std::string keys = "keys", queries = "queries", train = "learn", tuning = "tuning",
              truth = "truth_ids";
};
/// Throws Error(invalid_argument, not_finite) that names a part and its value unless dimensions,
/// rows and ids of the parts fit each other and all numbers are finite. Only keys are needed.
void require_matching(const Benchmark& benchmark, const PartNames& names = {});

/// The training and tuning queries of a benchmark, with the lists that it has when they are asked
/// for. Where it has no tuning queries, every fifth step of "learn" (400 steps at most) is held out
/// for tuning, each a sequence of its own. Throws Error(invalid_argument) without "learn".
[[nodiscard]] TrainingQueries training_set(const Benchmark& benchmark, bool with_lists = false);
/// Likewise of plain training queries [steps * group, d].
[[nodiscard]] TrainingQueries training_set(MatrixView<float> queries, std::size_t group = 1);

/// One KV head of a capture: everything f32 or as stored.
struct CapturedHead {
  AnyMatrix keys;                      ///< [n, d] as stored
  AnyMatrix values;                    ///< [n, dv] as stored
  std::vector<Matrix<float>> queries;  ///< G matrices [n, d]
  std::size_t prefill = 0;             ///< tokens before decoding starts
  RopeParams rope;
  double scale = 0;  ///< softmax scale
  std::string model, text;
};
/// Queries of positions [first, last): [(last - first) * G, d], the heads of a position in
/// consecutive rows.
[[nodiscard]] Matrix<float> step_queries(const CapturedHead& head, std::size_t first,
                                         std::size_t last);

struct CaptureEntry {
  std::size_t layer = 0, kv_head = 0, tokens = 0, dim = 0, group = 0;
};
struct CaptureInfo {
  std::string model, text, capture;
  std::size_t prefill = 0;
  std::vector<CaptureEntry> heads;
};
[[nodiscard]] CaptureInfo capture_info(const std::filesystem::path& path,
                                       const Hdf5Access& access = {});
[[nodiscard]] CapturedHead read_capture(const std::filesystem::path& path, std::size_t layer,
                                        std::size_t kv_head, const Hdf5Access& access = {});

/// How a capture becomes a search problem.
struct DecodeViewParams {
  std::size_t sink = 128;      ///< first tokens, not indexed
  std::size_t window = 512;    ///< last tokens before decoding, not indexed
  std::size_t horizon = 1024;  ///< T
  double share = 0.25;         ///< of the prefill positions used for training
  bool shift = true;           ///< RoPE shift of the training queries
  std::size_t k = 100;         ///< of the exact truth
  std::uint64_t seed = 1;
};
/// Keys = tokens [sink, prefill - window); training = prefill queries at [sink, prefill),
/// RoPE-shifted to [prefill, prefill + T); test = queries at [prefill, n), G per step.
/// `truth_*` is exact (f32). `learn_ids` stays empty.
[[nodiscard]] Benchmark decode_view(const CapturedHead& head, const DecodeViewParams& params,
                                    const Execution& run = {});

/// "file.h5" -> {path}; "file.attn.h5:L11/K0" -> {path, 11, 0}; "file.h5:train" -> {path, dataset}.
struct DataName {
  std::filesystem::path path;
  std::optional<std::size_t> layer = {}, kv_head = {};
  std::optional<std::string> dataset = {};  ///< of an HDF5 file that is no capture
};
[[nodiscard]] DataName parse_data_name(const std::string& name);
/// Reads either kind; `view` applies to captures only.
[[nodiscard]] Benchmark read_data(const std::string& name, const DecodeViewParams& view,
                                  const Execution& run = {}, const Hdf5Access& access = {});

}  // namespace keyseek::io
