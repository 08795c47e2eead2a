#include "walk/local_parts.h"

#include <string>
#include <unordered_map>

#include "walk/tensor.h"

namespace pyparam::walk {
namespace {

Ref attribute(PyObject* object, const char* name) {
  return Ref::checked(PyObject_GetAttrString(object, name));
}

// What tells a layout apart from others, as bytes.
class Key {
 public:
  void clear() { bytes_.clear(); }
  template <typename Word>
  void add(Word word) {
    bytes_.append(reinterpret_cast<const char*>(&word), sizeof(word));
  }
  // With their number, so that what follows is not taken for one of them.
  void add_sizes(at::IntArrayRef sizes) {
    add(sizes.size());
    bytes_.append(reinterpret_cast<const char*>(sizes.data()), sizes.size() * sizeof(int64_t));
  }
  const std::string& bytes() const { return bytes_; }

 private:
  std::string bytes_;
};

bool has_sizes(const at::Tensor& tensor) {
  return !tensor.is_nested() && !tensor.unsafeGetTensorImpl()->has_symbolic_sizes_strides();
}

class Divider {
 public:
  Divider(PyObject* dtensor, PyObject* dims, PyObject* local_of)
      : dtensor_(dtensor),
        dims_(dims),
        local_of_(local_of),
        placements_(Ref::checked(PyDict_New())) {}

  // Appends what tells the row's kind; what of it lies here.
  Ref divide(const at::Tensor& tensor, Key& key) {
    Ref object = Ref::checked(THPVariable_Wrap(tensor));
    if (dtensor_ != Py_None &&
        tensor.unsafeGetTensorImpl()->key_set().has(c10::DispatchKey::Python)) {
      const int is_part = PyObject_IsInstance(object.get(), dtensor_);
      if (is_part < 0) throw PythonError{};
      if (is_part != 0) return part(object.get(), tensor, key);
    }
    key.add('w');
    add_layout(tensor, key);
    return object;
  }

 private:
  static void add_layout(const at::Tensor& tensor, Key& key) {
    key.add(tensor.unsafeGetTensorImpl()->key_set().raw_repr());
    key.add(tensor.scalar_type());
    key.add(tensor.device().type());
    key.add(tensor.device().index());
    if (has_sizes(tensor)) key.add_sizes(tensor.sizes());
  }

  Ref part(PyObject* object, const at::Tensor& tensor, Key& key) {
    const Ref spec = attribute(object, "_spec");
    const Ref mesh = attribute(spec.get(), "mesh");
    const Ref placements = attribute(spec.get(), "placements");
    Ref local = local_tensor(object);
    key.add('p');
    key.add(mesh.get());
    add_layout(tensor, key);
    add_layout(THPVariable_Unpack(local.get()), key);
    const Ref listed = Ref::checked(PySequence_Fast(placements.get(), "placements"));
    for (Py_ssize_t i = 0; i < PySequence_Fast_GET_SIZE(listed.get()); ++i) {
      add_placement(PySequence_Fast_GET_ITEM(listed.get(), i), key);
    }
    return local;
  }

  Ref local_tensor(PyObject* object) {
    Ref held = Ref::steal(PyObject_GetAttrString(object, "_local_tensor"));
    if (!held) PyErr_Clear();  // PyTorch keeps it otherwise
    if (held && is_tensor(held.get())) {
      const at::Tensor& found = THPVariable_Unpack(held.get());
      if (!found.unsafeGetTensorImpl()->key_set().has(c10::DispatchKey::Python)) return held;
    }
    // It may be on its way, or a wrapper.
    held = Ref::checked(PyObject_CallOneArg(local_of_, object));
    if (!is_tensor(held.get())) {
      PyErr_SetString(PyExc_TypeError, "the local tensor of a DTensor is no tensor");
      throw PythonError{};
    }
    return held;
  }

  void add_placement(PyObject* placement, Key& key) {
    auto* kind = reinterpret_cast<PyObject*>(Py_TYPE(placement));
    PyObject* by_dim = PyDict_GetItemWithError(dims_, kind);
    if (by_dim == nullptr && PyErr_Occurred() != nullptr) throw PythonError{};
    if (by_dim == nullptr) {
      key.add('h');
      key.add(number_of(placement));
      return;
    }
    key.add('d');
    key.add(kind);
    if (by_dim != Py_True) return;
    const Ref dim = attribute(placement, "dim");
    const int64_t value = PyLong_AsLongLong(dim.get());
    if (value == -1 && PyErr_Occurred() != nullptr) throw PythonError{};
    key.add(value);
  }

  // Equal placements have one number.
  int64_t number_of(PyObject* placement) {
    const Ref next = Ref::checked(PyLong_FromSsize_t(PyDict_Size(placements_.get())));
    PyObject* number = PyDict_SetDefault(placements_.get(), placement, next.get());
    if (number == nullptr) throw PythonError{};
    return PyLong_AsLongLong(number);
  }

  PyObject* dtensor_;
  PyObject* dims_;
  PyObject* local_of_;
  Ref placements_;
};

}  // namespace

LocalParts local_parts(const ParamTable& table, PyObject* dtensor, PyObject* dims,
                       PyObject* local_of) {
  LocalParts out;
  ListFiller locals(table.size());
  out.kind_of.reserve(table.size());
  Divider divider(dtensor, dims, local_of);
  std::unordered_map<std::string, int64_t> known;
  Key key;
  for (size_t i = 0; i < table.size(); ++i) {
    key.clear();
    locals.add(divider.divide(table.tensors[i], key));
    const auto [entry, fresh] =
        known.try_emplace(key.bytes(), static_cast<int64_t>(out.first.size()));
    if (fresh) out.first.push_back(static_cast<int64_t>(i));
    out.kind_of.push_back(entry->second);
  }
  out.locals = locals.finish();
  return out;
}

}  // namespace pyparam::walk
