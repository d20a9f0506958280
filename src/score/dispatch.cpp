/// Chooses the instruction set that the kernels of this process use.
#include <algorithm>
#include <array>
#include <cstdlib>
#include <string>

#include "base/fail.hpp"
#include "score/kernels.hpp"

namespace keyseek {
namespace {

struct Level {
  Isa isa;
  const Kernels* kernels;
  bool (*supported)();
};

#if defined(__x86_64__)
bool has_avx2() {
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
         __builtin_cpu_supports("bmi2");
}
bool has_avx512() {
  return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
}
bool has_avx512_vnni() { return has_avx512() && __builtin_cpu_supports("avx512vnni"); }

constexpr std::array kLevels = {
    Level{Isa::baseline, &kBaselineKernels, [] { return true; }},
    Level{Isa::avx2, &kAvx2Kernels, has_avx2},
    Level{Isa::avx512, &kAvx512Kernels, has_avx512},
    Level{Isa::avx512_vnni, &kAvx512VnniKernels, has_avx512_vnni},
};
#else
constexpr std::array kLevels = {
    Level{Isa::baseline, &kBaselineKernels, [] { return true; }},
    Level{Isa::neon, &kNeonKernels, [] { return true; }},
};
#endif

constexpr std::array<std::string_view, 5> kNames = {"baseline", "avx2", "avx512", "avx512_vnni",
                                                    "neon"};

std::string names_of(const std::vector<Isa>& isas) {
  std::string names;
  for (const Isa isa : isas) names += (names.empty() ? "" : ", ") + std::string(to_string(isa));
  return names;
}

Isa choose() {
  const std::vector<Isa> available = available_isas();
  const char* forced = std::getenv("KEYSEEK_ISA");
  if (forced == nullptr || *forced == '\0') return available.back();
  for (const Isa isa : available) {
    if (to_string(isa) == forced) return isa;
  }
  fail(ErrorCode::unsupported, "KEYSEEK_ISA is \"{}\", this CPU offers {}", forced,
       names_of(available));
}

}  // namespace

std::string_view to_string(Isa isa) noexcept { return kNames[static_cast<std::size_t>(isa)]; }

std::vector<Isa> available_isas() {
  std::vector<Isa> isas;
  for (const Level& level : kLevels) {
    if (level.supported()) isas.push_back(level.isa);
  }
  return isas;
}

const Kernels& kernels_for(Isa isa) {
  for (const Level& level : kLevels) {
    if (level.isa == isa && level.supported()) return *level.kernels;
  }
  fail(ErrorCode::unsupported, "isa is {}, this CPU offers {}", to_string(isa),
       names_of(available_isas()));
}

const Kernels& kernels() {
  static const Kernels& chosen = kernels_for(choose());
  return chosen;
}

Isa active_isa() { return kernels().isa; }

}  // namespace keyseek
