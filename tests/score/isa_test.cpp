// Which instruction set is used, and how another one is forced.
#include <gtest/gtest.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <string>

#include "file/temporary_directory.hpp"
#include "score/kernels.hpp"

namespace keyseek {
namespace {

TEST(Isa, LevelsAreListedSlowestFirst) {
  const std::vector<Isa> isas = available_isas();
  ASSERT_FALSE(isas.empty());
  EXPECT_EQ(isas.front(), Isa::baseline);
  EXPECT_TRUE(std::is_sorted(isas.begin(), isas.end()));
  EXPECT_EQ(std::adjacent_find(isas.begin(), isas.end()), isas.end());
  for (const Isa isa : isas) EXPECT_EQ(kernels_for(isa).isa, isa);
}

TEST(Isa, ListsWhatTheCpuHas) {
  const std::vector<Isa> isas = available_isas();
  const auto listed = [&](Isa isa) {
    return std::find(isas.begin(), isas.end(), isa) != isas.end();
  };
#if defined(__x86_64__)
  EXPECT_EQ(listed(Isa::avx2), __builtin_cpu_supports("avx2") != 0);
  EXPECT_EQ(listed(Isa::avx512), __builtin_cpu_supports("avx512bw") != 0);
  EXPECT_EQ(listed(Isa::avx512_vnni), __builtin_cpu_supports("avx512vnni") != 0);
  EXPECT_FALSE(listed(Isa::neon));
  test::expect_error(ErrorCode::unsupported, {"neon", "baseline"},
                     [] { (void)kernels_for(Isa::neon); });
#else
  EXPECT_TRUE(listed(Isa::neon));
  test::expect_error(ErrorCode::unsupported, {"avx2", "baseline"},
                     [] { (void)kernels_for(Isa::avx2); });
#endif
}

TEST(Isa, Names) {
  EXPECT_EQ(to_string(Isa::baseline), "baseline");
  EXPECT_EQ(to_string(Isa::avx2), "avx2");
  EXPECT_EQ(to_string(Isa::avx512), "avx512");
  EXPECT_EQ(to_string(Isa::avx512_vnni), "avx512_vnni");
  EXPECT_EQ(to_string(Isa::neon), "neon");
}

/// Says which level is in use: run by the tests below in a process of its own, since a
/// process chooses once.
TEST(Isa, SaysWhatIsInUse) {
  try {
    std::printf("isa in use: %s\n", std::string(to_string(active_isa())).c_str());
    EXPECT_EQ(active_isa(), kernels().isa);
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ErrorCode::unsupported);
    std::printf("refused: %s\n", e.what());
  }
}

/// What SaysWhatIsInUse prints when KEYSEEK_ISA is `value`.
std::string output_with(const std::string& value) {
  const std::string program = std::filesystem::read_symlink("/proc/self/exe").string();
  const std::string command = "KEYSEEK_ISA='" + value + "' '" + program +
                              "' --gtest_filter=Isa.SaysWhatIsInUse --gtest_color=no 2>&1";
  FILE* pipe = ::popen(command.c_str(), "r");
  if (pipe == nullptr) return "popen failed";
  std::string output;
  char buffer[512];
  while (std::fgets(buffer, sizeof buffer, pipe) != nullptr) output += buffer;
  const int status = ::pclose(pipe);
  if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) output += "(the process failed)";
  return output;
}

TEST(Isa, EveryLevelCanBeForced) {
  for (const Isa isa : available_isas()) {
    const std::string output = output_with(std::string(to_string(isa)));
    EXPECT_NE(output.find("isa in use: " + std::string(to_string(isa)) + "\n"), std::string::npos)
        << output;
    EXPECT_EQ(output.find("failed"), std::string::npos) << output;
  }
}

TEST(Isa, TheBestIsTakenUnlessForced) {
  const std::string best(to_string(available_isas().back()));
  EXPECT_NE(output_with("").find("isa in use: " + best + "\n"), std::string::npos);
}

TEST(Isa, AnUnknownNameIsRefused) {
  for (const std::string name : {"sse9", "AVX2", "avx", "avx2 "}) {
    const std::string output = output_with(name);
    EXPECT_NE(output.find("refused: KEYSEEK_ISA is \"" + name + "\""), std::string::npos) << output;
    EXPECT_NE(output.find("baseline"), std::string::npos) << output;
    EXPECT_EQ(output.find("isa in use"), std::string::npos) << output;
    EXPECT_EQ(output.find("failed"), std::string::npos) << output;
  }
}

}  // namespace
}  // namespace keyseek
