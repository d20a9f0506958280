// A decode step of one layer on a device, in parts and as a whole, with HeadCaches on the CPU. One
// JSON object on a line for each measurement, plans on stderr; scripts/gpu-check.sh runs it.
//
//     keyseek_gpu_bench [--capture FILE.attn.h5] TOKENS...
#include <cuda_runtime_api.h>
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <string>
#include <vector>

#include "cuda/buffers.hpp"
#include "heads.hpp"

namespace keyseek::cuda {
namespace {

using Clock = std::chrono::steady_clock;

constexpr int kWarmUp = 20, kRuns = 200, kSteps = 50;

double microseconds(Clock::duration d) {
  return std::chrono::duration<double, std::micro>(d).count();
}

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

void report(const SessionShape& shape, const char* part, std::size_t tokens, double us) {
  fmt::print(R"({{"part": "{}", "tokens": {}, "heads": {}, "group": {}, "dim": {}, "us": {:.2f}}})"
             "\n",
             part, tokens, shape.heads, shape.group, shape.dim, us);
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
void time_parts(const std::shared_ptr<Runtime>& runtime, const SessionShape& shape, Stream stream) {
  const SessionBuffers b(runtime, shape, stream);
  const std::vector<Ring> full(shape.heads, {static_cast<std::uint32_t>(shape.capacity()), 0});
  runtime->copy(b.at(b.layout.rings), full.data(), full.size() * sizeof(Ring), stream);
  const auto time = [&](const char* part, auto work) {
    report(shape, part, shape.capacity(), time_on_stream(static_cast<cudaStream_t>(stream), work));
  };
  time("append", [&] { runtime->append(b.append_args(shape), stream); });
  time("attention", [&] { runtime->attend(shape.dtype, b.attend_args(shape), stream); });
  time("merge", [&] { runtime->merge(shape.dtype, b.merge_args(shape), stream); });
  time("copy down", [&] {
    runtime->copy(b.down[0].get(), b.at(b.layout.queries), b.layout.down_bytes(), stream);
  });
  const Parts parts = b.parts(shape);
  time("copy up", [&] {
    runtime->copy(parts.out(b.layout.splits, 0), b.up[0].get(), parts.part_size() * sizeof(float),
                  stream);
  });
}

/// Times of steps as the host sees them; each begins and ends with an idle stream.
template <class Step>
double time_steps(cudaStream_t stream, Step step) {
  std::vector<double> times;
  for (int i = 0; i < kWarmUp + kSteps; ++i) {
    cudaStreamSynchronize(stream);
    const auto begin = Clock::now();
    step();
    cudaStreamSynchronize(stream);
    if (i >= kWarmUp) times.push_back(microseconds(Clock::now() - begin));
  }
  return median(times);
}

void time_steps_without_cpu(const std::shared_ptr<Runtime>& runtime, const SessionShape& shape,
                            Stream stream) {
  DecodeSession session(runtime, shape, stream);
  const std::size_t row = shape.heads * shape.capacity() * shape.dim;
  const std::vector<Half> zeros(row);
  session.load(zeros.data(), zeros.data(), shape.capacity());
  const auto on = static_cast<cudaStream_t>(stream);
  const auto step = [&] { session.step([](const CpuStep&, Partial&) {}); };
  report(shape, "step without CPU part", shape.capacity(), time_steps(on, step));
  session.capture();
  report(shape, "captured step without CPU part", shape.capacity(), time_steps(on, step));
}

/// Decodes the last tokens of the heads, whose caches plan for those before.
class Decoding {
 public:
  Decoding(const std::shared_ptr<Runtime>& runtime, const std::vector<bench::DecodedHead>& heads,
           Stream stream)
      : runtime_(runtime), heads_(heads), stream_(stream), pool_(0) {
    for (const bench::DecodedHead& head : heads)
      caches_.push_back(head.planned(head.tokens() - kWarmUp - kSteps));
    for (HeadCache& cache : caches_) {
      pointers_.push_back(&cache);
      fmt::print(stderr, "plan: {}, {} keys of {}\n", to_string(cache.plan().retriever),
                 cache.plan().stop.k, cache.indexed());
    }
  }

  [[nodiscard]] SessionShape shape() const { return session_shape(pointers_); }

  /// The heads' own times are summed and divided by the threads that share them.
  void time() {
    DecodeSession session(runtime_, shape(), stream_);
    session.load(pointers_);
    double searching = 0, attending = 0;
    std::vector<double> times;
    const auto on = static_cast<cudaStream_t>(stream_);
    for (int i = 0; i < kWarmUp + kSteps; ++i) {
      write_token(session.inputs());
      cudaStreamSynchronize(on);
      const auto begin = Clock::now();
      session.step(pointers_, pool_);
      cudaStreamSynchronize(on);
      if (i < kWarmUp) continue;
      times.push_back(microseconds(Clock::now() - begin));
      for (const HeadCache& cache : caches_) {
        searching += cache.stats().search_us;
        attending += cache.stats().attend_us;
      }
    }
    const std::size_t tokens = heads_[0].tokens();
    const double shared =
        kSteps * static_cast<double>(std::min<std::size_t>(pool_.threads(), caches_.size()));
    report(shape(), "step", tokens, median(times));
    report(shape(), "search", tokens, searching / shared);
    report(shape(), "attention on the CPU", tokens, attending / shared);
  }

 private:
  void write_token(const TokenInputs& to) {
    const std::size_t token = caches_[0].tokens();
    const auto put = [&](void* place, std::size_t head, AnyMatrixView rows) {
      const std::size_t bytes = rows.rows * rows.cols * size_of(rows.dtype);
      runtime_->copy(static_cast<std::byte*>(place) + head * bytes, rows.data, bytes, stream_);
    };
    for (std::size_t i = 0; i < heads_.size(); ++i) {
      put(to.queries, i, heads_[i].at(token));
      put(to.key, i, heads_[i].keys.view().slice(token, 1));
      put(to.value, i, heads_[i].values.view().slice(token, 1));
    }
  }

  std::shared_ptr<Runtime> runtime_;
  const std::vector<bench::DecodedHead>& heads_;
  Stream stream_;
  DecodePool pool_;
  std::vector<HeadCache> caches_;
  std::vector<HeadCache*> pointers_;
};

int run(const std::string& capture, const std::vector<std::size_t>& contexts) {
  try {
    const auto runtime = open_device();
    Stream stream = runtime->make_stream();
    for (const std::size_t tokens : contexts) {
      const auto heads =
          capture.empty() ? bench::made_heads(tokens) : bench::captured_heads(capture, tokens);
      Decoding decoding(runtime, heads, stream);
      if (tokens == contexts[0]) {
        time_parts(runtime, decoding.shape(), stream);
        time_steps_without_cpu(runtime, decoding.shape(), stream);
      }
      decoding.time();
    }
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
  // Sink, window and the steps that are measured have to fit.
  constexpr std::size_t kLeastTokens = 1024;
  std::string capture;
  std::vector<std::size_t> contexts;
  for (int i = 1; i < count; ++i) {
    if (std::string(arguments[i]) == "--capture" && i + 1 < count) {
      capture = arguments[++i];
      continue;
    }
    const std::size_t tokens = std::strtoull(arguments[i], nullptr, 10);
    if (tokens < kLeastTokens) {
      fmt::print(stderr, "TOKENS is '{}', must be a number from {}\n", arguments[i], kLeastTokens);
      return 2;
    }
    contexts.push_back(tokens);
  }
  return keyseek::cuda::run(capture, contexts);
}
