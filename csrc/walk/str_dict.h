// Look-ups in dicts and sets whose keys are all exact strs, without running Python code: what the
// bulk walk may do while it holds nothing but borrowed pointers.
//
// A look-up through CPython compares keys by their own `__eq__`, and a key of a subclass of str may
// have one. Here it is seen beforehand, from the kind of the key table, that there is none. The
// layout of key tables is CPython's own affair: it is mirrored for the versions known here, checked
// once on dicts made for it, and where it is not as expected all goes through the public API
// instead, key by key: slower, and as safe.
#pragma once

#include <cstdint>

#include "walk/ref.h"

namespace pyparam::walk {

namespace layout {

#if PY_VERSION_HEX >= 0x030B0000 && PY_VERSION_HEX < 0x030F0000 && !defined(Py_GIL_DISABLED) && \
    !defined(PYPARAM_PUBLIC_DICT_API)
#define PYPARAM_KNOWS_DICTS 1
#else
#define PYPARAM_KNOWS_DICTS 0
#endif

// PyDictKeysObject of CPython 3.11 to 3.14 (Include/internal/pycore_dict.h).
struct Keys {
  Py_ssize_t refcnt;
  uint8_t log2_size, log2_index_bytes, kind;
  uint32_t version;
  Py_ssize_t usable, entries;
  char indices[8];  // at the least
};
enum : uint8_t { kGeneral = 0, kUnicode = 1, kSplit = 2 };

struct Entry {  // of a table of strs
  PyObject *key, *value;
};

inline const Keys* keys_of(PyObject* dict) {
  return reinterpret_cast<const Keys*>(reinterpret_cast<PyDictObject*>(dict)->ma_keys);
}
inline const Entry* entries_of(const Keys* keys) {
  return reinterpret_cast<const Entry*>(keys->indices + (size_t{1} << keys->log2_index_bytes));
}
inline PyObject* const* values_of(PyObject* dict) {
  const char* values =
      reinterpret_cast<const char*>(reinterpret_cast<PyDictObject*>(dict)->ma_values);
#if PY_VERSION_HEX >= 0x030D0000
  values += sizeof(PyObject*);  // four bytes of its own, padded
#endif
  return reinterpret_cast<PyObject* const*>(values);
}

// Whether dicts of this interpreter are as the structures above say; found out by `check`.
extern bool known;

}  // namespace layout

// Compares the mirrored layout with what the public API says; call once, at the import.
void check_dict_layout();

bool every_key_is_str(PyObject* dict);  // by the public API

// Whether look-ups in `dict` run no Python code: its keys are all exact strs.
inline bool has_str_keys(PyObject* dict) {
#if PYPARAM_KNOWS_DICTS
  if (layout::known) return layout::keys_of(dict)->kind != layout::kGeneral;
#endif
  return every_key_is_str(dict);
}

// Calls fn(key, value) with each entry, in order. Needs has_str_keys, and that fn changes no dict.
template <typename Fn>
void for_each_entry(PyObject* dict, const Fn& fn) {
#if PYPARAM_KNOWS_DICTS
  if (layout::known && layout::keys_of(dict)->kind == layout::kUnicode) {
    const layout::Keys* keys = layout::keys_of(dict);
    const layout::Entry* entry = layout::entries_of(keys);
    for (const layout::Entry* end = entry + keys->entries; entry != end; ++entry) {
      if (entry->value != nullptr) fn(entry->key, entry->value);  // null where it was deleted
    }
    return;
  }
#endif
  Py_ssize_t position = 0;
  PyObject *key = nullptr, *value = nullptr;
  while (PyDict_Next(dict, &position, &key, &value)) fn(key, value);
}

// The value under the interned str `name`, borrowed; null where there is none. Needs has_str_keys.
PyObject* find_str(PyObject* dict, PyObject* name);

// The table of keys that a dict shares with those of other instances; null where it has its own.
// While nothing runs that could change a dict, it is the same table at the same address.
inline const void* shared_keys([[maybe_unused]] PyObject* dict) {
#if PYPARAM_KNOWS_DICTS
  if (layout::known && layout::keys_of(dict)->kind == layout::kSplit) return layout::keys_of(dict);
#endif
  return nullptr;
}

// Whether an interned name is among shared keys: where it is not, no dict that shares them has it.
bool shared_keys_have(const void* keys, PyObject* name);

// Where an interned name stands in tables of keys that many dicts share (instances of one class),
// or that were filled in one order: a guess that is verified before it is believed.
class NameHint {
 public:
  PyObject* find(PyObject* dict, PyObject* name) {
#if PYPARAM_KNOWS_DICTS
    if (layout::known) {
      const layout::Keys* keys = layout::keys_of(dict);
      if (at_ < keys->entries) {
        const layout::Entry& entry = layout::entries_of(keys)[at_];
        if (entry.key == name)
          return keys->kind == layout::kSplit ? layout::values_of(dict)[at_] : entry.value;
      }
      return find_slowly(dict, name);
    }
#endif
    return find_str(dict, name);
  }

 private:
  PyObject* find_slowly(PyObject* dict, PyObject* name);
  Py_ssize_t at_ = 0;
};

// Whether the exact set holds nothing but exact strs, so that membership runs no Python code.
bool holds_strs(PyObject* set);

}  // namespace pyparam::walk
