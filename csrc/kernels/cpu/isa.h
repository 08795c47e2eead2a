// Which vector instructions the kernels use, decided once at run time, and the float mode they run
// in.
//
// A kernel is written once over vectors of PYPARAM_VECTOR_BYTES, in a header that its .cpp file
// includes for each target. Results do not depend on the choice: the lanes that accumulate are the
// same sixteen for all.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <cstring>

#if defined(__x86_64__)
#include <cpuid.h>
#include <immintrin.h>
#define PYPARAM_TARGET_AVX2 __attribute__((target("avx2,fma,f16c")))
#define PYPARAM_TARGET_AVX512 \
  __attribute__((target("avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl")))
#define PYPARAM_TARGET_ICELAKE                                              \
  __attribute__((                                                           \
      target("avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512ifma," \
             "avx512vnni")))
#endif

namespace pyparam::cpu {

enum class Isa { kBaseline, kAvx2, kAvx512, kIceLake };

#if defined(__x86_64__)
// By its bit, as older compilers know no name for it. That the system saves the registers, AVX2
// says.
inline bool has_f16c() {
  unsigned a = 0, b = 0, c = 0, d = 0;
  return __get_cpuid(1, &a, &b, &c, &d) != 0 && (c & bit_F16C) != 0;
}
#endif

// The best the machine has; PYPARAM_ISA=baseline, avx2 or avx512bw in the environment asks for
// less: avx512bw is AVX-512 without what came with Ice Lake, multiplications of 52 bits (IFMA) and
// products of words that are added up (VNNI).
inline Isa best_isa() {
  static const Isa best = [] {
    Isa found = Isa::kBaseline;
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && has_f16c())
      found = Isa::kAvx2;
    if (found == Isa::kAvx2 && __builtin_cpu_supports("avx512f") &&
        __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
        __builtin_cpu_supports("avx512vl")) {
      found = __builtin_cpu_supports("avx512ifma") && __builtin_cpu_supports("avx512vnni")
                  ? Isa::kIceLake
                  : Isa::kAvx512;
    }
    if (const char* asked = std::getenv("PYPARAM_ISA")) {
      if (std::strcmp(asked, "baseline") == 0) found = Isa::kBaseline;
      if (std::strcmp(asked, "avx2") == 0) found = std::min(found, Isa::kAvx2);
      if (std::strcmp(asked, "avx512bw") == 0) found = std::min(found, Isa::kAvx512);
    }
#endif
    return found;
  }();
  return best;
}

#if defined(__x86_64__)
// The one of a kernel's builds that suits the machine, or one for less if that is the most wanted.
template <typename Kernel>
const Kernel& for_best_isa(const Kernel& baseline, const Kernel& avx2, const Kernel& avx512,
                           const Kernel& icelake, Isa most = Isa::kIceLake) {
  switch (std::min(most, best_isa())) {
    case Isa::kIceLake:
      return icelake;
    case Isa::kAvx512:
      return avx512;
    case Isa::kAvx2:
      return avx2;
    case Isa::kBaseline:
      break;
  }
  return baseline;
}
template <typename Kernel>
const Kernel& for_best_isa(const Kernel& baseline, const Kernel& avx2, const Kernel& avx512,
                           Isa most = Isa::kIceLake) {
  return for_best_isa(baseline, avx2, avx512, avx512, most);
}
#endif

// While it lives, this thread calculates with subnormals as IEEE 754 says, whatever
// torch.set_flush_denormal asked for.
class ExactFloats {
 public:
  ExactFloats() : saved_(read()) {
    if (saved_ & kFlush) write(saved_ & ~kFlush);
  }
  ~ExactFloats() {
    if (saved_ & kFlush) write(saved_);
  }
  ExactFloats(const ExactFloats&) = delete;
  ExactFloats& operator=(const ExactFloats&) = delete;

 private:
#if defined(__x86_64__)
  using Word = uint32_t;
  static constexpr Word kFlush = 0x8040;  // flush-to-zero and denormals-are-zero
  static Word read() { return _mm_getcsr(); }
  static void write(Word word) { _mm_setcsr(word); }
#elif defined(__aarch64__)
  using Word = uint64_t;
  static constexpr Word kFlush = Word{1} << 24;
  static Word read() {
    Word word;
    asm volatile("mrs %0, fpcr" : "=r"(word));
    return word;
  }
  static void write(Word word) { asm volatile("msr fpcr, %0" ::"r"(word)); }
#else
  using Word = uint32_t;
  static constexpr Word kFlush = 0;
  static Word read() { return 0; }
  static void write(Word) {}
#endif
  Word saved_;
};

}  // namespace pyparam::cpu
