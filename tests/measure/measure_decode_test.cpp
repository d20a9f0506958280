// Steps of a head's cache, timed and compared with attention over everything.
#include <gtest/gtest.h>

#include "file/temporary_directory.hpp"
#include "keyseek/measure.hpp"
#include "support/decode_head.hpp"

namespace keyseek {
namespace {

using test::expect_error;
using test::given_plan;
using test::sample_of_layer_2;

DecodeMeasurement measure(HeadCache& cache, std::size_t steps, const DecodeMeasureParams& params) {
  const std::size_t first = cache.tokens(), last = first + steps;
  return measure_decode(cache, sample_of_layer_2().queries.view().slice(first * 3, steps * 3),
                        sample_of_layer_2().keys.view().slice(0, last),
                        sample_of_layer_2().values.view().slice(0, last), params);
}

TEST(MeasureDecode, SaysWhatTheStepsDid) {
  HeadCache cache = sample_of_layer_2().prefill(2500, given_plan(Retriever::flat)), other = cache;
  const DecodeMeasurement seen = measure(cache, 12, {});
  EXPECT_EQ(seen.steps, 12U);
  EXPECT_EQ(cache.tokens(), 2512U);
  EXPECT_EQ(seen.scanned, static_cast<double>(cache.indexed()));
  EXPECT_EQ(seen.retrieved, 40.0);
  const auto bytes = static_cast<double>(cache.stats().bytes_read);  // of the last step
  EXPECT_NEAR(seen.bytes_read, bytes, 0.05 * bytes);
  EXPECT_NEAR(seen.error, sample_of_layer_2().decode(other, 12), 1e-6);
  EXPECT_GT(seen.worst_error, seen.error);
  EXPECT_GT(seen.search_us, 0.0);
  EXPECT_GT(seen.attend_us, 0.0);
  EXPECT_GE(seen.total_us, std::max(seen.search_us, seen.attend_us));
}

TEST(MeasureDecode, ColdCachesChangeTimesOnly) {
  for (const Retriever retriever : {Retriever::projection, Retriever::everything}) {
    HeadCache warm = sample_of_layer_2().prefill(2500, given_plan(retriever)), cold = warm;
    const auto a = measure(warm, 3, {}), b = measure(cold, 3, {.cold_cache = true});
    EXPECT_EQ(a.error, b.error);
    EXPECT_EQ(a.scanned, b.scanned);
    EXPECT_EQ(a.bytes_read, b.bytes_read);
  }
}

TEST(MeasureDecode, CanBeCancelled) {
  HeadCache cache = sample_of_layer_2().prefill(700, given_plan(Retriever::everything));
  const auto stop = [](std::string_view, std::size_t done, std::size_t) { return done < 3; };
  expect_error(ErrorCode::cancelled, {"3 of 5"},
               [&] { (void)measure(cache, 5, {.progress = stop}); });
}

TEST(MeasureDecode, BadInputIsNamed) {
  HeadCache cache = sample_of_layer_2().prefill(700, given_plan(Retriever::everything)), empty;
  const auto keys = sample_of_layer_2().keys.view(), values = sample_of_layer_2().values.view();
  const auto refused = [&](const std::string& fault, HeadCache& c, MatrixView<float> q,
                           AnyMatrixView k, AnyMatrixView v) {
    expect_error(ErrorCode::invalid_argument, {fault}, [&] { (void)measure_decode(c, q, k, v); });
  };
  const auto queries = sample_of_layer_2().queries.view().slice(0, 6);
  refused("empty", empty, queries, keys, values);
  refused("has 700 tokens already", cache, queries, keys.slice(0, 700), values.slice(0, 700));
  refused("values has 701 rows", cache, queries, keys.slice(0, 702), values.slice(0, 701));
  refused("must be 9 x 64", cache, queries, keys.slice(0, 703), values.slice(0, 703));
  EXPECT_EQ(cache.tokens(), 700U);
}

}  // namespace
}  // namespace keyseek
