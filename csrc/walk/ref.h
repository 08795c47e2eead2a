// Ownership of Python objects, and Python errors as C++ exceptions. The GIL is held wherever these
// are used.
#pragma once

#include <Python.h>

#include <utility>

namespace pyparam::walk {

// Thrown while a Python error is set; the boundary returns to the interpreter, which raises it.
struct PythonError {};

// An owned reference. `steal` takes over the one the caller has; `borrow` adds one.
class Ref {
 public:
  Ref() = default;
  static Ref steal(PyObject* object) { return Ref(object); }
  static Ref borrow(PyObject* object) { return Ref(Py_XNewRef(object)); }
  // The result of a C API call that returns a new reference, or null with an error set.
  static Ref checked(PyObject* object) {
    if (object == nullptr) throw PythonError{};
    return Ref(object);
  }

  Ref(Ref&& other) noexcept : object_(std::exchange(other.object_, nullptr)) {}
  Ref& operator=(Ref&& other) noexcept {
    // The old object goes last: its finaliser may run code that looks at this Ref.
    Ref old(std::exchange(object_, std::exchange(other.object_, nullptr)));
    return *this;
  }
  Ref(const Ref&) = delete;
  Ref& operator=(const Ref&) = delete;
  ~Ref() { Py_XDECREF(object_); }

  PyObject* get() const { return object_; }
  PyObject* release() { return std::exchange(object_, nullptr); }
  explicit operator bool() const { return object_ != nullptr; }

  int visit(visitproc visit, void* arg) const {
    return object_ == nullptr ? 0 : visit(object_, arg);
  }

 private:
  explicit Ref(PyObject* object) : object_(object) {}
  PyObject* object_ = nullptr;
};

// Calls fn, which returns a PyObject*, and turns exceptions into the C API's null.
PyObject* translate_exception();
template <typename Fn>
PyObject* guarded(const Fn& fn) {
  try {
    return fn();
  } catch (...) {
    return translate_exception();
  }
}

// A list that is filled from the front. `most` entries have their place from the beginning, and
// what is left of it goes at the end; meanwhile no Python code may see the list. Where their number
// is not known it is 0, and the list grows.
class ListFiller {
 public:
  explicit ListFiller(size_t most)
      : list_(Ref::checked(PyList_New(static_cast<Py_ssize_t>(most)))),
        most_(static_cast<Py_ssize_t>(most)) {}

  void add(Ref item) {
    if (filled_ < most_) {
      PyList_SET_ITEM(list_.get(), filled_++, item.release());
    } else if (PyList_Append(list_.get(), item.get()) < 0) {
      throw PythonError{};
    }
  }
  Ref finish() {
    if (filled_ < most_ && PyList_SetSlice(list_.get(), filled_, most_, nullptr) < 0)
      throw PythonError{};
    return std::move(list_);
  }

 private:
  Ref list_;
  Py_ssize_t most_, filled_ = 0;
};

// The garbage collector pauses while native code allocates many objects and runs no Python code.
// What it has to do is only put off: its counters go on, so it runs at the first allocation after
// this scope.
class GcPause {
 public:
  GcPause() : was_enabled_(PyGC_Disable() == 1) {}
  ~GcPause() {
    if (was_enabled_) PyGC_Enable();
  }
  GcPause(const GcPause&) = delete;
  GcPause& operator=(const GcPause&) = delete;

  // Lets the collector run as the user has it while `fn` calls Python code.
  template <typename Fn>
  auto resume(const Fn& fn) {
    struct Again {
      GcPause& pause;
      explicit Again(GcPause& p) : pause(p) {
        if (pause.was_enabled_) PyGC_Enable();
      }
      ~Again() { pause.was_enabled_ = PyGC_Disable() == 1; }
    } again(*this);
    return fn();
  }

 private:
  bool was_enabled_;
};

}  // namespace pyparam::walk
