#include "kernels/pack.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/empty_strided.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/zeros.h>
#include <c10/core/GradMode.h>
#include <c10/core/InferenceMode.h>
#include <c10/util/Exception.h>

#include <algorithm>

#include "kernels/alike.h"
#include "kernels/cpu/memory.h"
#include "kernels/extent.h"
#include "kernels/flatten.h"

namespace pyparam {
namespace {

// A tensor about to move, and the bytes it covers now.
struct Item {
  at::Tensor tensor;
  int64_t index;  // in the table, -1 - i for buffer i
  const char* begin;
  const char* end;
};

// Items whose bytes overlap, moved as one; most often one item.
struct Region {
  std::vector<Item> items;
  const char* begin;
  const char* end;
  bool whole;  // one item whose elements are distinct: it becomes contiguous. Else its bytes move
               // as they lie.
  int64_t first;  // the smallest table index among the items
  int64_t numel;  // elements it takes in the buffer
  size_t group;
  int64_t offset;           // in the buffer, in elements
  at::Tensor storage_view;  // 1-D over the region's new storage
};

std::string spoken(const Item& item) {
  return item.index < 0 ? "a buffer" : "tensors[" + std::to_string(item.index) + "]";
}

Item item_of(const at::Tensor& tensor, int64_t index) {
  const auto* begin = static_cast<const char*>(tensor.const_data_ptr());
  if (tensor.numel() == 0) return {tensor, index, begin, begin};
  require_extent(tensor, [&] {
    return index < 0 ? std::string("pack_: a buffer") : c10::str("pack_: tensors[", index, "]");
  });
  int64_t last = 0;
  for (int64_t d = 0; d < tensor.dim(); ++d) last += (tensor.size(d) - 1) * tensor.stride(d);
  return {tensor, index, begin, begin + (last + 1) * static_cast<int64_t>(tensor.itemsize())};
}

// What can be moved: ordinary tensors with memory of their own.
void require_movable(const Subject& subject, size_t i) {
  require_strided("pack_", subject, i);
  const at::Tensor& tensor = subject[i];
  if (!tensor.defined()) return;
  TORCH_CHECK_TYPE(!tensor.is_meta(), "pack_: ", subject.spoken(i),
                   " is on meta; expected one that has memory");
  TORCH_CHECK_TYPE(tensor.has_storage() && !tensor.key_set().has(c10::DispatchKey::Python),
                   "pack_: ", subject.spoken(i),
                   " is a wrapper without memory of its own; expected a plain tensor");
  TORCH_CHECK_TYPE(!tensor.is_conj() && !tensor.is_neg(), "pack_: ", subject.spoken(i),
                   " is a lazy conjugate or negative view; expected a tensor of its own "
                   "(resolve_conj().resolve_neg())");
}

std::vector<Region> regions_of(at::TensorList parameters, at::TensorList buffers) {
  std::vector<Item> items;
  items.reserve(parameters.size() + buffers.size());
  const Subject subject{parameters};
  for (size_t i = 0; i < parameters.size(); ++i) {
    require_movable(subject, i);
    Item item = item_of(parameters[i], static_cast<int64_t>(i));
    if (item.begin != item.end) items.push_back(std::move(item));
  }
  for (size_t i = 0; i < buffers.size(); ++i) {
    const at::Tensor& buffer = buffers[i];
    const bool plain = buffer.defined() && buffer.layout() == at::kStrided && !buffer.is_nested() &&
                       !buffer.is_meta() && buffer.has_storage() &&
                       !buffer.key_set().has(c10::DispatchKey::Python) && buffer.numel() != 0 &&
                       buffer.storage().data() != nullptr;
    if (plain) items.push_back(item_of(buffer, -1 - static_cast<int64_t>(i)));
  }
  const auto place = [](const Item& item) {
    return std::make_tuple(static_cast<int>(item.tensor.device().type()),
                           item.tensor.device().index(), item.begin);
  };
  std::stable_sort(items.begin(), items.end(),
                   [&](const Item& a, const Item& b) { return place(a) < place(b); });
  std::vector<Region> regions;
  for (Item& item : items) {
    const bool joins = !regions.empty() &&
                       regions.back().items.front().tensor.device() == item.tensor.device() &&
                       item.begin < regions.back().end;
    if (!joins) regions.push_back({{}, item.begin, item.end, false, -1, 0, 0, 0, {}});
    Region& region = regions.back();
    region.end = std::max(region.end, item.end);
    if (item.index >= 0 && (region.first < 0 || item.index < region.first))
      region.first = item.index;
    region.items.push_back(std::move(item));
  }
  regions.erase(
      std::remove_if(regions.begin(), regions.end(), [](const Region& r) { return r.first < 0; }),
      regions.end());
  std::sort(regions.begin(), regions.end(),
            [](const Region& a, const Region& b) { return a.first < b.first; });
  for (Region& region : regions) {
    const Item& lead = region.items.front();
    const auto itemsize = static_cast<int64_t>(lead.tensor.itemsize());
    for (const Item& item : region.items) {
      TORCH_CHECK_TYPE(item.tensor.scalar_type() == lead.tensor.scalar_type() &&
                           (item.begin - region.begin) % itemsize == 0,
                       "pack_: ", spoken(lead), " and ", spoken(item),
                       " share memory under two dtypes; expected one dtype, or memory apart");
    }
    region.whole = region.items.size() == 1 && distinct_elements(lead.tensor);
    region.numel = region.whole ? lead.tensor.numel() : (region.end - region.begin) / itemsize;
  }
  return regions;
}

at::Tensor new_buffer(int64_t numel, const at::TensorOptions& options) {
  if (options.device().is_cpu())
    return cpu::fresh_vector(numel, c10::typeMetaToScalarType(options.dtype()));
  return at::empty({numel}, options);
}

// A 1-D tensor whose storage is these elements of a buffer and no more. The storage keeps the
// buffer alive. Saving the tensor therefore writes its own bytes alone, and resizing it cannot
// reach its neighbours.
at::Tensor part_of(const at::Tensor& buffer, int64_t offset, int64_t numel) {
  struct Keep {
    c10::Storage storage;
  };
  const auto itemsize = static_cast<int64_t>(buffer.itemsize());
  char* begin = static_cast<char*>(buffer.mutable_data_ptr()) + offset * itemsize;
  c10::DataPtr data(
      begin, new Keep{buffer.storage()}, [](void* keep) { delete static_cast<Keep*>(keep); },
      buffer.device());
  c10::Storage storage(c10::Storage::use_byte_size_t(), static_cast<size_t>(numel * itemsize),
                       std::move(data),
                       /*allocator=*/nullptr, /*resizable=*/false);
  at::Tensor part = at::empty({0}, buffer.options());
  part.set_(std::move(storage), 0, {numel}, {1});
  return part;
}

// One way to see all the bytes of a region, to copy them.
at::Tensor bytes_as_they_lie(const Region& region) {
  const at::Tensor& lead = region.items.front().tensor;
  return at::from_blob(const_cast<char*>(region.begin), {region.numel}, lead.options());
}

// tensor.set_data with a way back.
class Swaps {
 public:
  void add(const at::Tensor& tensor, at::Tensor target) {
    swaps_.emplace_back(tensor, std::move(target));
  }
  void run() {
    std::vector<at::Tensor> before;
    before.reserve(swaps_.size());
    for (const auto& swap : swaps_) before.push_back(swap.first.variable_data());
    size_t done = 0;
    try {
      for (; done < swaps_.size(); ++done) swaps_[done].first.set_data(swaps_[done].second);
    } catch (...) {
      while (done-- > 0) swaps_[done].first.set_data(before[done]);
      throw;
    }
  }

 private:
  std::vector<std::pair<at::Tensor, at::Tensor>> swaps_;
};

}  // namespace

PackedState pack(at::TensorList parameters, at::TensorList buffers, bool grads) {
  const c10::InferenceMode ordinary(false);
  const at::NoGradGuard no_grad;
  std::vector<Region> regions = regions_of(parameters, buffers);
  if (grads) {
    const Subject gradients{parameters, true, true};
    for (size_t i = 0; i < parameters.size(); ++i) {
      require_movable(gradients, i);
      TORCH_CHECK_TYPE(
          !gradients[i].defined() || (gradients[i].scalar_type() == parameters[i].scalar_type() &&
                                      gradients[i].device() == parameters[i].device()),
          "pack_: ", gradients.spoken(i), " differs from its parameter in dtype or device");
    }
    for (const Region& region : regions) {
      const Item* first = nullptr;
      for (const Item& item : region.items) {
        if (item.index < 0) continue;
        TORCH_CHECK_VALUE(first == nullptr, "pack_: ", spoken(*first), " and ", spoken(item),
                          " share memory, so with grads=True their two gradients would too; "
                          "expected one Parameter");
        first = &item;
      }
      TORCH_CHECK_VALUE(
          region.whole || region.items.size() > 1, "pack_: ", spoken(*first),
          " has elements that share memory, so with grads=True those of its gradient would too");
    }
  }

  PackedState state;
  state.grads = grads;
  std::vector<int64_t> totals;
  std::vector<at::TensorOptions> options;
  for (Region& region : regions) {
    const at::Tensor& lead = region.items.front().tensor;
    size_t g = 0;
    while (g < options.size() &&
           !(options[g].device() == lead.device() && options[g].dtype() == lead.dtype()))
      ++g;
    if (g == options.size()) {
      options.push_back(at::TensorOptions(lead.device()).dtype(lead.dtype()));
      totals.push_back(0);
    }
    region.group = g;
    region.offset = totals[g];
    totals[g] += region.numel;
  }

  // Everything that can fail or take time comes before the first tensor changes.
  Swaps swaps;
  std::vector<std::vector<at::Tensor>> sources(options.size());
  for (size_t g = 0; g < options.size(); ++g) {
    state.groups.push_back({new_buffer(totals[g], options[g]), {}});
    if (grads) state.groups.back().flat_grad = at::zeros({totals[g]}, options[g]);
  }
  std::vector<std::pair<at::Tensor, at::Tensor>> new_grads;
  for (size_t r = 0; r < regions.size(); ++r) {
    Region& region = regions[r];
    const PackedGroup& group = state.groups[region.group];
    sources[region.group].push_back(region.whole ? region.items.front().tensor
                                                 : bytes_as_they_lie(region));
    const at::Tensor part = part_of(group.flat, region.offset, region.numel);
    for (const Item& item : region.items) {
      const auto itemsize = static_cast<int64_t>(item.tensor.itemsize());
      at::Tensor target = region.whole ? part.view(item.tensor.sizes())
                                       : part.as_strided(item.tensor.sizes(), item.tensor.strides(),
                                                         (item.begin - region.begin) / itemsize);
      PackedMember member{
          item.index, r, target, target.const_data_ptr(), item.tensor.strides().vec(), nullptr};
      if (grads && item.index >= 0 &&
          (item.tensor.requires_grad() || item.tensor.grad().defined())) {
        const at::Tensor grad_part = part_of(group.flat_grad, region.offset, region.numel);
        at::Tensor grad = region.whole
                              ? grad_part.view(item.tensor.sizes())
                              : grad_part.as_strided(item.tensor.sizes(), item.tensor.strides(),
                                                     (item.begin - region.begin) / itemsize);
        member.grad_place = grad.const_data_ptr();
        if (item.tensor.grad().defined()) {
          grad.copy_(item.tensor.grad());
          swaps.add(item.tensor.grad(), grad);
        } else {
          new_grads.emplace_back(item.tensor, std::move(grad));
        }
      }
      swaps.add(item.tensor, std::move(target));
      state.members.push_back(std::move(member));
    }
  }
  for (size_t g = 0; g < options.size(); ++g)
    flatten_out(sources[g], std::nullopt, state.groups[g].flat);
  for (const at::Tensor& parameter : parameters) {
    if (parameter.numel() != 0) continue;
    const auto index = static_cast<int64_t>(&parameter - parameters.data());
    state.members.push_back(
        {index, regions.size(), {}, nullptr, parameter.strides().vec(), nullptr});
  }
  std::stable_sort(state.members.begin(), state.members.end(),
                   [](const PackedMember& a, const PackedMember& b) {
                     return static_cast<uint64_t>(a.index) <
                            static_cast<uint64_t>(b.index);  // buffers, below 0, come last
                   });

  swaps.run();
  for (auto& [parameter, grad] : new_grads) parameter.mutable_grad() = std::move(grad);
  return state;
}

bool in_place(const PackedMember& member, const at::Tensor& then, const at::Tensor& now,
              bool grads) {
  if (!now.is_same(then) || !now.has_storage()) return false;
  if (!member.target.defined()) return now.numel() == 0;
  if (now.const_data_ptr() != member.place || now.dtype() != member.target.dtype() ||
      now.sizes() != member.target.sizes() || now.strides() != member.target.strides()) {
    return false;
  }
  if (!grads || member.grad_place == nullptr) return true;
  const at::Tensor& grad = now.unsafeGetTensorImpl()->grad();
  return grad.defined() && grad.has_storage() && grad.const_data_ptr() == member.grad_place;
}

void unpack(PackedState& state, at::TensorList parameters, at::TensorList buffers) {
  const c10::InferenceMode ordinary(false);
  const at::NoGradGuard no_grad;
  Swaps swaps;
  std::vector<at::Tensor> shared;  // the copy of a region with several members, by region
  std::vector<size_t> members_of;
  for (const PackedMember& member : state.members) {
    if (member.region >= members_of.size()) members_of.resize(member.region + 1, 0);
    ++members_of[member.region];
  }
  shared.resize(members_of.size());
  for (const PackedMember& member : state.members) {
    const at::Tensor& tensor = member.index < 0 ? buffers[static_cast<size_t>(-1 - member.index)]
                                                : parameters[static_cast<size_t>(member.index)];
    if (!in_place(member, tensor, tensor, false) || !member.target.defined()) continue;
    const bool alone = members_of[member.region] == 1 && distinct_elements(tensor);
    if (alone) {
      at::Tensor own = at::empty_strided(tensor.sizes(), member.strides, tensor.options());
      // Strides with gaps came from a larger tensor that is gone: without it they are of no use.
      if (!own.is_non_overlapping_and_dense()) own = at::empty(tensor.sizes(), tensor.options());
      own.copy_(tensor);
      swaps.add(tensor, std::move(own));
    } else {
      at::Tensor& copy = shared[member.region];
      const auto numel = static_cast<int64_t>(tensor.storage().nbytes() / tensor.itemsize());
      if (!copy.defined()) copy = tensor.detach().as_strided({numel}, {1}, 0).clone();
      swaps.add(tensor, copy.as_strided(tensor.sizes(), tensor.strides(), tensor.storage_offset()));
    }
    if (member.grad_place != nullptr && tensor.unsafeGetTensorImpl()->grad().defined() &&
        tensor.grad().const_data_ptr() == member.grad_place) {
      swaps.add(tensor.grad(), tensor.grad().clone());
    }
  }
  swaps.run();
  state.members.clear();
  state.groups.clear();
}

}  // namespace pyparam
