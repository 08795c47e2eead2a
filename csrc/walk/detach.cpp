#include "walk/detach.h"

#include <ATen/PythonTorchFunctionTLS.h>
#include <c10/core/InferenceMode.h>
#include <c10/core/impl/LocalDispatchKeySet.h>
#include <c10/core/impl/TorchDispatchModeTLS.h>
#include <torch/csrc/autograd/python_variable.h>

#include "table/ordinary.h"

namespace pyparam::walk {

Detacher::Detacher() {
  native_ =
      !at::impl::torch_function_mode_enabled() && !c10::impl::TorchDispatchModeTLS::any_modes_set();
  const auto local = c10::impl::tls_local_dispatch_key_set();
  ordinary_ = native_ && !c10::InferenceMode::is_enabled() &&
              local.included_ == c10::default_included_set &&
              local.excluded_ == c10::default_excluded_set;
}

PyObject* Detacher::detach_plain(PyObject* object) const {
  if (!ordinary_ || !THPVariable_CheckExact(object)) return nullptr;
  c10::TensorImpl* impl = THPVariable_Unpack(object).unsafeGetTensorImpl();
  if (!is_ordinary(*impl) || impl->is_inference()) return nullptr;
  // What the dispatcher's detach comes to: the same storage and version counter, no autograd
  // history.
  return THPVariable_Wrap(at::Tensor(impl->shallow_copy_and_detach(
      impl->version_counter(), /*allow_tensor_metadata_change=*/false)));
}

PyObject* Detacher::detach(PyObject* object) const {
  if (PyObject* plain = detach_plain(object)) return plain;
  if (PyErr_Occurred() != nullptr || !native_ || !THPVariable_CheckExact(object)) return nullptr;
  const at::Tensor& tensor = THPVariable_Unpack(object);
  if (tensor.key_set().has(c10::DispatchKey::Python)) return nullptr;
  return THPVariable_Wrap(tensor.detach());
}

}  // namespace pyparam::walk
