#include "walk/outline_module.h"

#include <string>
#include <unordered_map>
#include <vector>

#include "article.h"
#include "walk/items.h"
#include "walk/tensor.h"

namespace pyparam::walk {

namespace {

// Names and labels of Python as numbers of the outline's strings.
class Numbers {
 public:
  Numbers(Strings& strings, PyObject* type_label, PyObject* module_label)
      : strings_(strings), type_label_(type_label), module_label_(module_label) {}

  uint32_t of_name(PyObject* key) {
    const auto found = names_.find(key);
    if (found != names_.end()) return found->second;
    const uint32_t number = of_str(key, "name");
    kept_.push_back(Ref::borrow(key));  // so that no other name gets its address
    names_.emplace(key, number);
    return number;
  }

  uint32_t of_module(PyObject* module) {
    PyTypeObject* type = Py_TYPE(module);
    const auto [it, fresh] = labels_.try_emplace(type, -1);
    if (fresh) {
      kept_.push_back(Ref::borrow(reinterpret_cast<PyObject*>(type)));
      const Ref label =
          Ref::checked(PyObject_CallOneArg(type_label_, reinterpret_cast<PyObject*>(type)));
      if (label.get() != Py_None) it->second = of_str(label.get(), "type's label");
    }
    if (it->second >= 0) return static_cast<uint32_t>(it->second);
    const Ref label = Ref::checked(PyObject_CallOneArg(module_label_, module));
    return of_str(label.get(), "module's label");
  }

 private:
  uint32_t of_str(PyObject* text, const char* what) {
    if (!PyUnicode_Check(text)) {
      PyErr_Format(PyExc_TypeError, "a %s must be a str, got %R", what, text);
      throw PythonError{};
    }
    const Ref utf8 = Ref::checked(PyUnicode_AsEncodedString(text, "utf-8", "surrogatepass"));
    return strings_.number(
        {PyBytes_AS_STRING(utf8.get()), static_cast<size_t>(PyBytes_GET_SIZE(utf8.get()))});
  }

  Strings& strings_;
  PyObject *type_label_, *module_label_;
  std::unordered_map<PyObject*, uint32_t> names_;
  std::unordered_map<PyTypeObject*, int64_t> labels_;
  std::vector<Ref> kept_;
};

class Builder {
 public:
  Builder(PyObject* type_label, PyObject* module_label)
      : numbers_(outline_.strings(), type_label, module_label) {}

  Outline build(PyObject* root) {
    enter(outline_.strings().number(""), root);
    while (!frames_.empty()) {
      Ref key, child;
      if (!frames_.back().next(key, child)) {
        outline_.close();
        const Items done = std::move(frames_.back());  // dropped after the stack is whole again
        frames_.pop_back();
        continue;
      }
      if (child.get() == Py_None) continue;
      enter(numbers_.of_name(key.get()), child.get());
    }
    outline_.finish();
    return std::move(outline_);
  }

 private:
  void enter(uint32_t name, PyObject* module) {
    const uint32_t label = numbers_.of_module(module);
    const auto [it, fresh] = seen_.try_emplace(module, static_cast<int64_t>(outline_.size()));
    if (!fresh) {
      outline_.open(name, label, Py_TYPE(module), it->second);
      outline_.close();
      return;
    }
    kept_.push_back(Ref::borrow(module));
    outline_.open(name, label, Py_TYPE(module), -1);
    const ModuleView view(module);
    add_members(module, view, names().parameters, false);
    add_members(module, view, names().buffers, true);
    frames_.push_back(Items::of_mapping(view.attribute(names().modules)));
  }

  void add_members(PyObject* module, const ModuleView& view, PyObject* members, bool buffers) {
    Items items = Items::of_mapping(view.attribute(members));
    Ref key, value;
    while (items.next(key, value)) {
      if (value.get() == Py_None) continue;
      if (!is_tensor(value.get())) {
        PyErr_Format(PyExc_TypeError, "%R of %.200s is no tensor but %.200s", key.get(),
                     with_article(Py_TYPE(module)->tp_name).c_str(),
                     with_article(Py_TYPE(value.get())->tp_name).c_str());
        throw PythonError{};
      }
      outline_.add(numbers_.of_name(key.get()), THPVariable_Unpack(value.get()), buffers);
    }
  }

  Outline outline_;
  Numbers numbers_;
  std::vector<Items> frames_;
  std::unordered_map<PyObject*, int64_t> seen_;
  std::vector<Ref> kept_;  // no address is used again while seen_ knows it
};

}  // namespace

Outline outline_of_module(PyObject* module, PyObject* type_label, PyObject* module_label) {
  return Builder(type_label, module_label).build(module);
}

}  // namespace pyparam::walk
