// The rows that CUDA kernels get, made over CPU tensors: the tests run the kernels' bodies on them.
#include "kernels/device_table.h"

#include <ATen/ops/empty.h>
#include <torch/csrc/Exceptions.h>
#include <torch/csrc/utils/pybind.h>

#include "bindings/given.h"
#include "kernels/memory_spans.h"

namespace py = pybind11;

namespace pyparam {
namespace {

// (bytes, view, elements): the rows, and the five numbers of a TableView over them.
py::tuple device_table(const std::string& verb, const GivenList& given, int64_t chunk_elements) {
  DeviceTable table(verb.c_str(), given.tensors, chunk_elements);
  ColumnLayout layout;
  table.add_to(layout);
  at::Tensor bytes = at::empty({layout.bytes()}, at::kByte);
  auto* to = static_cast<char*>(bytes.mutable_data_ptr());
  table.write(to);
  const TableView view = table.view(to);
  const auto address = [](const void* at) { return reinterpret_cast<uintptr_t>(at); };
  return py::make_tuple(bytes,
                        py::make_tuple(address(view.tensors), address(view.extents),
                                       address(view.chunks), view.tensor_count, view.chunk_count),
                        table.numel());
}

// How many tensors each piece of a list has, where no two of a piece share memory.
std::vector<size_t> pieces_of(const GivenList& given) {
  std::vector<size_t> sizes;
  for (const at::TensorList piece : pieces_apart(given.tensors)) sizes.push_back(piece.size());
  return sizes;
}

}  // namespace

void bind_device_table(py::module_& m) {
#if defined(PYPARAM_CUDA)
  m.attr("BUILT_FOR_CUDA") = true;
#else
  m.attr("BUILT_FOR_CUDA") = false;
#endif
  m.def("device_table", torch::wrap_pybind_function(device_table), py::arg("verb"),
        py::arg("tensors"), py::arg("chunk_elements"));
  m.def("pieces_apart", torch::wrap_pybind_function(pieces_of), py::arg("tensors"));
}

}  // namespace pyparam
