// A set of Python objects by identity: what `memo` is in nn.Module, without hashing through Python.
#pragma once

#include <cstdint>
#include <vector>

#include "walk/ref.h"

namespace pyparam::walk {

// With `owning`, holds a reference to each member, so that no address is used again while the set
// knows it; without, it is for passes during which nothing can die.
template <bool owning>
class BasicIdSet {
 public:
  BasicIdSet() = default;
  BasicIdSet(const BasicIdSet&) = delete;
  BasicIdSet& operator=(const BasicIdSet&) = delete;
  ~BasicIdSet() { clear(); }

  bool contains(PyObject* object) const {
    if (slots_.empty()) return false;
    for (size_t i = slot_of(object);; i = (i + 1) & mask()) {
      if (slots_[i] == object) return true;
      if (slots_[i] == nullptr) return false;
    }
  }

  // True where the object was not in the set before.
  bool insert(PyObject* object) {
    if (2 * (count_ + 1) > slots_.size()) grow();
    for (size_t i = slot_of(object);; i = (i + 1) & mask()) {
      if (slots_[i] == object) return false;
      if (slots_[i] == nullptr) {
        slots_[i] = object;
        if constexpr (owning) Py_INCREF(object);
        ++count_;
        return true;
      }
    }
  }

  // Removes an object that is in the set; the probe sequences of the others stay whole.
  void erase(PyObject* object) {
    size_t hole = slot_of(object);
    while (slots_[hole] != object) hole = (hole + 1) & mask();
    slots_[hole] = nullptr;
    --count_;
    for (size_t i = (hole + 1) & mask(); slots_[i] != nullptr; i = (i + 1) & mask()) {
      const size_t home = slot_of(slots_[i]);
      if (((i - home) & mask()) >= ((i - hole) & mask())) {
        slots_[hole] = slots_[i];
        slots_[i] = nullptr;
        hole = i;
      }
    }
    if constexpr (owning) Py_DECREF(object);
  }

  size_t size() const { return count_; }

  template <typename Fn>
  void for_each(const Fn& fn) const {
    for (PyObject* object : slots_) {
      if (object != nullptr) fn(object);
    }
  }

  int visit(visitproc visit, void* arg) const {
    for (PyObject* object : slots_) {
      if (object == nullptr) continue;
      if (const int stopped = visit(object, arg)) return stopped;
    }
    return 0;
  }

  void clear() {
    std::vector<PyObject*> dropped;
    dropped.swap(slots_);  // a finaliser may run Python code; it finds an empty set
    count_ = 0;
    if constexpr (owning) {
      for (PyObject* object : dropped) Py_XDECREF(object);
    }
  }

 private:
  size_t mask() const { return slots_.size() - 1; }
  // Fibonacci hashing: objects are aligned, so their low bits say little.
  size_t slot_of(PyObject* object) const {
    return static_cast<size_t>(
        (reinterpret_cast<uintptr_t>(object) * UINT64_C(0x9E3779B97F4A7C15)) >> shift_);
  }
  void grow() {
    std::vector<PyObject*> old;
    old.swap(slots_);
    const size_t size = old.empty() ? 16 : old.size() * 4;
    slots_.assign(size, nullptr);
    shift_ = 64;
    for (size_t s = size; s > 1; s /= 2) --shift_;
    for (PyObject* object : old) {
      if (object == nullptr) continue;
      size_t i = slot_of(object);
      while (slots_[i] != nullptr) i = (i + 1) & mask();
      slots_[i] = object;
    }
  }

  std::vector<PyObject*> slots_;  // a power of two, at most half full
  size_t count_ = 0;
  int shift_ = 64;
};

using IdSet = BasicIdSet<true>;
using BorrowedIdSet = BasicIdSet<false>;

}  // namespace pyparam::walk
