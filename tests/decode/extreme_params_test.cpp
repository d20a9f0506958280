// Every parameter at its extremes: refused before work starts, or saved and loaded as it was.
#include <gtest/gtest.h>

#include <bit>
#include <functional>
#include <limits>

#include "file/temporary_directory.hpp"
#include "index/index_file.hpp"
#include "support/decode_head.hpp"

namespace keyseek {
namespace {

using test::TemporaryDirectory;

constexpr std::size_t k2To53 = std::size_t{1} << 53U;
const std::vector<std::size_t> kCounts = {
    0,          1,      2,          3,          65536,        65537,        0xffffffff,
    k2To53 - 1, k2To53, k2To53 + 1, k2To53 + 2, SIZE_MAX / 2, SIZE_MAX - 1, SIZE_MAX};
const std::vector<double> kReals = {0,
                                    -0.0,
                                    -1,
                                    1,
                                    2,
                                    0.5,
                                    1e300,
                                    -1e300,
                                    std::numeric_limits<double>::denorm_min(),
                                    std::numeric_limits<double>::infinity(),
                                    -std::numeric_limits<double>::infinity(),
                                    std::numeric_limits<double>::quiet_NaN()};

/// Visits every field of a DecodeParams with a function for its kind; what a file holds of them.
template <class Count, class Real, class Word>
void visit(DecodeParams& p, Count count, Real real, Word word) {
  for (std::size_t* x :
       {&p.rope.rotary_dim, &p.rope.rotary_first, &p.sink, &p.window, &p.horizon, &p.pinned,
        &p.least_indexed, &p.observed, &p.held_out, &p.tail_vectors, &p.least_k, &p.max_k, &p.seed})
    count(*x);
  for (double* x : {&p.max_error, &p.safety, &p.rope.theta, &p.share, &p.plan_share, &p.max_memory})
    real(*x);
  real(p.scale);
  real(p.softcap);
  for (float& x : p.null_logits) real(x);
  for (double& x : p.rope.frequencies) real(x);
  word(p.rope.layout, RopeLayout::interleaved);
  word(p.rule, Rule::mass);
  if (!p.given) return;
  count(p.given->k);
  if (p.given->limit) real(*p.given->limit);
  real(p.given->target_recall);
  if (p.given->retriever) word(*p.given->retriever, Retriever::custom);
}

/// Every field as bits, so that NaN equals itself and 0 does not equal -0.
std::vector<std::uint64_t> bits_of(DecodeParams p) {
  std::vector<std::uint64_t> bits = {p.shift, p.int8_values, p.scan_novel, p.given.has_value()};
  visit(
      p, [&](std::size_t x) { bits.push_back(x); },
      [&](double x) { bits.push_back(std::bit_cast<std::uint64_t>(x)); },
      [&](auto x, auto) { bits.push_back(static_cast<std::uint64_t>(x)); });
  return bits;
}

/// Calls try_one(params) with each field of `base` at each extreme, one at a time.
void each_extreme(const DecodeParams& base,
                  const std::function<void(const DecodeParams&)>& try_one) {
  std::size_t field = 0, at = 0;
  bool changed = true;
  for (std::size_t value = 0; value < kCounts.size(); ++value) {
    for (field = 0, changed = true; changed; ++field) {
      DecodeParams p = base;
      changed = false;
      at = 0;
      const auto mine = [&] {
        const bool here = at++ == field;
        changed = changed || here;
        return here;
      };
      visit(
          p,
          [&](std::size_t& x) {
            if (mine()) x = kCounts[value];
          },
          [&](auto& x) {
            if (mine()) x = static_cast<std::decay_t<decltype(x)>>(kReals[value % kReals.size()]);
          },
          [&](auto& x, auto last) {
            using Word = decltype(last);
            if (mine()) x = static_cast<Word>(value % (static_cast<std::size_t>(last) + 3));
          });
      if (changed) try_one(p);
    }
  }
}

/// Saved and loaded, with a step after it; false when the parameters were refused.
bool survives(const DecodeParams& params, const std::filesystem::path& path) {
  const auto& head = test::sample_of_layer_2();
  HeadCache cache;
  try {
    cache = head.prefill(160, 40, params);
  } catch (const Error& e) {
    EXPECT_EQ(to_string(e.code()), "invalid_argument") << e.what();
    return false;
  }
  cache.save(path);
  const HeadCache loaded = HeadCache::load(path);
  EXPECT_EQ(bits_of(loaded.params()), bits_of(params));
  EXPECT_EQ(loaded.plan().stop.k, cache.plan().stop.k);
  EXPECT_EQ(loaded.plan().stop.least, cache.plan().stop.least);
  HeadCache a = cache, b = loaded;
  DecodeScratch s, t;
  const Matrix<float> left = head.step(a, s), right = head.step(b, t);
  EXPECT_EQ(test::elements(left), test::elements(right));
  return true;
}

DecodeParams small_params() {
  return test::with(test::sample_of_layer_2().params, [](DecodeParams& p) {
    p.sink = 4;
    p.window = 8;
    p.horizon = 16;
    p.least_indexed = 10;
    p.tail_vectors = 4;
    p.observed = 16;
    p.held_out = 8;
  });
}

TEST(ExtremeParams, OfAHeadAreRefusedOrComeBack) {
  const TemporaryDirectory directory;
  std::vector<DecodeParams> bases = {small_params()};
  bases[0].given = GivenPlan{.retriever = Retriever::flat, .k = 8};
  bases.push_back(bases[0]);
  bases[1].rope = {.rotary_dim = 4, .frequencies = {1, 0.5}};
  bases.push_back(small_params());  // planned
  bases.push_back(test::with(small_params(), [](DecodeParams& p) {
    p.null_logits = {1, 2, 3};
    p.rule = Rule::dipr;
    p.given = GivenPlan{.limit = 3.0};  // complete
  }));
  std::size_t kept = 0, refused = 0;
  for (const DecodeParams& base : bases) {
    ASSERT_TRUE(survives(base, directory / "base.ks"));
    each_extreme(base, [&](const DecodeParams& p) {
      try {
        ++(survives(p, directory / "head.ks") ? kept : refused);
      } catch (const std::exception& e) {
        std::string all;
        for (const auto x : bits_of(p)) all += " " + std::to_string(x);
        ADD_FAILURE() << e.what() << "\nfields:" << all;
      }
    });
  }
  EXPECT_GT(kept, 100U);
  EXPECT_GT(refused, 100U);
}

TEST(ExtremeParams, OfAProjectionIndexAreRefusedOrComeBack) {
  const TemporaryDirectory directory;
  const auto path = directory / "params.ks";
  const auto numbers_of = [&](const ProjectionParams& p) {
    IndexFileWriter writer("projection");
    writer.add(p);
    writer.save(path);
    const auto numbers = ContainerReader::load(path).array<double>("params");
    return std::vector<double>(numbers.begin(), numbers.end());
  };
  using Set = std::function<void(ProjectionParams&, std::size_t)>;
  const std::vector<Set> fields = {
      [](ProjectionParams& p, std::size_t i) { p.list_length = kCounts[i]; },
      [](ProjectionParams& p, std::size_t i) { p.tuning_k = kCounts[i]; },
      [](ProjectionParams& p, std::size_t i) { p.list_method = static_cast<KnnMethod>(i); },
      [](ProjectionParams& p, std::size_t i) { p.graph.link_method = static_cast<LinkMethod>(i); },
      [](ProjectionParams& p, std::size_t i) { p.graph.candidates = kCounts[i]; },
      [](ProjectionParams& p, std::size_t i) { p.graph.degree = kCounts[i]; },
      [](ProjectionParams& p, std::size_t i) { p.graph.max_degree = kCounts[i]; },
      [](ProjectionParams& p, std::size_t i) { p.graph.damping = kReals[i % kReals.size()]; },
      [](ProjectionParams& p, std::size_t i) { p.graph.sampled_lists = kCounts[i]; },
      [](ProjectionParams& p, std::size_t i) { p.graph.entry_points = kCounts[i]; }};
  std::size_t kept = 0;
  for (const Set& set : fields) {
    for (std::size_t i = 0; i < kCounts.size(); ++i) {
      ProjectionParams params;
      set(params, i);
      try {
        params.validate();
      } catch (const Error&) {
        continue;
      }
      const auto numbers = numbers_of(params);
      const ProjectionParams found = read_params(ContainerReader::load(path));
      ProjectionParams again;
      set(again, i);
      EXPECT_EQ(numbers_of(found), numbers);
      // Rounded on its way into the file, it would be equal there, and not here.
      EXPECT_EQ(found.list_length, again.list_length);
      EXPECT_EQ(found.tuning_k, again.tuning_k);
      EXPECT_EQ(found.graph.sampled_lists, again.graph.sampled_lists);
      EXPECT_EQ(found.graph.entry_points, again.graph.entry_points);
      ++kept;
    }
  }
  EXPECT_GT(kept, 40U);
}

}  // namespace
}  // namespace keyseek
