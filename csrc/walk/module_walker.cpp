#include "walk/module_walker.h"

namespace pyparam::walk {

ModuleWalker::ModuleWalker(Ref root, Ref prefix, bool remove_duplicate, Ref memo, bool ask_root)
    : root_(std::move(root)),
      prefix_(std::move(prefix)),
      remove_duplicate_(remove_duplicate),
      ask_root_(ask_root),
      python_memo_(std::move(memo)) {}

bool ModuleWalker::next() {
  try {
    if (state_ == State::kStart) {
      state_ = State::kContinue;
      path_.assign(prefix_.get());
      if (enter(Ref::borrow(root_.get()), ask_root_)) return true;
    } else if (state_ == State::kExpand) {
      // Only now, as a generator does: the caller may have changed the module it was just given.
      state_ = State::kContinue;
      const ModuleView view(current_.get());
      stack_.push_back({Items::of_mapping(view.attribute(names().modules)),
                        Ref::borrow(current_.get()), path_.size(), false});
    }
    while (!stack_.empty()) {
      Frame& frame = stack_.back();
      Ref key, child;
      if (!frame.items.next(key, child)) {
        if (!remove_duplicate_ && frame.module && !python_memo_) memo_.erase(frame.module.get());
        const Frame done = std::move(frame);  // dropped after the stack is whole again
        stack_.pop_back();
        continue;
      }
      if (frame.foreign) {
        path_.assign(key.get());
        current_ = std::move(child);
        return true;
      }
      if (child.get() == Py_None) continue;
      path_.truncate(frame.path_length);
      path_.push(key.get());
      if (enter(std::move(child), true)) return true;
    }
  } catch (...) {
    state_ = State::kDone;
    throw;
  }
  state_ = State::kDone;
  current_ = Ref();
  return false;
}

// True where the module is the next one to give; false where it was seen, or where its own iterator
// takes over.
bool ModuleWalker::enter(Ref module, bool ask) {
  const ModuleView view(module.get());
  if (ask && view.overridden(kNamedModules) != 0) {
    const bool as_root = stack_.empty();
    Ref iterable = call_named_modules(module.get(), as_root);
    stack_.push_back({Items::of_pairs(std::move(iterable)), Ref(), path_.size(), true});
    return false;
  }
  if (!view.type().identity_hash && !python_memo_) use_python_memo();
  if (seen(module.get())) return false;
  current_ = std::move(module);
  state_ = State::kExpand;
  return true;
}

bool ModuleWalker::seen(PyObject* module) {
  if (python_memo_) {
    const int found = PySequence_Contains(python_memo_.get(), module);
    if (found < 0) throw PythonError{};
    if (found == 1) return true;
    if (remove_duplicate_) {
      add_to_memo(python_memo_.get(), module);
    } else {
      for (const Frame& frame : stack_) {
        if (frame.module.get() == module) raise_cycle();
      }
    }
    return false;
  }
  const bool fresh = memo_.insert(module);
  if (!fresh && !remove_duplicate_) raise_cycle();
  return !fresh;
}

// As nn.Module does it: a caller's memo is anything with `in` and `add`.
void ModuleWalker::add_to_memo(PyObject* memo, PyObject* module) {
  if (PySet_CheckExact(memo)) {
    if (PySet_Add(memo, module) < 0) throw PythonError{};
  } else {
    Ref::checked(PyObject_CallMethodOneArg(memo, names().add, module));
  }
}

void ModuleWalker::raise_cycle() {
  const Ref path = path_.str();
  PyErr_Format(PyExc_ValueError,
               "named_modules: the module at %R is its own ancestor; with remove_duplicate=False "
               "the walk would never end",
               path.get());
  throw PythonError{};
}

// Another named_modules takes part: it sees the memo and adds to it, so from here on the memo is a
// Python set.
void ModuleWalker::use_python_memo() {
  Ref set = Ref::checked(PySet_New(nullptr));
  if (remove_duplicate_) {
    memo_.for_each([&](PyObject* module) {
      if (PySet_Add(set.get(), module) < 0) throw PythonError{};
    });
  }
  memo_.clear();
  python_memo_ = std::move(set);
}

Ref ModuleWalker::call_named_modules(PyObject* module, bool as_root) {
  const Names& n = names();
  const Ref method = Ref::checked(PyObject_GetAttr(module, n.named_modules));
  const Ref remove = Ref::borrow(remove_duplicate_ ? Py_True : Py_False);
  const Ref path = path_.str();
  if (!as_root && !python_memo_) use_python_memo();
  // The adapter leaves out what the method does not take; see overrides.py.
  const Ref adapter = Ref::checked(PyImport_ImportModule("pyparam._sources.overrides"));
  return Ref::checked(PyObject_CallMethod(adapter.get(), "call_named_modules", "OOOO", method.get(),
                                          as_root ? Py_None : python_memo_.get(), path.get(),
                                          remove.get()));
}

int ModuleWalker::visit(visitproc visit, void* arg) const {
  for (const Ref* ref : {&root_, &prefix_, &current_, &python_memo_}) {
    if (const int stopped = ref->visit(visit, arg)) return stopped;
  }
  for (const Frame& frame : stack_) {
    if (const int stopped = frame.items.visit(visit, arg)) return stopped;
    if (const int stopped = frame.module.visit(visit, arg)) return stopped;
  }
  return memo_.visit(visit, arg);
}

void ModuleWalker::clear() {
  state_ = State::kDone;
  std::vector<Frame> stack;
  stack.swap(stack_);
  Ref root = std::move(root_), current = std::move(current_), python_memo = std::move(python_memo_);
  memo_.clear();
}

}  // namespace pyparam::walk
