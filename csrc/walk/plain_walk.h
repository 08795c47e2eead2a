// The bulk walk: a model whose modules are all plain, read at the speed at which memory answers.
//
// A walk in depth-first order waits for one cache miss after another: module, its dict, the dict's
// values, `_modules`, its entries, the first child. This one reads breadth first, a batch of
// modules at a time, each step for the whole batch before the next step, so that a batch's misses
// overlap; depth-first order is restored from compact records.
//
// It runs no Python code: it looks only into exact dicts and sets with exact strs as keys
// (str_dict.h) and into classes whose namespaces are such dicts. So borrowed pointers stay good
// from `read` to the end, as long as the caller, too, runs no Python code and lets no collector run
// (GcPause) while it makes what it makes of them.
#pragma once

#include <array>
#include <memory>
#include <string_view>
#include <vector>

#include "kernels/macros.h"
#include "walk/items.h"
#include "walk/path.h"
#include "walk/str_dict.h"

namespace pyparam::walk {

// Inlined whatever the compiler thinks, as in table/prefetch.h.
PYPARAM_INLINE void prefetch(const void* address) { __builtin_prefetch(address, 0, 3); }

struct Member {
  PyObject* key;    // borrowed
  PyObject* value;  // borrowed; never None
};

class PlainWalk {
 public:
  struct Wanted {
    bool parameters = false;
    bool buffers = false;
    // Of the buffers, those alone that a state dict has.
    bool persistent = false;
    // Methods of nn.Module that the caller stands in for: a module with its own is not plain.
    unsigned methods = kNamedModules;
    // Whether the root, too, must not have its own of them.
    bool ask_root = true;
    // Further such methods, of which the root must not have its own in any case.
    unsigned methods_of_all = 0;
    // Those that count only where the class has them.
    unsigned methods_of_class = 0;
    // Attributes that must be empty dicts (hooks).
    std::array<PyObject*, 2> empty{};
    // `_version` must be an int of the class.
    bool version = false;
  };

  // Walks use one another's memory: a lease takes the spare one, or makes a new one where that is
  // taken already, and leaves it behind. What a very large model needed is given back.
  class Lease {
   public:
    Lease() : walk_(spare() ? std::move(spare()) : std::make_unique<PlainWalk>()) {}
    ~Lease() {
      constexpr size_t kKept = size_t{1} << 20;  // modules
      if (walk_->modules_.capacity() <= kKept) spare() = std::move(walk_);
    }
    Lease(const Lease&) = delete;
    Lease& operator=(const Lease&) = delete;
    PlainWalk* operator->() const { return walk_.get(); }
    PlainWalk& operator*() const { return *walk_; }

   private:
    static std::unique_ptr<PlainWalk>& spare();
    std::unique_ptr<PlainWalk> walk_;
  };

  // Reads the model. False where a part of it needs Python code (a class's own method, a mapping
  // that is no dict, a key that is no plain str, a __hash__ of its own): nothing is known then, and
  // the lazy walk is the one to use.
  bool read(PyObject* root, const Wanted& wanted);

  // Calls fn(index, path) for each module in the order of named_modules, once a module, or with
  // remove_duplicate=false once a place. False where a module contains itself and the walk would
  // never end. `path` is a Path, or whatever else grows by keys as one does.
  template <typename Trail, typename Fn>
  bool for_each(Trail& path, bool remove_duplicate, const Fn& fn);

  // A kind of member: all of it, and which of it are those of one module.
  struct Members {
    std::vector<Member> all;
    std::vector<uint32_t> first;  // of module i; those of module i end where the next one's begin

    uint32_t begin(uint32_t module) const { return first[module]; }
    uint32_t end(uint32_t module) const { return first[module + 1]; }

    // Call with i, i + 1, ... in turn. Members of one depth lie behind one another in the list, so
    // the next few are near in the list, if not in memory.
    PYPARAM_INLINE void prefetch_ahead(size_t i) const {
      constexpr size_t kAhead = 16;
      if (i + kAhead < all.size()) prefetch(all[i + kAhead].value);
    }
  };
  // Whether a member may be listed again: not where the one reference to it is the entry just read.
  bool may_repeat(PyObject* member) const { return aliased_members_ || Py_REFCNT(member) > 1; }

  const Members& parameters() const { return parameters_; }
  const Members& buffers() const { return buffers_; }
  const std::vector<PyObject*>& modules() const { return modules_; }  // borrowed
  // What modules with one class share; module(i)'s.
  const ModuleType& type(uint32_t module) const { return types_[type_of_[module]]; }
  // Whether a child's name has a dot, so that a qualified name may be read in two ways.
  bool has_dotted_children() const;
  // Whether a module has an entry of this name among its children, None or not.
  bool has_child(uint32_t module, std::string_view name);

 private:
  struct Child {
    PyObject* key;  // borrowed
    uint32_t module;
  };
  struct Found {
    PyObject* object;
    uint32_t child;
    bool aliased;
  };
  struct Place {
    uint32_t module, next_child;
    size_t path_length;
  };
  class Index;
  // Where the attributes stand in instances' dicts.
  struct Hints {
    NameHint modules, parameters, buffers, non_persistent;
    std::array<NameHint, 2> empty;
  };

  bool read_batch(size_t begin, size_t end, const Wanted& wanted, Index& seen);
  void read_children(PyObject* mapping, bool aliased);
  bool read_type(PyTypeObject* type, const Wanted& wanted, bool root);
  bool has_own_methods(PyObject* dict, const Wanted& wanted, bool root);
  void clear();

  std::vector<PyObject*> modules_;
  std::vector<ModuleType> types_;       // of each class, some twice
  std::vector<uint8_t> plain_;          // whether modules of the class at types_[i] are plain
  std::vector<uint32_t> type_of_;       // of module i
  std::array<uint32_t, 64> type_at_{};  // where in types_ a class may be, by its address
  Hints hints_;
  // Tables of keys, shared by instances' dicts, that have none of the names that would make a
  // module not plain; for the length of one walk.
  std::array<const void*, 64> unremarkable_{};
  std::vector<Child> children_;
  std::vector<uint32_t> first_child_;  // of module i; one more at the end
  Members parameters_, buffers_;
  std::vector<Found> found_;  // a batch's children, before their records are known
  bool aliased_members_ = false;
  std::vector<uint8_t> visited_;
  std::vector<Place> stack_;
};

template <typename Trail, typename Fn>
bool PlainWalk::for_each(Trail& path, bool remove_duplicate, const Fn& fn) {
  visited_.assign(modules_.size(), 0);
  stack_.clear();
  const auto enter = [&](uint32_t module) {
    if (visited_[module] != 0) return remove_duplicate;  // seen, or its own ancestor
    visited_[module] = 1;
    fn(module, path);
    if (first_child_[module] != first_child_[module + 1]) {
      stack_.push_back({module, first_child_[module], path.size()});
    } else if (!remove_duplicate) {
      visited_[module] = 0;
    }
    return true;
  };
  if (!enter(0)) return false;
  constexpr size_t kKeysAhead = 8;
  while (!stack_.empty()) {
    Place& place = stack_.back();
    if (place.next_child == first_child_[place.module + 1]) {
      if (!remove_duplicate) visited_[place.module] = 0;
      stack_.pop_back();
      continue;
    }
    const Child& child = children_[place.next_child++];
    if (place.next_child + kKeysAhead < children_.size())
      prefetch(children_[place.next_child + kKeysAhead].key);
    path.truncate(place.path_length);
    if (remove_duplicate && visited_[child.module] != 0) continue;
    path.push(child.key);
    if (!enter(child.module)) return false;
  }
  return true;
}

}  // namespace pyparam::walk
