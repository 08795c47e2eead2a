#include "walk/str_dict.h"

#include <array>
#include <cstddef>

namespace pyparam::walk {

namespace layout {

bool known = false;

}  // namespace layout

namespace {

#if PYPARAM_KNOWS_DICTS

using layout::Entry;
using layout::Keys;

Py_ssize_t index_at(const Keys* keys, size_t slot) {
  const char* indices = keys->indices;
  switch (keys->log2_index_bytes - keys->log2_size) {
    case 0:
      return reinterpret_cast<const int8_t*>(indices)[slot];
    case 1:
      return reinterpret_cast<const int16_t*>(indices)[slot];
    case 2:
      return reinterpret_cast<const int32_t*>(indices)[slot];
    default:
      return static_cast<Py_ssize_t>(reinterpret_cast<const int64_t*>(indices)[slot]);
  }
}

// The number of the entry with this key; -1 where there is none. CPython's probing.
Py_ssize_t probe(const Keys* keys, PyObject* name) {
  const Py_hash_t hash = reinterpret_cast<PyASCIIObject*>(name)->hash;  // known: it is interned
  const Entry* entries = layout::entries_of(keys);
  const size_t mask = (size_t{1} << keys->log2_size) - 1;
  auto perturb = static_cast<size_t>(hash);
  for (size_t slot = perturb & mask;; slot = (slot * 5 + perturb + 1) & mask) {
    const Py_ssize_t found = index_at(keys, slot);
    if (found == -1) return -1;  // an empty slot; -2 is one whose entry is gone
    if (found >= 0) {
      PyObject* key = entries[found].key;
      if (key == name || (reinterpret_cast<PyASCIIObject*>(key)->hash == hash &&
                          PyUnicode_Compare(key, name) == 0)) {
        return found;
      }
    }
    perturb >>= 5;
  }
}

PyObject* value_at(PyObject* dict, Py_ssize_t entry) {
  const Keys* keys = layout::keys_of(dict);
  return keys->kind == layout::kSplit ? layout::values_of(dict)[entry]
                                      : layout::entries_of(keys)[entry].value;
}

#endif

PyObject* find_by_api(PyObject* dict, PyObject* name) {
  PyObject* found = PyDict_GetItemWithError(dict, name);
  if (found == nullptr && PyErr_Occurred() != nullptr) throw PythonError{};
  return found;
}

}  // namespace

bool every_key_is_str(PyObject* dict) {
  Py_ssize_t position = 0;
  PyObject *key = nullptr, *value = nullptr;
  while (PyDict_Next(dict, &position, &key, &value)) {
    if (!PyUnicode_CheckExact(key)) return false;
  }
  return true;
}

PyObject* find_str(PyObject* dict, PyObject* name) {
#if PYPARAM_KNOWS_DICTS
  if (layout::known) {
    const Py_ssize_t entry = probe(layout::keys_of(dict), name);
    return entry < 0 ? nullptr : value_at(dict, entry);
  }
#endif
  return find_by_api(dict, name);
}

PyObject* NameHint::find_slowly([[maybe_unused]] PyObject* dict, [[maybe_unused]] PyObject* name) {
#if PYPARAM_KNOWS_DICTS
  const Py_ssize_t entry = probe(layout::keys_of(dict), name);
  if (entry < 0) return nullptr;
  at_ = entry;
  return value_at(dict, entry);
#else
  return nullptr;
#endif
}

bool shared_keys_have([[maybe_unused]] const void* keys, [[maybe_unused]] PyObject* name) {
#if PYPARAM_KNOWS_DICTS
  return probe(static_cast<const Keys*>(keys), name) >= 0;
#else
  return true;
#endif
}

bool holds_strs(PyObject* set) {
  const auto* table = reinterpret_cast<PySetObject*>(set);
  Py_ssize_t left = table->used;
  for (Py_ssize_t i = 0; left > 0 && i <= table->mask; ++i) {
    const setentry& entry = table->table[i];
    if (entry.key == nullptr || entry.hash == -1) continue;  // empty, or a deleted entry's place
    if (!PyUnicode_CheckExact(entry.key)) return false;
    --left;
  }
  return true;
}

void check_dict_layout() {
#if PYPARAM_KNOWS_DICTS
  constexpr int kNames = 300;  // past the sizes at which the hash table's numbers widen
  std::array<Ref, kNames> names;
  for (int i = 0; i < kNames; ++i) {
    names[i] = Ref::checked(PyUnicode_FromFormat("name_%d", i));
    PyObject* interned = names[i].release();
    PyUnicode_InternInPlace(&interned);
    names[i] = Ref::steal(interned);
  }
  const auto agrees = [&](PyObject* dict) {
    if (layout::keys_of(dict)->kind == layout::kGeneral) return false;
    for (const Ref& name : names) {
      const Py_ssize_t entry = probe(layout::keys_of(dict), name.get());
      if ((entry < 0 ? nullptr : value_at(dict, entry)) != find_by_api(dict, name.get()))
        return false;
    }
    Py_ssize_t position = 0, different = 0;
    layout::known = true;  // for_each_entry is to believe it
    for_each_entry(dict, [&](PyObject* key, PyObject* value) {
      PyObject *next = nullptr, *of_next = nullptr;
      const int more = PyDict_Next(dict, &position, &next, &of_next);
      different += more == 0 || next != key || of_next != value ? 1 : 0;
    });
    layout::known = false;
    PyObject *next = nullptr, *of_next = nullptr;
    return different == 0 && PyDict_Next(dict, &position, &next, &of_next) == 0;
  };
  bool same = true;
  const Ref combined = Ref::checked(PyDict_New());
  for (int i = 0; i < kNames && same; ++i) {
    if (PyDict_SetItem(combined.get(), names[i].get(), names[kNames - 1 - i].get()) < 0)
      throw PythonError{};
    if (i % 7 == 3 && PyDict_DelItem(combined.get(), names[i - 1].get()) < 0) throw PythonError{};
    same = i % 16 != 0 || agrees(combined.get());
  }
  same = same && agrees(combined.get());
  // Instances of one class share their keys.
  const Ref type = Ref::checked(
      PyObject_CallFunction(reinterpret_cast<PyObject*>(&PyType_Type), "s(){}", "SharesItsKeys"));
  for (int round = 0; round < 3 && same; ++round) {
    const Ref instance = Ref::checked(PyObject_CallNoArgs(type.get()));
    for (int i = 0; i < 6; ++i) {
      if (PyObject_SetAttr(instance.get(), names[(i + round) % 6].get(), names[i].get()) < 0)
        throw PythonError{};
    }
    const Ref dict = Ref::checked(PyObject_GenericGetDict(instance.get(), nullptr));
    same = agrees(dict.get());
  }
  const Ref general = Ref::checked(PyDict_New());
  if (PyDict_SetItem(general.get(), Py_None, Py_None) < 0) throw PythonError{};
  same = same && layout::keys_of(general.get())->kind == layout::kGeneral;
  layout::known = same;
#endif
}

}  // namespace pyparam::walk
