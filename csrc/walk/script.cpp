#include "walk/script.h"

#include <unordered_set>
#include <utility>
#include <vector>

namespace pyparam::walk {
namespace {

using c10::ivalue::Object;

struct Frame {
  const Object* module;  // kept alive by the root
  size_t slot;           // where to look for the next child
  size_t path_length;    // of this module in the shared path
};

class ScriptWalker {
 public:
  ScriptWalker(bool buffers, bool remove_duplicate) : buffers_(buffers), remove_duplicate_(remove_duplicate) {}

  ParamTable walk(const Object& root) {
    enter(root);
    while (!stack_.empty()) {
      Frame& frame = stack_.back();
      path_.resize(frame.path_length);
      const Object* child = next_child(frame);
      if (child == nullptr) {
        stack_.pop_back();
        continue;
      }
      // A module reached a second time holds only tensors already listed. Skipping it keeps a model whose modules
      // are shared at every level from costing one visit a path.
      if (remove_duplicate_ && !modules_.insert(child).second) continue;
      append_key(child_key_);
      enter(*child);
    }
    return std::move(table_);
  }

 private:
  void enter(const Object& module) {
    stack_.push_back({&module, 0, path_.size()});
    const auto& type = *module.type();
    const auto& slots = module.slots();
    const size_t attributes = type.numAttributes();
    for (size_t i = 0; i < attributes; ++i) {
      if (type.is_parameter(i)) append(type.getAttributeName(i), slots[i], parameters_);
    }
    if (!buffers_) return;
    for (size_t i = 0; i < attributes; ++i) {
      // As PyTorch's BufferDict: a slot typed Optional[Tensor] is no buffer, whatever it holds.
      if (!type.is_buffer(i) || !type.getAttribute(i)->isSubtypeOf(*c10::TensorType::get())) continue;
      append(type.getAttributeName(i), slots[i], buffers_seen_);
    }
  }

  void append(const std::string& attribute, const c10::IValue& value, std::unordered_set<const void*>& seen) {
    if (!value.isTensor()) return;  // a None parameter or buffer
    const at::Tensor& tensor = value.toTensor();
    if (!tensor.defined()) return;
    if (remove_duplicate_ && !seen.insert(tensor.unsafeGetTensorImpl()).second) return;
    const size_t length = path_.size();
    append_key(attribute);
    table_.names.append(path_);
    path_.resize(length);
    table_.tensors.push_back(tensor);
  }

  const Object* next_child(Frame& frame) {
    const auto& type = *frame.module->type();
    const auto& slots = frame.module->slots();
    const size_t attributes = type.numAttributes();
    while (frame.slot < attributes) {
      const size_t i = frame.slot++;
      if (!slots[i].isObject() || !type.getAttribute(i)->is_module()) continue;
      child_key_ = type.getAttributeName(i);
      return &slots[i].toObjectRef();  // the slot keeps it alive
    }
    return nullptr;
  }

  void append_key(std::string_view key) {
    if (!path_.empty()) path_.push_back('.');
    path_.append(key);
  }

  const bool buffers_, remove_duplicate_;
  ParamTable table_;
  std::vector<Frame> stack_;
  std::string path_;
  std::string_view child_key_;
  std::unordered_set<const void*> modules_, parameters_, buffers_seen_;
};

}  // namespace

ParamTable walk_script(const torch::jit::Module& module, bool buffers, bool remove_duplicate) {
  const torch::jit::ModulePtr root = module._ivalue();
  return ScriptWalker(buffers, remove_duplicate).walk(*root);
}

}  // namespace pyparam::walk
