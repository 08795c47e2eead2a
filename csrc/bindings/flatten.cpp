// flatten and its siblings for Python, over whole tables: ordinary CPU tensors go straight to the
// kernel, all others through the dispatcher. Neither holds the GIL.
#include "bindings/flatten.h"

#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/ops/zeros_like.h>
#include <c10/core/GradMode.h>
#include <torch/csrc/Exceptions.h>

#include <optional>
#include <tuple>

#include "article.h"
#include "bindings/given.h"
#include "bindings/held_table.h"
#include "bindings/uninitialized.h"
#include "kernels/alike.h"
#include "kernels/flatten.h"

namespace py = pybind11;

namespace pyparam {
namespace {

// A wrapper such as DTensor answers for its memory itself. Fake tensors have Meta kernels and pass.
void refuse_wrappers(const char* verb, const Subject& subject) {
  py::gil_scoped_acquire gil;
  const py::object fake = py::module_::import("torch._subclasses.fake_tensor").attr("FakeTensor");
  std::vector<size_t> empties;
  for (size_t i = 0; i < subject.size(); ++i) {
    const at::Tensor& tensor = subject.shape(i);
    if (!tensor.key_set().has(c10::DispatchKey::Python)) {
      // Autograd asks for sizes before any kernel could refuse it.
      if (tensor.is_nested()) require_strided(verb, subject, i);
      if (tensor.layout() == at::kStrided && !tensor.is_nested() && tensor.sym_numel() == 0)
        empties.push_back(i);
      continue;
    }
    const py::object object = py::cast(tensor);
    if (py::isinstance(object, fake)) continue;
    const auto name = py::cast<std::string>(py::type::of(object).attr("__name__"));
    TORCH_CHECK_TYPE(false, verb, ": ", subject.spoken(i), " is ", with_article(name),
                     ", a wrapper around other tensors; expected a plain tensor (",
                     name == "DTensor"
                         ? "full_tensor() gathers it, to_local() gives this rank's part"
                         : "take the tensors that it wraps",
                     ")");
  }
  if (!empties.empty()) refuse_uninitialized(verb, subject, empties);
}

at::Tensor flatten_subject(const Subject& subject, std::optional<at::ScalarType> dtype,
                           std::optional<at::Tensor> out) {
  const py::gil_scoped_release no_gil;
  const at::NoGradGuard no_grad;
  if (dispatch_is_plain()) {
    if (out.has_value()) {
      if (cpu::flatten_out(subject, dtype, *out, &refuse_uninitialized)) return *std::move(out);
    } else if (auto vector = cpu::flatten(subject, dtype, &refuse_uninitialized)) {
      return *std::move(vector);
    }
  }
  refuse_wrappers("flatten", subject);
  require_alike("flatten", subject, dtype.has_value());
  std::vector<at::Tensor> gradients;
  if (subject.grad) {
    gradients.reserve(subject.size());
    for (size_t i = 0; i < subject.size(); ++i) {
      gradients.push_back(subject[i].defined() ? subject[i] : at::zeros_like(subject.tensors[i]));
    }
  }
  const at::TensorList tensors = subject.grad ? at::TensorList(gradients) : subject.tensors;
  if (!out.has_value()) return flatten(tensors, dtype);
  flatten_out(tensors, dtype, *out);
  return *std::move(out);
}

at::Tensor flatten_table(const ParamTable& table, bool grad, bool zeros,
                         std::optional<at::ScalarType> dtype, std::optional<Given> out) {
  std::optional<at::Tensor> into;
  if (out.has_value()) into = std::move(out->tensor);
  return flatten_subject({table.tensors, grad, zeros}, dtype, std::move(into));
}

using Group = std::tuple<at::Device, at::ScalarType, at::Tensor>;

std::vector<Group> flatten_groups(const ParamTable& table) {
  struct Members {
    at::Device device;
    at::ScalarType dtype;
    std::vector<at::Tensor> tensors;
    std::vector<int64_t> labels;
  };
  std::vector<Members> groups;
  const Subject all{table.tensors};
  for (size_t i = 0; i < table.size(); ++i) {
    require_strided("flatten_groups", all, i);
    const at::Tensor& tensor = table.tensors[i];
    auto group = std::find_if(groups.begin(), groups.end(), [&](const Members& members) {
      return members.dtype == tensor.scalar_type() && members.device == tensor.device();
    });
    if (group == groups.end())
      group = groups.insert(groups.end(), {tensor.device(), tensor.scalar_type(), {}, {}});
    group->tensors.push_back(tensor);
    group->labels.push_back(static_cast<int64_t>(i));
  }
  std::vector<Group> vectors;
  for (const Members& members : groups) {
    const Subject subject{members.tensors, false, false, &members.labels};
    vectors.emplace_back(members.device, members.dtype,
                         flatten_subject(subject, std::nullopt, std::nullopt));
  }
  return vectors;
}

// Through the dispatcher where autograd is to see it.
at::Tensor to_vector(at::TensorList tensors) {
  const py::gil_scoped_release no_gil;
  if (!c10::GradMode::is_enabled() && dispatch_is_plain()) {
    if (auto vector = cpu::flatten({tensors}, std::nullopt, &refuse_uninitialized))
      return *std::move(vector);
  }
  refuse_wrappers("parameters_to_vector", {tensors});
  return flatten(tensors, std::nullopt);
}

void from_vector(at::TensorList tensors, const at::Tensor& vector) {
  const py::gil_scoped_release no_gil;
  const at::NoGradGuard no_grad;
  if (dispatch_is_plain() && cpu::scatter_({tensors}, vector, &refuse_uninitialized)) return;
  refuse_wrappers("scatter_", {tensors});
  scatter_(tensors, vector);
}

at::Tensor parameters_to_vector_table(const ParamTable& table) { return to_vector(table.tensors); }
at::Tensor parameters_to_vector_list(const GivenList& given) { return to_vector(given.tensors); }
void scatter_table(const ParamTable& table, const Given& vector) {
  from_vector(table.tensors, vector.tensor);
}
void scatter_list(const GivenList& given, const Given& vector) {
  from_vector(given.tensors, vector.tensor);
}

std::vector<at::Tensor> unflatten_table(const ParamTable& table, const Given& vector) {
  const py::gil_scoped_release no_gil;
  refuse_wrappers("unflatten", {table.tensors});
  return unflatten(vector.tensor, table.tensors);
}

}  // namespace

void bind_flatten(py::module_& m) {
  m.def("flatten", torch::wrap_pybind_function(flatten_table), py::arg("table"), py::arg("grad"),
        py::arg("zeros"), py::arg("dtype"), py::arg("out"));
  m.def("flatten_groups", torch::wrap_pybind_function(flatten_groups), py::arg("table"));
  m.def("parameters_to_vector", torch::wrap_pybind_function(parameters_to_vector_table),
        py::arg("table"));
  m.def("parameters_to_vector", torch::wrap_pybind_function(parameters_to_vector_list),
        py::arg("tensors"));
  m.def("scatter_", torch::wrap_pybind_function(scatter_table), py::arg("table"),
        py::arg("vector"));
  m.def("scatter_", torch::wrap_pybind_function(scatter_list), py::arg("tensors"),
        py::arg("vector"));
  m.def("unflatten", torch::wrap_pybind_function(unflatten_table), py::arg("table"),
        py::arg("vector"));
}

}  // namespace pyparam
