#include "walk/iterators.h"

#include <new>

#include "walk/member_walker.h"

namespace pyparam::walk {

namespace {

template <typename Walker>
struct Iterator {
  PyObject_HEAD
  Walker walker;
  bool named;
  bool running;
};

using MemberIterator = Iterator<MemberWalker>;
using ModuleIterator = Iterator<ModuleWalker>;

PyTypeObject* member_iterator_type = nullptr;
PyTypeObject* module_iterator_type = nullptr;

Ref pair(Ref name, PyObject* value) {
  Ref made = Ref::checked(PyTuple_New(2));
  PyTuple_SET_ITEM(made.get(), 0, name.release());
  PyTuple_SET_ITEM(made.get(), 1, Py_NewRef(value));
  return made;
}

Ref item(MemberWalker& walker, bool named) {
  if (!named) return Ref::borrow(walker.value());
  return pair(walker.path().joined(walker.key()), walker.value());
}

Ref item(ModuleWalker& walker, bool named) {
  if (!named) return Ref::borrow(walker.module());
  return pair(walker.path().str(), walker.module());
}

// A class's own named_modules may ask this very iterator for its next item while it is being asked.
class Running {
 public:
  explicit Running(bool& flag) : flag_(flag) {
    if (flag_) {
      PyErr_SetString(PyExc_ValueError, "generator already executing");
      throw PythonError{};
    }
    flag_ = true;
  }
  ~Running() { flag_ = false; }
  Running(const Running&) = delete;
  Running& operator=(const Running&) = delete;

 private:
  bool& flag_;
};

template <typename Walker>
PyObject* next(PyObject* self) {
  auto* iterator = reinterpret_cast<Iterator<Walker>*>(self);
  return guarded([&]() -> PyObject* {
    const Running running(iterator->running);
    return iterator->walker.next() ? item(iterator->walker, iterator->named).release() : nullptr;
  });
}

template <typename Walker>
int traverse(PyObject* self, visitproc visit, void* arg) {
  Py_VISIT(Py_TYPE(self));
  return reinterpret_cast<Iterator<Walker>*>(self)->walker.visit(visit, arg);
}

template <typename Walker>
int clear(PyObject* self) {
  reinterpret_cast<Iterator<Walker>*>(self)->walker.clear();
  return 0;
}

template <typename Walker>
void dealloc(PyObject* self) {
  PyTypeObject* type = Py_TYPE(self);
  PyObject_GC_UnTrack(self);
  reinterpret_cast<Iterator<Walker>*>(self)->walker.~Walker();
  type->tp_free(self);
  Py_DECREF(type);
}

template <typename Walker>
PyTypeObject* create_type(PyObject* extension, const char* name, const char* doc) {
  PyType_Slot slots[] = {
      {Py_tp_doc, const_cast<char*>(doc)},
      {Py_tp_iter, reinterpret_cast<void*>(PyObject_SelfIter)},
      {Py_tp_iternext, reinterpret_cast<void*>(next<Walker>)},
      {Py_tp_traverse, reinterpret_cast<void*>(traverse<Walker>)},
      {Py_tp_clear, reinterpret_cast<void*>(clear<Walker>)},
      {Py_tp_dealloc, reinterpret_cast<void*>(dealloc<Walker>)},
      {0, nullptr},
  };
  PyType_Spec spec{name, sizeof(Iterator<Walker>), 0,
                   Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION, slots};
  Ref type = Ref::checked(PyType_FromSpec(&spec));
  const char* attribute = std::char_traits<char>::find(name, std::char_traits<char>::length(name), 'C') + 2;
  if (PyObject_SetAttrString(extension, attribute, type.get()) < 0) throw PythonError{};
  return reinterpret_cast<PyTypeObject*>(type.release());  // lives as long as the process
}

template <typename Walker, typename... Args>
Ref create(PyTypeObject* type, bool named, Args&&... args) {
  Ref self = Ref::checked(type->tp_alloc(type, 0));
  PyObject_GC_UnTrack(self.get());  // not to be visited half-made
  auto* iterator = reinterpret_cast<Iterator<Walker>*>(self.get());
  new (&iterator->walker) Walker(std::forward<Args>(args)...);
  iterator->named = named;
  iterator->running = false;
  PyObject_GC_Track(self.get());
  return self;
}

}  // namespace

void create_iterator_types(PyObject* extension) {
  member_iterator_type = create_type<MemberWalker>(extension, "pyparam._C.MemberIterator",
                                                   "A lazy native iterator over parameters or buffers.");
  module_iterator_type =
      create_type<ModuleWalker>(extension, "pyparam._C.ModuleIterator", "A lazy native iterator over modules.");
}

Ref member_iterator(PyObject* module, PyObject* members, PyObject* prefix, bool recurse, bool remove_duplicate, bool named) {
  return create<MemberWalker>(member_iterator_type, named, Ref::borrow(module), Ref::borrow(prefix),
                              MemberOptions{members, recurse, remove_duplicate});
}

Ref module_iterator(PyObject* module, PyObject* memo, PyObject* prefix, bool remove_duplicate, bool named, bool ask_root) {
  return create<ModuleWalker>(module_iterator_type, named, Ref::borrow(module), Ref::borrow(prefix), remove_duplicate,
                              memo == Py_None ? Ref() : Ref::borrow(memo), ask_root);
}

}  // namespace pyparam::walk
