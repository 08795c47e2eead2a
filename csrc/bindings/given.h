// Tensors as Python gave them. Arguments of these types, and not at::Tensor, are what bindings take
// from users: torch's own conversion reads the memory of whatever passes isinstance().
#pragma once

#include <torch/csrc/utils/pybind.h>

#include <string>
#include <vector>

#include "article.h"
#include "walk/tensor.h"

namespace pyparam {

struct Given {
  at::Tensor tensor;
};
struct GivenList {
  std::vector<at::Tensor> tensors;
};

[[noreturn]] inline void no_tensor(pybind11::handle object, const std::string& what) {
  throw pybind11::type_error(what + " is no tensor but " +
                             with_article(Py_TYPE(object.ptr())->tp_name));
}

// Raises TypeError that calls an object by what `what()` gives, if it is no tensor.
template <typename What>
const at::Tensor& tensor_in(pybind11::handle object, const What& what) {
  if (!walk::is_tensor(object.ptr())) no_tensor(object, what());
  return THPVariable_Unpack(object.ptr());
}

}  // namespace pyparam

namespace pybind11::detail {

template <>
struct type_caster<pyparam::Given> {
  PYBIND11_TYPE_CASTER(pyparam::Given, const_name("torch.Tensor"));

  bool load(handle source, bool) {
    value.tensor = pyparam::tensor_in(source, [] { return "the argument"; });
    return true;
  }
};

template <>
struct type_caster<pyparam::GivenList> {
  PYBIND11_TYPE_CASTER(pyparam::GivenList, const_name("list[torch.Tensor]"));
  static constexpr size_t kAhead = 8;

  bool load(handle source, bool) {
    if (!PyList_Check(source.ptr())) return false;
    // Nothing here runs Python code, so the list stays as it is. The objects lie anywhere, and what
    // each refers to lies elsewhere again: both are asked for before they are read.
    PyObject* const* const items = PySequence_Fast_ITEMS(source.ptr());
    const auto size = static_cast<size_t>(PyList_GET_SIZE(source.ptr()));
    value.tensors.reserve(size);
    for (size_t i = 0; i < size; ++i) {
      if (i + 2 * kAhead < size) __builtin_prefetch(items[i + 2 * kAhead]);
      if (i + kAhead < size && pyparam::walk::is_tensor(items[i + kAhead])) {
        __builtin_prefetch(THPVariable_Unpack(items[i + kAhead]).unsafeGetTensorImpl());
      }
      value.tensors.push_back(
          pyparam::tensor_in(items[i], [&] { return "tensors[" + std::to_string(i) + "]"; }));
    }
    return true;
  }
};

}  // namespace pybind11::detail
