// What is to be loaded, by name: a state dict's values, or a table's tensors.
#pragma once

#include <torch/csrc/autograd/python_variable.h>

#include <functional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "table/param_table.h"
#include "walk/path.h"
#include "walk/ref.h"

namespace pyparam::walk {

// The value of a name.
struct FoundValue {
  PyObject* object = nullptr;          // borrowed; null in a table, which has none
  const at::Tensor* tensor = nullptr;  // null for an object that is no plain tensor
  bool is_there = false;
};

// A state dict's values by name. Most state dicts have the model's own order: the next entry is
// looked at before the name is made and hashed.
class DictState {
 public:
  explicit DictState(PyObject* state) : state_(state) { advance(); }

  FoundValue find(Path& path, PyObject* key) {
    PyObject* found = nullptr;
    if (key_ != nullptr && is_joined(key_, path.view(), key)) {
      found = value_;
      advance();
    } else {
      found = look_up(path, key);
    }
    if (found == nullptr) return {};
    return {found, THPVariable_CheckExact(found) ? &THPVariable_Unpack(found) : nullptr, true};
  }
  bool has(Path& path, PyObject* key) const { return look_up(path, key) != nullptr; }
  Py_ssize_t size() const { return PyDict_GET_SIZE(state_); }
  PyObject* dict() const { return state_; }

 private:
  void advance() {
    if (PyDict_Next(state_, &position_, &key_, &value_) == 0) key_ = value_ = nullptr;
  }

  PyObject* look_up(Path& path, PyObject* key) const {
    const Ref name = path.joined(key);
    PyObject* found = PyDict_GetItemWithError(state_, name.get());
    if (found == nullptr && PyErr_Occurred() != nullptr) throw PythonError{};
    return found;
  }

  static bool is_joined(PyObject* whole, std::string_view path, PyObject* key) {
    if (!PyUnicode_IS_COMPACT_ASCII(whole) || !PyUnicode_IS_COMPACT_ASCII(key)) return false;
    const auto view = [](PyObject* text) {
      return std::string_view(reinterpret_cast<const char*>(PyUnicode_1BYTE_DATA(text)),
                              static_cast<size_t>(PyUnicode_GET_LENGTH(text)));
    };
    const std::string_view name = view(whole), end = view(key);
    return name.size() == path.size() + end.size() && name.substr(path.size()) == end &&
           name.substr(0, path.size()) == path;
  }

  PyObject* state_;
  Py_ssize_t position_ = 0;
  PyObject *key_ = nullptr, *value_ = nullptr;
};

// A table's, for whose tensors no Python objects are made. Its names must differ. Most tables have
// the model's own order, or that of their names: only where the next row is another one are the
// names hashed.
class TableState {
 public:
  explicit TableState(const ParamTable& table) : table_(table), found_(table.size(), false) {}

  FoundValue find(Path& path, PyObject* key) {
    spell(path, key);
    size_t row = next_;
    if (row >= table_.size() || !is_name(row)) row = look_up();
    if (row == kNone) return {};
    next_ = row + 1;
    found_[row] = true;
    return {nullptr, &table_.tensors[row], true};
  }
  bool has(Path& path, PyObject* key) {
    spell(path, key);
    return look_up() != kNone;
  }
  Py_ssize_t size() const { return static_cast<Py_ssize_t>(table_.size()); }

  std::vector<std::string> not_found() const {
    std::vector<std::string> names;
    for (size_t i = 0; i < found_.size(); ++i) {
      if (!found_[i]) names.push_back(table_.names[i]);
    }
    return names;
  }

 private:
  static constexpr size_t kNone = ~size_t{0};

  void spell(Path& path, PyObject* key) {
    const size_t length = path.size();
    path.append_str(key);
    name_ = path.view();
    path.truncate(length);
  }

  bool is_name(size_t row) {
    const size_t length = table_.names.length(row);
    if (length != name_.size()) return false;
    other_.resize(length);
    table_.names.write(row, other_.data());
    return other_ == name_;
  }

  size_t look_up() {
    if (rows_.empty()) hash_names();
    return rows_[slot_of_name()];
  }

  void hash_names() {
    size_t slots = 8;
    while (slots < 2 * table_.size()) slots *= 2;
    rows_.assign(slots, kNone);
    name_.swap(asked_);
    for (size_t row = 0; row < table_.size(); ++row) {
      name_.resize(table_.names.length(row));
      table_.names.write(row, name_.data());
      rows_[slot_of_name()] = row;
    }
    name_.swap(asked_);
  }

  // Where the row of the name is, or would be.
  size_t slot_of_name() {
    const size_t mask = rows_.size() - 1;
    size_t slot = std::hash<std::string>()(name_) & mask;
    while (rows_[slot] != kNone && !is_name(rows_[slot])) slot = (slot + 1) & mask;
    return slot;
  }

  const ParamTable& table_;
  std::vector<bool> found_;
  size_t next_ = 0;           // the row behind the one that was found last
  std::vector<size_t> rows_;  // by hash, at most half full; empty until they are needed
  std::string name_, other_, asked_;
};

}  // namespace pyparam::walk
