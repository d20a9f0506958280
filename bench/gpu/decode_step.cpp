// A decode step of one layer on a device, in parts and as a whole, with a flat search of the other
// tokens on the CPU. One JSON object on a line for each measurement; scripts/gpu-check.sh runs it.
//
//     keyseek_gpu_bench [TOKENS...]
#include <cuda_runtime_api.h>
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <string>
#include <vector>

#include "base/random.hpp"
#include "cuda/buffers.hpp"
#include "keyseek/attention.hpp"
#include "keyseek/index.hpp"

namespace keyseek::cuda {
namespace {

using Clock = std::chrono::steady_clock;

constexpr int kWarmUp = 20, kRuns = 200, kSteps = 50;
// A layer of Llama-3-8B.
const SessionShape kShape{.heads = 8, .group = 4, .dim = 128, .scale = 0.0884F};

double microseconds(Clock::duration d) {
  return std::chrono::duration<double, std::micro>(d).count();
}

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

Matrix<float> random_rows(std::size_t rows, std::uint64_t seed) {
  Random random(seed);
  Matrix<float> m(rows, kShape.dim);
  for (std::size_t i = 0; i < rows * kShape.dim; ++i)
    m.data()[i] = static_cast<float>(random.uniform() - 0.5);
  return m;
}

AnyMatrix halves(const Matrix<float>& rows) {
  AlignedVector<std::byte> bytes(rows.rows() * rows.cols() * sizeof(Half));
  auto* to = reinterpret_cast<Half*>(bytes.data());
  for (std::size_t i = 0; i < rows.rows() * rows.cols(); ++i) to[i] = to_half(rows.data()[i]);
  return {SharedArray<std::byte>(std::move(bytes)), Dtype::f16, rows.rows(), rows.cols()};
}

void report(const char* part, std::size_t tokens, double us) {
  fmt::print(R"({{"part": "{}", "tokens": {}, "heads": {}, "group": {}, "dim": {}, "us": {:.2f}}})"
             "\n",
             part, tokens, kShape.heads, kShape.group, kShape.dim, us);
}

/// Median time of `work` on the stream, between two timing events.
template <class Work>
double time_on_stream(cudaStream_t stream, Work work) {
  cudaEvent_t begin = nullptr, end = nullptr;
  cudaEventCreate(&begin);
  cudaEventCreate(&end);
  std::vector<double> times;
  for (int i = 0; i < kWarmUp + kRuns; ++i) {
    cudaEventRecord(begin, stream);
    work();
    cudaEventRecord(end, stream);
    cudaEventSynchronize(end);
    float ms = 0;
    cudaEventElapsedTime(&ms, begin, end);
    if (i >= kWarmUp) times.push_back(1e3 * double{ms});
  }
  cudaEventDestroy(begin);
  cudaEventDestroy(end);
  return median(times);
}

/// The calls of a step, one by one, on full windows.
void time_parts(const std::shared_ptr<Runtime>& runtime, Stream stream) {
  const SessionBuffers b(runtime, kShape, stream);
  const std::vector<Ring> full(kShape.heads, {static_cast<std::uint32_t>(kShape.capacity()), 0});
  runtime->copy(b.at(b.layout.rings), full.data(), full.size() * sizeof(Ring), stream);
  const auto time = [&](const char* part, auto work) {
    report(part, kShape.capacity(), time_on_stream(static_cast<cudaStream_t>(stream), work));
  };
  time("append", [&] { runtime->append(b.append_args(kShape), stream); });
  time("attention", [&] { runtime->attend(kShape.dtype, b.attend_args(kShape), stream); });
  time("merge", [&] { runtime->merge(kShape.dtype, b.merge_args(kShape), stream); });
  time("copy down", [&] {
    runtime->copy(b.down[0].get(), b.at(b.layout.queries), b.layout.down_bytes(), stream);
  });
  const Parts parts = b.parts(kShape);
  time("copy up", [&] {
    runtime->copy(parts.out(b.layout.splits, 0), b.up[0].get(), parts.part_size() * sizeof(float),
                  stream);
  });
}

/// The CPU's tokens: a flat index for each head.
struct FlatHeads {
  explicit FlatHeads(std::size_t tokens) {
    for (std::size_t head = 0; head < kShape.heads; ++head) {
      const AnyMatrix keys = halves(random_rows(tokens, 2 * head));
      values.push_back(halves(random_rows(tokens, 2 * head + 1)));
      indexes.push_back(FlatIndex::build(keys.view()));
    }
  }

  void operator()(const CpuStep& step, Partial& out) {
    const Matrix<float> queries = to_f32(step.queries);
    for (std::size_t head = 0; head < kShape.heads; ++head) {
      const auto begin = Clock::now();
      const std::size_t first = head * kShape.group;
      indexes[head].search(queries.view().slice(first, kShape.group), {.k = 100}, search, hits);
      const auto found = Clock::now();
      attend_hits(hits, {values[head].view()}, kShape.scale, scratch, part);
      std::copy_n(part.out.data(), kShape.group * kShape.dim, out.out.row(first));
      std::copy(part.lse.begin(), part.lse.end(), out.lse.data() + first);
      searching += microseconds(found - begin);
      attending += microseconds(Clock::now() - found);
    }
  }

  std::vector<FlatIndex> indexes;
  std::vector<AnyMatrix> values;
  SearchScratch search;
  AttendScratch scratch;
  Hits hits;
  Partial part;
  double searching = 0, attending = 0;
};

/// Median time of a step, as the host sees it.
double time_steps(DecodeSession& session, cudaStream_t stream, const CpuPart& cpu_part) {
  std::vector<double> times;
  for (int i = 0; i < kWarmUp + kSteps; ++i) {
    const auto begin = Clock::now();
    session.step(cpu_part);
    cudaStreamSynchronize(stream);
    if (i >= kWarmUp) times.push_back(microseconds(Clock::now() - begin));
  }
  return median(times);
}

void time_whole_steps(const std::shared_ptr<Runtime>& runtime, Stream stream,
                      const std::vector<std::size_t>& contexts) {
  const AnyMatrix window = halves(random_rows(kShape.heads * kShape.capacity(), 7));
  const auto nothing = [](const CpuStep&, Partial&) {};
  const auto on = static_cast<cudaStream_t>(stream);
  DecodeSession session(runtime, kShape, stream);
  session.load(window.view().data, window.view().data, kShape.capacity());
  report("step without CPU part", kShape.capacity(), time_steps(session, on, nothing));
  session.capture();
  report("captured step without CPU part", kShape.capacity(), time_steps(session, on, nothing));
  for (const std::size_t tokens : contexts) {
    FlatHeads cpu(tokens);
    const double step = time_steps(session, on, std::ref(cpu));
    report("step with flat search", tokens, step);
    report("search", tokens, cpu.searching / (kWarmUp + kSteps));
    report("attention on the CPU", tokens, cpu.attending / (kWarmUp + kSteps));
  }
}

int run(const std::vector<std::size_t>& contexts) {
  try {
    const auto runtime = open_device();
    Stream stream = runtime->make_stream();
    time_parts(runtime, stream);
    time_whole_steps(runtime, stream, contexts);
    runtime->free_stream(stream);
  } catch (const Error& error) {
    fmt::print(stderr, "{}\n", error.what());
    return 1;
  }
  return 0;
}

}  // namespace
}  // namespace keyseek::cuda

int main(int count, char** arguments) {
  std::vector<std::size_t> contexts;
  for (int i = 1; i < count; ++i) {
    const std::size_t tokens = std::strtoull(arguments[i], nullptr, 10);
    if (tokens == 0) {
      fmt::print(stderr, "TOKENS is '{}', must be a number above 0\n", arguments[i]);
      return 2;
    }
    contexts.push_back(tokens);
  }
  return keyseek::cuda::run(contexts);
}
