#include "walk/iterators.h"

#include <new>

#include "walk/member_walker.h"
#include "walk/plain_walk.h"

namespace pyparam::walk {

namespace {

// Items made in bulk, before they are asked for.
struct Ready {
  std::vector<PyObject*> items;  // owned from `taken` on
  size_t taken = 0;

  ~Ready() { clear(); }
  void clear() {
    std::vector<PyObject*> dropped;
    dropped.swap(items);
    for (size_t i = std::exchange(taken, 0); i < dropped.size(); ++i) Py_DECREF(dropped[i]);
  }
  int visit(visitproc visit, void* arg) const {
    for (size_t i = taken; i < items.size(); ++i) {
      if (const int stopped = visit(items[i], arg)) return stopped;
    }
    return 0;
  }
};

template <typename Walker>
struct Iterator {
  PyObject_HEAD Walker walker;
  Ready ready;
  bool named;
  bool running;
  bool started;  // asked for an item, as generators tell
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

// Makes all items at once where the model is plain. False where the lazy walk has to do it.
bool make_ready(const MemberWalker& walker, bool named, std::vector<PyObject*>& items) {
  const MemberOptions& options = walker.options();
  if (!options.recurse) return false;
  const bool buffers = options.members == names().buffers;
  PlainWalk::Wanted wanted;
  wanted.parameters = !buffers;
  wanted.buffers = buffers;
  PlainWalk::Lease walk;
  if (!walk->read(walker.root(), wanted)) return false;
  const PlainWalk::Members& members = buffers ? walk->buffers() : walk->parameters();
  items.reserve(members.all.size());
  BorrowedIdSet seen;
  Path path;
  path.assign(walker.prefix());
  return walk->for_each(path, options.remove_duplicate, [&](uint32_t module, Path& at) {
    for (uint32_t i = members.begin(module); i < members.end(module); ++i) {
      members.prefetch_ahead(i);
      const auto [key, value] = members.all[i];
      if (options.remove_duplicate && walk->may_repeat(value) && !seen.insert(value)) continue;
      items.push_back(named ? pair(at.joined(key), value).release() : Py_NewRef(value));
    }
  });
}

bool make_ready(const ModuleWalker& walker, bool named, std::vector<PyObject*>& items) {
  if (walker.has_memo()) return false;
  PlainWalk::Wanted wanted;
  wanted.ask_root = walker.asks_root();
  PlainWalk::Lease walk;
  if (!walk->read(walker.root(), wanted)) return false;
  items.reserve(walk->modules().size());
  Path path;
  path.assign(walker.prefix());
  return walk->for_each(path, walker.removes_duplicates(), [&](uint32_t index, Path& at) {
    PyObject* module = walk->modules()[index];
    items.push_back(named ? pair(at.str(), module).release() : Py_NewRef(module));
  });
}

// list(iterator) and tuple(iterator) ask for a length first, and nothing can happen between that
// and their first item: this is where the bulk walk comes in. A for loop does not ask, and stays
// lazy.
template <typename Walker>
PyObject* length_hint(PyObject* self, PyObject*) {
  auto* iterator = reinterpret_cast<Iterator<Walker>*>(self);
  return guarded([&]() -> PyObject* {
    Ready& ready = iterator->ready;
    if (iterator->walker.fresh() && !iterator->running) {
      Ready made;
      bool all = false;
      {
        const GcPause pause;
        all = make_ready(iterator->walker, iterator->named, made.items);
      }
      if (all) {
        std::swap(ready.items, made.items);
        iterator->walker.clear();
      }
    }
    if (ready.items.empty()) return Py_NewRef(Py_NotImplemented);
    return PyLong_FromSize_t(ready.items.size() - ready.taken);
  });
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
  Ready& ready = iterator->ready;
  iterator->started = true;
  if (ready.taken < ready.items.size()) return ready.items[ready.taken++];
  return guarded([&]() -> PyObject* {
    const Running running(iterator->running);
    return iterator->walker.next() ? item(iterator->walker, iterator->named).release() : nullptr;
  });
}

// What follows makes an iterator what a generator is to whoever asks: nn.Module's methods give
// generators, and code tells them from lists by `isinstance(it, types.GeneratorType)`.

PyObject* generator_class(PyObject*, void*) {
  return Py_NewRef(reinterpret_cast<PyObject*>(&PyGen_Type));
}

template <typename Walker>
PyObject* is_running(PyObject* self, void*) {
  return PyBool_FromLong(reinterpret_cast<Iterator<Walker>*>(self)->running ? 1 : 0);
}

template <typename Walker>
PyObject* send(PyObject* self, PyObject* value) {
  if (value != Py_None && !reinterpret_cast<Iterator<Walker>*>(self)->started) {
    PyErr_SetString(PyExc_TypeError, "can't send non-None value to a just-started generator");
    return nullptr;
  }
  PyObject* made = next<Walker>(self);
  if (made == nullptr && PyErr_Occurred() == nullptr) PyErr_SetNone(PyExc_StopIteration);
  return made;
}

template <typename Walker>
PyObject* close(PyObject* self, PyObject*) {
  auto* iterator = reinterpret_cast<Iterator<Walker>*>(self);
  return guarded([&]() -> PyObject* {
    const Running running(iterator->running);
    iterator->started = true;
    iterator->ready.clear();
    iterator->walker.clear();
    return Py_NewRef(Py_None);
  });
}

// Ends the iterator, and raises what was thrown.
template <typename Walker>
PyObject* throw_into(PyObject* self, PyObject* args) {
  PyObject *type = nullptr, *value = nullptr, *traceback = nullptr;
  if (PyArg_UnpackTuple(args, "throw", 1, 3, &type, &value, &traceback) == 0) return nullptr;
  const Ref closed = Ref::steal(close<Walker>(self, nullptr));
  if (!closed) return nullptr;
  if (PyExceptionInstance_Check(type)) {
    PyErr_SetObject(PyExceptionInstance_Class(type), type);
  } else if (PyExceptionClass_Check(type)) {
    PyErr_SetObject(type, value == Py_None ? nullptr : value);
  } else {
    PyErr_Format(PyExc_TypeError,
                 "exceptions must be classes or instances deriving from BaseException, not %.200s",
                 Py_TYPE(type)->tp_name);
  }
  return nullptr;
}

template <typename Walker>
int traverse(PyObject* self, visitproc visit, void* arg) {
  Py_VISIT(Py_TYPE(self));
  const auto* iterator = reinterpret_cast<Iterator<Walker>*>(self);
  if (const int stopped = iterator->ready.visit(visit, arg)) return stopped;
  return iterator->walker.visit(visit, arg);
}

template <typename Walker>
int clear(PyObject* self) {
  auto* iterator = reinterpret_cast<Iterator<Walker>*>(self);
  iterator->ready.clear();
  iterator->walker.clear();
  return 0;
}

template <typename Walker>
void dealloc(PyObject* self) {
  PyTypeObject* type = Py_TYPE(self);
  PyObject_GC_UnTrack(self);
  auto* iterator = reinterpret_cast<Iterator<Walker>*>(self);
  iterator->ready.~Ready();
  iterator->walker.~Walker();
  type->tp_free(self);
  Py_DECREF(type);
}

template <typename Walker>
PyTypeObject* create_type(PyObject* extension, const char* name, const char* doc) {
  static PyMethodDef methods[] = {
      {"__length_hint__", length_hint<Walker>, METH_NOARGS,
       "The number of items left, where it is known; finds them all where none was asked for yet."},
      {"send", send<Walker>, METH_O, "The next item, as of a generator."},
      {"throw", throw_into<Walker>, METH_VARARGS, "Raises, and is at its end."},
      {"close", close<Walker>, METH_NOARGS, "Is at its end."},
      {nullptr, nullptr, 0, nullptr},
  };
  static PyGetSetDef attributes[] = {
      {"__class__", generator_class, nullptr, "types.GeneratorType", nullptr},
      {"gi_running", is_running<Walker>, nullptr, "Whether it is making an item.", nullptr},
      {nullptr, nullptr, nullptr, nullptr, nullptr},
  };
  PyType_Slot slots[] = {
      {Py_tp_methods, methods},
      {Py_tp_getset, attributes},
      {Py_tp_doc, const_cast<char*>(doc)},
      {Py_tp_iter, reinterpret_cast<void*>(PyObject_SelfIter)},
      {Py_tp_iternext, reinterpret_cast<void*>(next<Walker>)},
      {Py_tp_traverse, reinterpret_cast<void*>(traverse<Walker>)},
      {Py_tp_clear, reinterpret_cast<void*>(clear<Walker>)},
      {Py_tp_dealloc, reinterpret_cast<void*>(dealloc<Walker>)},
      {0, nullptr},
  };
  PyType_Spec spec{name, sizeof(Iterator<Walker>), 0,
                   Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION,
                   slots};
  Ref type = Ref::checked(PyType_FromSpec(&spec));
  const char* attribute =
      std::char_traits<char>::find(name, std::char_traits<char>::length(name), 'C') + 2;
  if (PyObject_SetAttrString(extension, attribute, type.get()) < 0) throw PythonError{};
  return reinterpret_cast<PyTypeObject*>(type.release());  // lives as long as the process
}

template <typename Walker, typename... Args>
Ref create(PyTypeObject* type, bool named, Args&&... args) {
  Ref self = Ref::checked(type->tp_alloc(type, 0));
  PyObject_GC_UnTrack(self.get());  // not to be visited half-made
  auto* iterator = reinterpret_cast<Iterator<Walker>*>(self.get());
  new (&iterator->walker) Walker(std::forward<Args>(args)...);
  new (&iterator->ready) Ready();
  iterator->named = named;
  iterator->running = false;
  iterator->started = false;
  PyObject_GC_Track(self.get());
  return self;
}

}  // namespace

void create_iterator_types(PyObject* extension) {
  member_iterator_type = create_type<MemberWalker>(
      extension, "pyparam._C.MemberIterator", "A lazy native iterator over parameters or buffers.");
  module_iterator_type = create_type<ModuleWalker>(extension, "pyparam._C.ModuleIterator",
                                                   "A lazy native iterator over modules.");
}

Ref member_iterator(PyObject* module, PyObject* members, PyObject* prefix, bool recurse,
                    bool remove_duplicate, bool named) {
  return create<MemberWalker>(member_iterator_type, named, Ref::borrow(module), Ref::borrow(prefix),
                              MemberOptions{members, recurse, remove_duplicate});
}

Ref module_iterator(PyObject* module, PyObject* memo, PyObject* prefix, bool remove_duplicate,
                    bool named, bool ask_root) {
  return create<ModuleWalker>(module_iterator_type, named, Ref::borrow(module), Ref::borrow(prefix),
                              remove_duplicate, memo == Py_None ? Ref() : Ref::borrow(memo),
                              ask_root);
}

}  // namespace pyparam::walk
