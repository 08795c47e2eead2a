#include "walk/load_state_dict.h"

#include <torch/csrc/DynamicTypes.h>

#include <algorithm>
#include <exception>
#include <optional>
#include <string>
#include <unordered_map>
#include <unordered_set>
#include <utility>
#include <vector>

#include "table/copy.h"
#include "walk/assign.h"
#include "walk/detach.h"
#include "walk/named_values.h"
#include "walk/plain_walk.h"
#include "walk/state_dict.h"
#include "walk/tensor.h"
#include "walk/tensor_prefetch.h"
#include "walk/unlocked.h"

namespace pyparam::walk {

namespace {

bool is_plain_dict(PyObject* object) {
  return (PyDict_CheckExact(object) || PyODict_CheckExact(object)) && has_str_keys(object);
}

bool has_dot(PyObject* key) {
  return PyUnicode_FindChar(key, '.', 0, PyUnicode_GET_LENGTH(key), 1) != -1;
}

// What `_load_from_state_dict` reads of metadata[prefix[:-1]].
class Metadata {
 public:
  explicit Metadata(PyObject* all) : all_(all) {}

  // Whether it is plain data, and nowhere asks for tensors to be assigned (which an earlier load
  // with `assign` leaves in it) unless that is what is asked for.
  bool is_plain(bool assigning) const {
    if (all_ == nullptr) return true;
    if (!is_plain_dict(all_)) return false;
    PyObject* const assign = names().assign_to_params_buffers;
    Py_ssize_t position = 0;
    PyObject *key = nullptr, *value = nullptr;
    while (PyDict_Next(all_, &position, &key, &value)) {
      if (!is_plain_dict(value) || (!assigning && find_str(value, assign) != nullptr)) return false;
    }
    return true;
  }

  // What it says of a module, borrowed; null where it says nothing.
  PyObject* local(const Path& path) const {
    if (all_ == nullptr) return nullptr;
    const Ref key = path.size() == 0 ? path.str() : path.str_without_last_byte();
    PyObject* found = PyDict_GetItemWithError(all_, key.get());
    if (found == nullptr && PyErr_Occurred() != nullptr) throw PythonError{};
    return found;
  }

  // Of a module's state: 2 or later, earlier or not told, or no version at all.
  enum class Version { kCurrent, kOld, kOdd };
  Version version(const Path& path) const {
    PyObject* told = local(path);
    PyObject* version = told == nullptr ? nullptr : find_str(told, names().version_key);
    if (version == nullptr || version == Py_None) return Version::kOld;
    if (!PyLong_CheckExact(version)) return Version::kOdd;
    int overflow = 0;
    const long number = PyLong_AsLongAndOverflow(version, &overflow);
    if (overflow != 0) return Version::kOdd;
    return number >= 2 ? Version::kCurrent : Version::kOld;
  }

 private:
  PyObject* all_;
};

template <typename State>
class Loader {
 public:
  // With `assigner`, values are not copied but become the modules' own.
  Loader(PlainWalk& walk, State& state, PyObject* metadata, bool listing,
         Assigner* assigner = nullptr)
      : walk_(walk),
        assigner_(assigner),
        listed_targets_(listing ? Ref::checked(PyList_New(0)) : Ref()),
        listed_sources_(listing ? Ref::checked(PyList_New(0)) : Ref()),
        conversions_(Ref::checked(PyList_New(0))),
        state_(state),
        metadata_(metadata),
        missing_(Ref::checked(PyList_New(0))) {}

  // Finds what to copy where. False where PyTorch has to do it.
  bool match() {
    if (!metadata_.is_plain(assigner_ != nullptr)) return false;
    Path path(Path::Style::kPrefix);
    bool plain = true;
    const bool ends = walk_.for_each(path, /*remove_duplicate=*/false, [&](uint32_t i, Path& at) {
      plain = plain && match_norm(i, at) && match_members(walk_.parameters(), i, at) &&
              match_members(walk_.buffers(), i, at);
      PyObject* local = assigner_ == nullptr ? nullptr : metadata_.local(at);
      if (local != nullptr) assigner_->mark(local);
    });
    return plain && ends && !walk_.has_dotted_children();
  }

  bool all_expected() const { return found_ == state_.size(); }
  bool none_missing() const { return PyList_GET_SIZE(missing_.get()) == 0; }
  Ref take_missing() { return std::move(missing_); }
  Ref unexpected();

  // What to copy, held: it outlives the walk.
  void hand_over(std::vector<at::Tensor>& targets, std::vector<at::Tensor>& sources) {
    targets = std::move(targets_);
    sources = std::move(sources_);
  }

  // The same as lists of Python's, where listing.
  Ref take_listed_targets() { return std::move(listed_targets_); }
  Ref take_listed_sources() { return std::move(listed_sources_); }
  Ref take_conversions() { return std::move(conversions_); }

 private:
  // What PyTorch's norms do with a state of an old version, or of none: one that tracks statistics
  // keeps its own counter where the state has none, and one that does not minds statistics. False
  // where that makes a difference for PyTorch to see to.
  bool match_norm(uint32_t module, Path& at) {
    static PyObject* const track = PyUnicode_InternFromString("track_running_stats");
    static PyObject* const counter = PyUnicode_InternFromString("num_batches_tracked");
    static PyObject* const mean = PyUnicode_InternFromString("running_mean");
    static PyObject* const var = PyUnicode_InternFromString("running_var");
    if (track == nullptr || counter == nullptr || mean == nullptr || var == nullptr)
      throw PythonError{};
    kept_counter_ = nullptr;
    if (!walk_.type(module).versioned_load) return true;
    const Metadata::Version version = metadata_.version(at);
    if (version != Metadata::Version::kOld) return version == Metadata::Version::kCurrent;
    PyObject* dict = instance_dict(walk_.modules()[module]);
    PyObject* tracks = dict == nullptr ? nullptr : find_str(dict, track);
    if (tracks == Py_False) return !state_.has(at, mean) && !state_.has(at, var);
    if (tracks != Py_True) return false;
    const PlainWalk::Members& buffers = walk_.buffers();
    for (uint32_t i = buffers.begin(module); i < buffers.end(module); ++i) {
      if (PyUnicode_Compare(buffers.all[i].key, counter) == 0) kept_counter_ = buffers.all[i].value;
    }
    return kept_counter_ != nullptr;
  }

  bool match_members(const PlainWalk::Members& members, uint32_t module, Path& at) {
    for (uint32_t i = members.begin(module); i < members.end(module); ++i) {
      prefetch_tensors(members.all, i);
      const auto [key, value] = members.all[i];
      if (has_dot(key)) return false;
      FoundValue given = state_.find(at, key);
      const bool keeps = !given.is_there && value == kept_counter_;
      if (!given.is_there && !keeps) {
        if (PyList_Append(missing_.get(), at.joined(key).get()) < 0) throw PythonError{};
        continue;
      }
      if (!THPVariable_CheckExact(value)) return false;
      const at::Tensor& target = THPVariable_Unpack(value);
      if (assigner_ != nullptr) {
        if (keeps ? target.is_meta() : !assigned(members, module, key, value, given.object))
          return false;
        found_ += keeps ? 0 : 1;
        continue;
      }
      // PyTorch copies the counter onto itself.
      const at::Tensor* source = keeps ? &target : given.tensor;
      if (source == nullptr || !copies_plainly(target, *source)) return false;
      if (!keeps) {
        ++found_;
        note_conversion(target.scalar_type(), source->scalar_type(), at, key);
      }
      if (listed_targets_) {
        if (keeps) continue;
        if (PyList_Append(listed_targets_.get(), value) < 0 ||
            PyList_Append(listed_sources_.get(), given.object) < 0)
          throw PythonError{};
        continue;
      }
      targets_.push_back(target);
      sources_.push_back(*source);
    }
    return true;
  }

  bool assigned(const PlainWalk::Members& members, uint32_t module, PyObject* key, PyObject* value,
                PyObject* given) {
    return assigner_->add(instance_dict(walk_.modules()[module]), walk_.type(module),
                          &members == &walk_.parameters(), key, value, given);
  }

  // Lists the first name of each pair of dtypes that differ.
  void note_conversion(at::ScalarType to, at::ScalarType of, Path& at, PyObject* key) {
    if (to == of) return;
    for (const auto& [seen_to, seen_of] : converted_) {
      if (seen_to == to && seen_of == of) return;
    }
    converted_.emplace_back(to, of);
    const Ref name = at.joined(key);
    const Ref entry = Ref::checked(
        PyTuple_Pack(3, name.get(), reinterpret_cast<PyObject*>(torch::getTHPDtype(of)),
                     reinterpret_cast<PyObject*>(torch::getTHPDtype(to))));
    if (PyList_Append(conversions_.get(), entry.get()) < 0) throw PythonError{};
  }

  PlainWalk& walk_;
  Assigner* assigner_;
  Ref listed_targets_, listed_sources_, conversions_;
  std::vector<std::pair<at::ScalarType, at::ScalarType>> converted_;
  PyObject* kept_counter_ = nullptr;  // of the norm that is read; borrowed
  State& state_;
  Metadata metadata_;
  Ref missing_;
  Py_ssize_t found_ = 0;
  std::vector<at::Tensor> targets_, sources_;
};

// The keys that no module has, in the order in which PyTorch's recursion finds them: module after
// module, for each its `_extra_state` first, then in the state dict's order.
template <typename State>
Ref Loader<State>::unexpected() {
  struct Place {
    uint32_t number, module;
  };
  std::unordered_map<std::string, Place> places;
  std::unordered_set<std::string> expected;
  Path path(Path::Style::kPrefix);
  walk_.for_each(path, /*remove_duplicate=*/false, [&](uint32_t module, Path& at) {
    const auto number = static_cast<uint32_t>(places.size());
    places.emplace(at.view(), Place{number, module});
    for (const PlainWalk::Members* members : {&walk_.parameters(), &walk_.buffers()}) {
      for (uint32_t i = members->begin(module); i < members->end(module); ++i) {
        const size_t length = at.size();
        at.append_str(members->all[i].key);
        expected.emplace(at.view());
        at.truncate(length);
      }
    }
  });

  struct Found {
    uint32_t module;
    bool extra_state;
    PyObject* key;
  };
  std::vector<Found> found;
  Py_ssize_t position = 0;
  PyObject *key = nullptr, *value = nullptr;
  while (PyDict_Next(state_.dict(), &position, &key, &value)) {
    Path whole;
    whole.append_str(key);
    const std::string name(whole.view());
    if (expected.count(name) != 0) continue;
    for (size_t begin = 0;;) {
      const Place place = places.at(name.substr(0, begin));
      const size_t dot = name.find('.', begin);
      if (dot == std::string::npos) {
        found.push_back(
            {place.number, name.compare(begin, std::string::npos, "_extra_state") == 0, key});
        break;
      }
      if (places.count(name.substr(0, dot + 1)) != 0) {
        begin = dot + 1;
        continue;
      }
      // A child that is None is known to its parent, and nobody asks it what it expects.
      if (!walk_.has_child(place.module, std::string_view(name).substr(begin, dot - begin)))
        found.push_back({place.number, false, key});
      break;
    }
  }
  std::stable_sort(found.begin(), found.end(), [](const Found& a, const Found& b) {
    return a.module != b.module ? a.module < b.module : a.extra_state && !b.extra_state;
  });
  Ref listed = Ref::checked(PyList_New(0));
  for (const Found& one : found) {
    if (PyList_Append(listed.get(), one.key) < 0) throw PythonError{};
  }
  return listed;
}

}  // namespace

namespace {

struct Matched {
  Ref missing, unexpected, listed_targets, listed_sources, conversions;
  std::vector<at::Tensor> targets, sources;
};

PlainWalk::Wanted what_loading_reads(bool assigning = false) {
  PlainWalk::Wanted wanted;
  wanted.parameters = wanted.buffers = wanted.persistent = true;
  wanted.methods = 0;
  wanted.methods_of_all = kLoadFromStateDict | (assigning ? kAssigningMethods : 0u);
  wanted.methods_of_class = kSetExtraState;
  wanted.empty = {names().load_state_dict_pre_hooks, names().load_state_dict_post_hooks};
  return wanted;
}

// What to copy where: listed for Python or held. False where PyTorch has to load, with `strict`
// also where names are missing or unexpected.
bool match(PyObject* module, PyObject* state, bool strict, bool listing, Matched& matched,
           Assigner* assigner = nullptr) {
  if (!PyDict_CheckExact(state) && !PyODict_CheckExact(state)) return false;
  // Before the walk: it may run code.
  Ref metadata = metadata_of(state);
  if (metadata.get() == Py_None) metadata = Ref();
  const Detacher modes;
  if (!modes.ordinary() || !has_str_keys(state)) return false;

  PlainWalk::Lease walk;
  const GcPause pause;
  if (!walk->read(module, what_loading_reads(assigner != nullptr))) return false;
  DictState values(state);
  Loader loader(*walk, values, metadata.get(), listing, assigner);
  if (!loader.match()) return false;
  if (strict && !(loader.all_expected() && loader.none_missing())) return false;
  matched.unexpected = loader.all_expected() ? Ref::checked(PyList_New(0)) : loader.unexpected();
  matched.missing = loader.take_missing();
  matched.listed_targets = loader.take_listed_targets();
  matched.listed_sources = loader.take_listed_sources();
  matched.conversions = loader.take_conversions();
  loader.hand_over(matched.targets, matched.sources);
  if (assigner != nullptr) {
    if (!assigner->make()) return false;
    assigner->assign();
  }
  return true;
}

}  // namespace

Ref load_state_dict(PyObject* module, PyObject* state, bool strict, bool assign) {
  Assigner assigner;  // outlives the walk, and so does what it replaces
  Matched matched;
  if (!match(module, state, strict, /*listing=*/false, matched, assign ? &assigner : nullptr))
    return Ref::borrow(Py_None);
  try {
    const Unlocked unlocked;
    copy_all(matched.targets, matched.sources);
  } catch (const std::exception&) {
    return Ref::borrow(Py_None);  // PyTorch copies all of it again, and says what it was
  }
  return Ref::checked(PyTuple_Pack(2, matched.missing.get(), matched.unexpected.get()));
}

Ref match_state_dict(PyObject* module, PyObject* state) {
  Matched matched;
  if (!match(module, state, /*strict=*/false, /*listing=*/true, matched))
    return Ref::borrow(Py_None);
  return Ref::checked(PyTuple_Pack(5, matched.missing.get(), matched.unexpected.get(),
                                   matched.listed_targets.get(), matched.listed_sources.get(),
                                   matched.conversions.get()));
}

std::optional<Pairs> match_table(PyObject* module, const ParamTable& table) {
  const Detacher modes;
  if (!modes.ordinary()) return std::nullopt;
  PlainWalk::Lease walk;
  const GcPause pause;
  if (!walk->read(module, what_loading_reads())) return std::nullopt;
  TableState values(table);
  Loader loader(*walk, values, nullptr, /*listing=*/false);
  if (!loader.match() || !loader.none_missing()) return std::nullopt;
  Pairs pairs;
  pairs.unexpected = values.not_found();
  pairs.conversions = loader.take_conversions();
  loader.hand_over(pairs.targets, pairs.sources);
  return pairs;
}

}  // namespace pyparam::walk
