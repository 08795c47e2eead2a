#include "walk/gradients.h"

#include <cstring>
#include <vector>

#include "table/ordinary.h"
#include "walk/detach.h"
#include "walk/plain_walk.h"
#include "walk/tensor.h"
#include "walk/tensor_prefetch.h"
#include "walk/unlocked.h"

namespace pyparam::walk {

namespace {

// Whether `zero_()` comes to writing zeros and has no history to cut before.
bool is_plain_gradient(const at::Tensor& grad) {
  return is_ordinary(*grad.unsafeGetTensorImpl()) && !grad.requires_grad() && grad.is_leaf() &&
         !grad.is_inference();
}

}  // namespace

bool zero_gradients(PyObject* module, bool set_to_none) {
  if (ModuleView(module).overridden(kNamedParameters | kNamedMembers) != 0) return false;
  const Detacher modes;
  if (!modes.ordinary()) return false;
  // Let go of, or written to, when the walk is over: a gradient's end may run Python code.
  std::vector<at::Tensor> grads;
  {
    PlainWalk::Lease walk;
    PlainWalk::Wanted wanted;
    wanted.parameters = true;
    const GcPause pause;
    if (!walk->read(module, wanted)) return false;
    const std::vector<Member>& members = walk->parameters().all;
    for (size_t i = 0; i < members.size(); ++i) {
      prefetch_tensors(members, i);
      if (!THPVariable_CheckExact(members[i].value)) return false;
      const at::Tensor& tensor = THPVariable_Unpack(members[i].value);
      if (!is_ordinary(*tensor.unsafeGetTensorImpl()) || !tensor.is_leaf()) return false;
      if (!set_to_none && tensor.grad().defined() && !is_plain_gradient(tensor.grad()))
        return false;
    }
    grads.reserve(members.size());
    for (const Member& member : members) {
      const at::Tensor& tensor = THPVariable_Unpack(member.value);
      if (!tensor.grad().defined()) continue;
      grads.push_back(set_to_none ? std::move(tensor.mutable_grad()) : tensor.grad());
      if (set_to_none) tensor.mutable_grad().reset();
    }
  }
  if (set_to_none) return true;
  const Unlocked unlocked;
  for (const at::Tensor& grad : grads) grad.zero_();
  return true;
}

}  // namespace pyparam::walk
