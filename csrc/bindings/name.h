// Qualified names between Python and native code. A Python string may hold lone surrogates, which
// UTF-8 proper has no bytes for: "surrogatepass" gives them some, and takes them back as they were.
#pragma once

#include <torch/csrc/utils/pybind.h>

#include <string>
#include <string_view>
#include <utility>

#include "article.h"
#include "table/param_table.h"

namespace pyparam {

struct Name {
  std::string text;
};

inline pybind11::str str_of(std::string_view utf8) {
  PyObject* made =
      PyUnicode_DecodeUTF8(utf8.data(), static_cast<Py_ssize_t>(utf8.size()), "surrogatepass");
  if (made == nullptr) throw pybind11::error_already_set();
  return pybind11::reinterpret_steal<pybind11::str>(made);
}

}  // namespace pyparam

namespace pybind11::detail {

template <>
struct type_caster<pyparam::Name> {
  PYBIND11_TYPE_CASTER(pyparam::Name, const_name("str"));

  bool load(handle source, bool) {
    if (!PyUnicode_Check(source.ptr())) return false;
    Py_ssize_t size = 0;
    if (const char* bytes = PyUnicode_AsUTF8AndSize(source.ptr(), &size)) {
      value.text.assign(bytes, static_cast<size_t>(size));
      return true;
    }
    PyErr_Clear();
    const auto encoded = reinterpret_steal<pybind11::bytes>(
        PyUnicode_AsEncodedString(source.ptr(), "utf-8", "surrogatepass"));
    if (!encoded) throw error_already_set();
    value.text = std::string_view(encoded);
    return true;
  }

  static handle cast(const pyparam::Name& name, return_value_policy, handle) {
    return pyparam::str_of(name.text).release();
  }
};

}  // namespace pybind11::detail

namespace pyparam {

inline pybind11::list strings_of(const NameColumn& names) {
  pybind11::list out(names.size());
  NameColumn::Reader reader(names);
  for (size_t i = 0; i < names.size(); ++i) {
    PyList_SET_ITEM(out.ptr(), static_cast<Py_ssize_t>(i), str_of(reader[i]).release().ptr());
  }
  return out;
}

// Reads a name. Raises TypeError that begins with `what` for what is no str.
inline void require_name(const char* what, pybind11::handle name,
                         pybind11::detail::make_caster<Name>& into) {
  if (into.load(name, false)) return;
  throw pybind11::type_error(std::string(what) + ": names are str, and " +
                             pybind11::repr(name).cast<std::string>() + " is " +
                             with_article(Py_TYPE(name.ptr())->tp_name));
}

// Raises as require_name.
inline NameColumn name_column(const char* what, const pybind11::list& names) {
  NameColumn column;
  column.reserve(names.size());
  pybind11::detail::make_caster<Name> caster;
  for (const pybind11::handle name : names) {
    require_name(what, name, caster);
    column.append(static_cast<Name&>(caster).text);
  }
  return column;
}

}  // namespace pyparam
