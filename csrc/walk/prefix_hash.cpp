#include "walk/prefix_hash.h"

#include <array>
#include <cstring>

#if defined(__linux__) || defined(__APPLE__)
#include <dlfcn.h>
#define PYPARAM_FINDS_SYMBOLS 1
#else
#define PYPARAM_FINDS_SYMBOLS 0
#endif

#include "walk/ref.h"

namespace pyparam::walk {

namespace {

constexpr uint64_t rotated(uint64_t x, int by) { return (x << by) | (x >> (64 - by)); }

// Of fewer than eight bytes the last are zeros.
uint64_t word(std::string_view bytes) {
  uint64_t out = 0;
  std::memcpy(&out, bytes.data(), bytes.size());
  return out;
}

}  // namespace

bool PrefixHash::known_ = false;
uint64_t PrefixHash::key_[2] = {};

PrefixHash::State::State(const uint64_t (&key)[2])
    : v0(key[0] ^ 0x736f6d6570736575),
      v1(key[1] ^ 0x646f72616e646f6d),
      v2(key[0] ^ 0x6c7967656e657261),
      v3(key[1] ^ 0x7465646279746573) {}

inline void PrefixHash::State::round() {
  v0 += v1;
  v2 += v3;
  v1 = rotated(v1, 13) ^ v0;
  v3 = rotated(v3, 16) ^ v2;
  v0 = rotated(v0, 32);
  v2 += v1;
  v0 += v3;
  v1 = rotated(v1, 17) ^ v2;
  v3 = rotated(v3, 21) ^ v0;
  v2 = rotated(v2, 32);
}

inline void PrefixHash::State::read_word(uint64_t word) {
  v3 ^= word;
  round();
  v0 ^= word;
}

inline void PrefixHash::State::read_words(std::string_view text) {
  for (; text.size() - read >= 8; read += 8) read_word(word(text.substr(read, 8)));
}

void PrefixHash::extend(std::string_view text) {
  const size_t read = states_.empty() ? 0 : states_.back().read;
  if (text.size() - read < 8) return;
  State state = states_.empty() ? State(key_) : states_.back();
  state.read_words(text);
  states_.push_back(state);
}

Py_hash_t PrefixHash::of(std::string_view whole) const {
  if (whole.empty()) return 0;
  auto last = states_.rbegin();
  while (last != states_.rend() && last->read > whole.size()) ++last;
  State state = last == states_.rend() ? State(key_) : *last;
  state.read_words(whole);
  state.read_word((uint64_t{whole.size()} << 56) | word(whole.substr(state.read)));
  state.v2 ^= 0xff;
  for (int i = 0; i < 3; ++i) state.round();
  const auto hash = static_cast<Py_hash_t>(state.v0 ^ state.v1 ^ state.v2 ^ state.v3);
  return hash == -1 ? -2 : hash;
}

void check_hash() {
#if PYPARAM_FINDS_SYMBOLS
  const void* secret = dlsym(RTLD_DEFAULT, "_Py_HashSecret");
  if (secret == nullptr || std::strcmp(PyHash_GetFuncDef()->name, "siphash13") != 0) return;
  std::memcpy(PrefixHash::key_, secret, sizeof(PrefixHash::key_));
  std::array<char, 40> text;
  for (size_t i = 0; i < text.size(); ++i) text[i] = static_cast<char>('!' + 2 * i);
  for (size_t size = 0; size <= text.size(); ++size) {
    const std::string_view whole(text.data(), size);
    const Ref made =
        Ref::checked(PyUnicode_FromStringAndSize(whole.data(), static_cast<Py_ssize_t>(size)));
    for (size_t begin = 0; begin <= size; begin += 5) {
      PrefixHash prefix;
      prefix.extend(whole.substr(0, begin / 2));
      prefix.extend(whole.substr(0, begin));
      if (prefix.of(whole) != PyObject_Hash(made.get())) return;
    }
  }
  PrefixHash::known_ = true;
#endif
}

}  // namespace pyparam::walk
