// Hashes of strs that begin alike: each goes on from where what they share was read.
//
// A dict hashes its keys, and in a deep model names are long: reading them for it was the greater
// part of what a chain's state_dict took. CPython's hash (SipHash, PEP 456) reads from left to
// right, eight bytes at a time, so what it knows behind a prefix serves every name that begins with
// it. Which hash it is and with which key are CPython's own affair: they are looked up, and checked
// once on strs made for it. Where anything is not as expected CPython hashes by itself.
#pragma once

#include <Python.h>

#include <cstdint>
#include <string_view>
#include <vector>

namespace pyparam::walk {

// Finds out whether PrefixHash is CPython's hash; call once, at the import.
void check_hash();

class PrefixHash {
 public:
  // Whether `of` is what CPython would calculate. False before check_hash.
  static bool is_known() { return known_; }

  // The text was cut to `length` bytes.
  void cut(size_t length) {
    while (!states_.empty() && states_.back().read > length) states_.pop_back();
  }
  // The text, whose beginning was given before, goes on.
  void extend(std::string_view text);
  // The hash of a str of ASCII that begins with the text.
  Py_hash_t of(std::string_view whole) const;

 private:
  friend void check_hash();

  // SipHash's, behind the first `read` bytes.
  struct State {
    explicit State(const uint64_t (&key)[2]);
    void read_word(uint64_t word);
    void read_words(std::string_view text);
    void round();

    uint64_t v0, v1, v2, v3;
    size_t read = 0;
  };
  static bool known_;
  static uint64_t key_[2];

  std::vector<State> states_;  // by how much was read
};

}  // namespace pyparam::walk
