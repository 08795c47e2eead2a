// Tensors as Python gave them. Arguments of these types, and not at::Tensor, are what bindings take
// from users: torch's own conversion reads the memory of whatever passes isinstance().
#pragma once

#include <vector>

#include "bindings/loan.h"

namespace pyparam {

struct Given {
  at::Tensor tensor;
};
// A list's, for the length of the call.
struct GivenList {
  std::vector<at::Tensor> tensors;
  Loan loan{tensors};
};

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
  static constexpr auto name = const_name("list[torch.Tensor]");
  template <typename>
  using cast_op_type = const pyparam::GivenList&;
  operator const pyparam::GivenList&() const { return value_; }

  bool load(handle source, bool) {
    if (!PyList_Check(source.ptr())) return false;
    value_.loan.take(source.ptr());
    return true;
  }

 private:
  pyparam::GivenList value_;
};

}  // namespace pybind11::detail
