#include "walk/script.h"

#include <algorithm>
#include <string_view>
#include <unordered_set>
#include <utility>
#include <vector>

namespace pyparam::walk {
namespace {

using c10::ivalue::Object;

// Modules, classes and names are held by the root, which outlives the walk.
struct Frame {
  const Object* module;
  size_t slot;  // where to look for the next child
  NameColumn::Node name;
};

struct Child {
  const Object* module = nullptr;  // null where there is none left
  std::string_view key;
};

class ScriptWalker {
 public:
  ScriptWalker(bool buffers, bool remove_duplicate)
      : buffers_(buffers), remove_duplicate_(remove_duplicate) {}

  ParamTable walk(const Object& root) {
    enter(root, NameColumn::kRoot);
    while (!stack_.empty()) {
      const Child child = next_child(stack_.back());
      if (child.module == nullptr) {
        stack_.pop_back();
        continue;
      }
      // A module reached a second time holds only tensors already listed. Skipping it keeps a model
      // whose modules are shared at every level from costing one visit a path.
      if (remove_duplicate_ && !modules_.insert(child.module).second) continue;
      enter(*child.module, table_.names.module(stack_.back().name, child.key));
    }
    return std::move(table_);
  }

 private:
  // The attributes that `module` has slots for, and their values, side by side.
  template <typename Fn>
  static void for_each_slot(const Object& module, const Fn& fn) {
    const std::vector<c10::ClassAttribute>& attributes = module.type()->getAttributes();
    const std::vector<c10::IValue>& slots = module.slots();
    for (size_t i = 0; i < std::min(attributes.size(), slots.size()); ++i)
      fn(attributes[i], slots[i]);
  }

  void enter(const Object& module, NameColumn::Node name) {
    stack_.push_back({&module, 0, name});
    for_each_slot(module, [&](const c10::ClassAttribute& attribute, const c10::IValue& value) {
      if (attribute.getKind() == c10::AttributeKind::PARAMETER)
        append(name, attribute.getName(), value, parameters_);
    });
    if (!buffers_) return;
    for_each_slot(module, [&](const c10::ClassAttribute& attribute, const c10::IValue& value) {
      // As PyTorch's BufferDict: a slot typed Optional[Tensor] is no buffer, whatever it holds.
      if (attribute.getKind() != c10::AttributeKind::BUFFER) return;
      if (!attribute.getType()->isSubtypeOf(*c10::TensorType::get())) return;
      append(name, attribute.getName(), value, buffers_seen_);
    });
  }

  void append(NameColumn::Node owner, std::string_view attribute, const c10::IValue& value,
              std::unordered_set<const void*>& seen) {
    if (!value.isTensor()) return;  // a None parameter
    const at::Tensor& tensor = value.toTensor();
    if (!tensor.defined()) return;
    if (remove_duplicate_ && !seen.insert(tensor.unsafeGetTensorImpl()).second) return;
    table_.names.append(owner, attribute);
    table_.tensors.push_back(tensor);
  }

  static Child next_child(Frame& frame) {
    const std::vector<c10::ClassAttribute>& attributes = frame.module->type()->getAttributes();
    const std::vector<c10::IValue>& slots = frame.module->slots();
    while (frame.slot < std::min(attributes.size(), slots.size())) {
      const size_t i = frame.slot++;
      if (!slots[i].isObject() || !attributes[i].getType()->is_module()) continue;
      return {&slots[i].toObjectRef(), attributes[i].getName()};
    }
    return {};
  }

  const bool buffers_, remove_duplicate_;
  ParamTable table_;
  std::vector<Frame> stack_;
  std::unordered_set<const void*> modules_, parameters_, buffers_seen_;
};

}  // namespace

ParamTable walk_script(const torch::jit::Module& module, bool buffers, bool remove_duplicate) {
  const torch::jit::ModulePtr root = module._ivalue();
  return ScriptWalker(buffers, remove_duplicate).walk(*root);
}

}  // namespace pyparam::walk
