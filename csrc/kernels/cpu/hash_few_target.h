// The loops of hash_few.h for one target. hash_few.cpp includes this file once for each, with
// PYPARAM_NAMESPACE, PYPARAM_TARGET (the function attribute) and PYPARAM_VECTOR_BYTES defined, so
// there is no include guard.

namespace pyparam::cpu::PYPARAM_NAMESPACE {

typedef uint64_t Words __attribute__((vector_size(PYPARAM_VECTOR_BYTES)));
constexpr int kWords = PYPARAM_VECTOR_BYTES / 8;
static_assert(FewBytes::kTensors % kWords == 0 && FewBytes::kLanes % kWords == 0);

PYPARAM_TARGET static PYPARAM_INLINE Words load(const void* from) {
  Words out;
  std::memcpy(&out, from, sizeof(out));
  return out;
}

// 1, 2, ..., kWords.
PYPARAM_TARGET static PYPARAM_INLINE Words positions() {
  static constexpr uint64_t kFirst[8] = {1, 2, 3, 4, 5, 6, 7, 8};
  return load(kFirst);
}

PYPARAM_TARGET static PYPARAM_INLINE Words times(Words x, uint64_t factor) {
#if PYPARAM_VECTOR_BYTES == 32
  return (Words)multiply((__m256i)x, factor);
#else
  return x * factor;
#endif
}

// hash::mix, finish and Sums::add_word of each lane. Functions that are not compiled for the target
// would take vectors apart, even where they are inlined.
PYPARAM_TARGET static PYPARAM_INLINE Words mix(Words z) {
  z = times(z ^ (z >> hash::kFirstShift), hash::kFirstFactor);
  z = times(z ^ (z >> hash::kSecondShift), hash::kSecondFactor);
  return z ^ (z >> hash::kLastShift);
}

struct LaneSums {
  Words plain, placed;

  PYPARAM_TARGET PYPARAM_INLINE void add_word(Words word, uint64_t index) {
    const uint64_t position = index + 1;
    const Words scrambled = mix(word + position * hash::kStep);
    plain += scrambled;
    placed += position * scrambled;
  }
};

struct LaneDigests {
  Words low, high;
};

PYPARAM_TARGET static PYPARAM_INLINE LaneDigests finish(const LaneSums& sums) {
  const Words left = sums.plain ^ mix(sums.placed + hash::kStep);
  const Words right = sums.placed ^ mix(left + 2 * hash::kStep);
  return {left ^ mix(right + 3 * hash::kStep), right};
}

#if PYPARAM_VECTOR_BYTES == 32
// Sums of neighbours, of a and b in turn.
PYPARAM_TARGET static PYPARAM_INLINE Words add_pairs(Words a, Words b) {
  return __builtin_shufflevector(a, b, 0, 4, 2, 6) + __builtin_shufflevector(a, b, 1, 5, 3, 7);
}
#elif PYPARAM_VECTOR_BYTES == 64
PYPARAM_TARGET static PYPARAM_INLINE Words add_pairs(Words a, Words b) {
  return __builtin_shufflevector(a, b, 0, 8, 2, 10, 4, 12, 6, 14) +
         __builtin_shufflevector(a, b, 1, 9, 3, 11, 5, 13, 7, 15);
}
// The same of neighbours of two lanes, those of a first.
PYPARAM_TARGET static PYPARAM_INLINE Words add_quarters(Words a, Words b) {
  return __builtin_shufflevector(a, b, 0, 1, 4, 5, 8, 9, 12, 13) +
         __builtin_shufflevector(a, b, 2, 3, 6, 7, 10, 11, 14, 15);
}
#endif

// Of kWords vectors the sum of each one's lanes.
PYPARAM_TARGET static PYPARAM_INLINE Words totals(const Words (&x)[kWords]) {
#if PYPARAM_VECTOR_BYTES == 16
  return __builtin_shufflevector(x[0], x[1], 0, 2) + __builtin_shufflevector(x[0], x[1], 1, 3);
#elif PYPARAM_VECTOR_BYTES == 32
  const Words two = add_pairs(x[0], x[1]);
  const Words others = add_pairs(x[2], x[3]);
  return __builtin_shufflevector(two, others, 0, 1, 4, 5) +
         __builtin_shufflevector(two, others, 2, 3, 6, 7);
#else
  return add_quarters(add_quarters(add_pairs(x[0], x[1]), add_pairs(x[2], x[3])),
                      add_quarters(add_pairs(x[4], x[5]), add_pairs(x[6], x[7])));
#endif
}

// The sums of one tensor's bytes before the lanes add up. In a lane, `running` sums its `plain`
// after each of T steps, so that it counts the word of step t T - t times: the position of that
// word is the lane's first and t kWords more.
PYPARAM_TARGET static PYPARAM_INLINE LaneSums sum_few(const char* bytes, int64_t size) {
  constexpr int64_t kStepBytes = PYPARAM_VECTOR_BYTES;
  const Words first = positions();
  Words key = first * hash::kStep;
  Words plain = {};
  Words running = {};
  uint64_t steps = 0;
  for (; size >= kStepBytes; size -= kStepBytes, bytes += kStepBytes, ++steps) {
    plain += mix(load(bytes) + key);
    running += plain;
    key += Words{} + kWords * hash::kStep;
  }
  if (size > 0) {
#if PYPARAM_VECTOR_BYTES == 64
    const auto words =
        (Words)_mm512_maskz_loadu_epi8(~uint64_t{0} >> (64 - static_cast<unsigned>(size)), bytes);
#else
    uint64_t rest[kWords] = {};
    int64_t whole = 0;
    for (; (whole + 1) * 8 <= size; ++whole) std::memcpy(&rest[whole], bytes + whole * 8, 8);
    if (whole * 8 < size) rest[whole] = hash::partial_word(bytes + whole * 8, size - whole * 8);
    const Words words = load(rest);
#endif
    const auto present = (Words)(first <= static_cast<uint64_t>((size + 7) / 8));
    plain += mix(words + key) & present;
    running += plain;
    ++steps;
  }
  return {plain, plain * (first + steps * kWords) - kWords * running};
}

// The first and the second of kWords pairs, and back.
PYPARAM_TARGET static PYPARAM_INLINE LaneSums apart(const void* pairs) {
  const Words a = load(pairs);
  const Words b = load(static_cast<const char*>(pairs) + sizeof(Words));
#if PYPARAM_VECTOR_BYTES == 16
  return {__builtin_shufflevector(a, b, 0, 2), __builtin_shufflevector(a, b, 1, 3)};
#elif PYPARAM_VECTOR_BYTES == 32
  return {__builtin_shufflevector(a, b, 0, 2, 4, 6), __builtin_shufflevector(a, b, 1, 3, 5, 7)};
#else
  return {__builtin_shufflevector(a, b, 0, 2, 4, 6, 8, 10, 12, 14),
          __builtin_shufflevector(a, b, 1, 3, 5, 7, 9, 11, 13, 15)};
#endif
}

PYPARAM_TARGET static void sum_bytes(FewBytes& few, int begin, int end) {
  for (int i = begin; i < end; ++i) {
    const LaneSums sums = sum_few(few.bytes[i], few.sizes[i]);
    std::memcpy(few.plain[i], &sums.plain, sizeof(Words));
    std::memcpy(few.placed[i], &sums.placed, sizeof(Words));
  }
}

// Of kWords tensors what the lanes of each add up to.
PYPARAM_TARGET static PYPARAM_INLINE Words added_up(const uint64_t (*lanes)[FewBytes::kLanes]) {
  Words of[kWords];
  for (int i = 0; i < kWords; ++i) of[i] = load(lanes[i]);
  return totals(of);
}

PYPARAM_TARGET static void digest_few(const FewBytes& few, int count, hash::Digest* digests) {
  for (int begin = 0; begin < count; begin += kWords) {
    LaneSums record = apart(few.descriptions + begin);
    record.add_word(added_up(few.plain + begin), 0);
    record.add_word(added_up(few.placed + begin), 1);
    const LaneDigests found = finish(record);
    for (int i = 0; i < kWords && begin + i < count; ++i)
      digests[begin + i] = {found.low[i], found.high[i]};
  }
}

PYPARAM_TARGET static hash::Digest sum_entries(const hash::Digest* digests, const hash::Sums* names,
                                               int64_t count) {
  Words low = {};
  Words high = {};
  int64_t i = 0;
  for (; i + kWords <= count; i += kWords) {
    LaneSums record = apart(names + i);
    const LaneSums words = apart(digests + i);
    record.add_word(words.plain, 0);
    record.add_word(words.placed, 1);
    const LaneDigests entry = finish(record);
    low += entry.low;
    high += entry.high;
  }
  hash::Digest sum;
  for (int lane = 0; lane < kWords; ++lane) {
    sum.low += low[lane];
    sum.high += high[lane];
  }
  for (; i < count; ++i) {
    const hash::Digest entry = hash::entry_digest(names[i], digests[i]);
    sum.low += entry.low;
    sum.high += entry.high;
  }
  return sum;
}

static constexpr HashKernels kernels = {sum_bytes, digest_few, sum_entries};

}  // namespace pyparam::cpu::PYPARAM_NAMESPACE
