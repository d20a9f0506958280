// The kernel `attend`, emulated, against attention in f64.
#include <gtest/gtest.h>

#include "static_problem.hpp"

namespace keyseek::cuda::test {
namespace {

using emulation::Order;

constexpr Dtype kDtypes[] = {Dtype::f16, Dtype::bf16};
constexpr std::uint32_t kDims[] = {64, 96, 128, 256};

TEST(Attend, EveryTypeDimensionAndGroup) {
  for (const Dtype dtype : kDtypes) {
    for (const std::uint32_t dim : kDims) {
      for (std::uint32_t group = 1; group <= kMostQueries; ++group) {
        SCOPED_TRACE(testing::Message() << to_string(dtype) << " d " << dim << " G " << group);
        StaticProblem problem({dtype, 2, group, dim, 45, 3, 0.1F});
        problem.attend();
        expect_truth(problem.merged(), problem, 1e-5);
      }
    }
  }
}

}  // namespace
}  // namespace keyseek::cuda::test
