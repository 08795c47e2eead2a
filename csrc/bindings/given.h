// Tensors as Python gave them. Arguments of these types, and not at::Tensor, are what bindings take
// from users: torch's own conversion reads the memory of whatever passes isinstance().
#pragma once

#include <torch/csrc/utils/pybind.h>

#include <string>
#include <vector>

#include "walk/tensor.h"

namespace pyparam {

struct Given {
  at::Tensor tensor;
};
struct GivenList {
  std::vector<at::Tensor> tensors;
};

// Raises TypeError that names `what` for an object that is no tensor.
inline const at::Tensor& tensor_in(pybind11::handle object, const std::string& what) {
  if (!walk::is_tensor(object.ptr())) {
    throw pybind11::type_error(what + " is no tensor but a " + Py_TYPE(object.ptr())->tp_name);
  }
  return THPVariable_Unpack(object.ptr());
}

}  // namespace pyparam

namespace pybind11::detail {

template <>
struct type_caster<pyparam::Given> {
  PYBIND11_TYPE_CASTER(pyparam::Given, const_name("torch.Tensor"));

  bool load(handle source, bool) {
    value.tensor = pyparam::tensor_in(source, "the argument");
    return true;
  }
};

template <>
struct type_caster<pyparam::GivenList> {
  PYBIND11_TYPE_CASTER(pyparam::GivenList, const_name("list[torch.Tensor]"));

  bool load(handle source, bool) {
    if (!PyList_Check(source.ptr())) return false;
    const auto list = reinterpret_borrow<pybind11::list>(source);
    value.tensors.reserve(list.size());
    for (size_t i = 0; i < list.size(); ++i) {
      value.tensors.push_back(pyparam::tensor_in(list[i], "tensors[" + std::to_string(i) + "]"));
    }
    return true;
  }
};

}  // namespace pybind11::detail
