#include "kernels/cpu/isa.h"

#include <algorithm>
#include <cstdlib>
#include <string_view>

namespace pyparam::cpu {
namespace {

Isa of_machine() {
#if defined(__x86_64__)
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl")) {
    return Isa::kAvx512;
  }
  if (__builtin_cpu_supports("avx2")) return Isa::kAvx2;
#endif
  return Isa::kBaseline;
}

Isa wanted() {
  const char* value = std::getenv("PYPARAM_ISA");
  const std::string_view name = value == nullptr ? "" : value;
  if (name == "baseline") return Isa::kBaseline;
  if (name == "avx2") return Isa::kAvx2;
  return Isa::kAvx512;
}

}  // namespace

Isa isa() {
  static const Isa chosen = std::min(of_machine(), wanted());
  return chosen;
}

}  // namespace pyparam::cpu
