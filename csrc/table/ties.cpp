#include "table/ties.h"

#include <ATen/SparseCsrTensorImpl.h>
#include <ATen/SparseTensorImpl.h>
#include <c10/core/impl/COW.h>

#include <algorithm>
#include <limits>
#include <numeric>
#include <tuple>
#include <unordered_map>

#include "kernels/extent.h"
#include "table/overlap.h"

namespace pyparam {

namespace {

// A tensor's bounding interval of bytes. Addresses compare only within one space.
struct Stretch {
  uint64_t space;
  int64_t begin;
  int64_t end;
  int32_t owner;
  int32_t part;  // where the memory is not the owner's own: an index of Builder::parts_; else -1
};

// Tensor objects themselves, one byte each, for tensors that have no memory to compare.
constexpr uint64_t kObjects = 0;

bool has_addresses(c10::Device device) {
  return device.type() == c10::DeviceType::CPU || device.type() == c10::DeviceType::CUDA;
}

// Where a storage lies: its space, and its first byte in it.
std::pair<uint64_t, int64_t> place_of(const c10::StorageImpl& storage) {
  // Pointers are larger than any device's number.
  const std::pair<uint64_t, int64_t> by_identity{reinterpret_cast<uintptr_t>(&storage), 0};
  if (!has_addresses(storage.device())) return by_identity;
  try {
    const at::DataPtr& data = storage.data_ptr();
    // Lazy clones have one address until one of them is written.
    if (data.get() == nullptr || c10::impl::cow::is_cow_data_ptr(data)) return by_identity;
    const auto device = static_cast<uint64_t>(storage.device().type()) << 8 |
                        static_cast<uint64_t>(storage.device().index() + 1);
    return {device + 1, static_cast<int64_t>(reinterpret_cast<uintptr_t>(data.get()))};
  } catch (const c10::Error&) {  // functional and other storages that forbid the look
    return by_identity;
  }
}

bool has_plain_layout(const at::Tensor& t) {
  return t.layout() == c10::kStrided && t.has_storage() && !t.is_nested() &&
         !t.unsafeGetTensorImpl()->has_symbolic_sizes_strides();
}

const c10::StorageImpl& storage_of(const at::Tensor& t) {
  return *t.unsafeGetTensorImpl()->unsafe_storage().unsafeGetStorageImpl();
}

bool has_bytes(const at::Tensor& t) {
  if (t.unsafeGetTensorImpl()->has_symbolic_sizes_strides() || t.is_nested()) return true;
  return t.numel() > 0 && t.itemsize() > 0;
}

// The tensors whose memory a tensor's is: itself, or the parts of a sparse one.
std::vector<at::Tensor> parts_of(const at::Tensor& t) {
  switch (t.layout()) {
    case c10::kSparse: {
      const auto* impl = dynamic_cast<const at::SparseTensorImpl*>(t.unsafeGetTensorImpl());
      if (impl != nullptr) return {impl->values(), impl->indices()};
      return {};
    }
    case c10::kSparseCsr:
    case c10::kSparseCsc:
    case c10::kSparseBsr:
    case c10::kSparseBsc: {
      const auto* impl = dynamic_cast<const at::SparseCsrTensorImpl*>(t.unsafeGetTensorImpl());
      if (impl != nullptr)
        return {impl->values(), impl->compressed_indices(), impl->plain_indices()};
      return {};
    }
    default:
      return t.has_storage() ? std::vector<at::Tensor>{t} : std::vector<at::Tensor>{};
  }
}

Footprint layout_of(int64_t owner, const at::Tensor& t, int64_t base) {
  if (!has_plain_layout(t)) {
    constexpr int64_t kFar = std::numeric_limits<int64_t>::max() / 4;
    const int64_t bytes = storage_of(t).sym_nbytes().maybe_as_int().value_or(0);
    return {owner, base, base + (bytes > 0 ? bytes : kFar), 1, {}, true};
  }
  if (!has_extent(t)) {
    // A shrunk storage: what would lie behind its end is somebody else's.
    const auto bytes = static_cast<int64_t>(storage_of(t).nbytes());
    if (bytes > 0) return {owner, base, base + bytes, 1, {}, true};
  }
  const auto unit = static_cast<int64_t>(t.itemsize());
  const int64_t begin = base + t.storage_offset() * unit;
  if (t.is_contiguous())
    return {owner, begin, begin + t.numel() * unit, t.numel() * unit, {}, false};
  std::vector<Dimension> dimensions;
  dimensions.reserve(static_cast<size_t>(t.dim()));
  for (int64_t d = 0; d < t.dim(); ++d) {
    int64_t stride = 0;
    if (__builtin_mul_overflow(t.stride(d), unit, &stride))
      stride = std::numeric_limits<int64_t>::max();
    dimensions.push_back({t.size(d), stride});
  }
  return footprint_of(owner, begin, unit, std::move(dimensions));
}

// Strides of equally shaped tensors, where they matter.
bool same_strides(const at::Tensor& a, const at::Tensor& b) {
  for (int64_t d = 0; d < a.dim(); ++d) {
    if (a.size(d) != 1 && a.stride(d) != b.stride(d)) return false;
  }
  return true;
}

bool same_layout(const at::Tensor& a, const at::Tensor& b) {
  return has_plain_layout(a) && has_plain_layout(b) && a.dtype() == b.dtype() &&
         a.layout() == b.layout() && a.is_conj() == b.is_conj() && a.is_neg() == b.is_neg() &&
         a.sizes() == b.sizes() && same_strides(a, b);
}

}  // namespace

// Columns while they are built: sets as union-find, and the tensors they speak of.
class TieSearch::Builder {
 public:
  Builder(const std::vector<at::Tensor>& tensors, const std::vector<Held>& held)
      : tensors_(tensors),
        objects_(static_cast<int64_t>(tensors.size())),
        layouts_(static_cast<int64_t>(tensors.size())),
        memories_(static_cast<int64_t>(tensors.size())),
        bytes_(tensors.size(), 0),
        vague_(tensors.size(), 0),
        begins_(tensors.size(), 0) {
    TORCH_CHECK_VALUE(tensors.size() <= std::numeric_limits<int32_t>::max(),
                      "ties: more than 2^31 tensors");
    std::vector<const std::vector<at::Tensor>*> stand_ins(held.empty() ? 0 : tensors.size(),
                                                          nullptr);
    for (const auto& [index, inner] : held) stand_ins.at(index) = &inner;
    spans_.reserve(tensors.size());
    for (size_t i = 0; i < tensors.size(); ++i) {
      collect(static_cast<int32_t>(i), stand_ins.empty() ? nullptr : stand_ins[i]);
    }
  }

  // Groups by bounding interval, object and layout, and notes what geometry has to settle.
  void prepare() {
    std::sort(spans_.begin(), spans_.end(), [](const Stretch& a, const Stretch& b) {
      return std::tie(a.space, a.begin, a.end, a.owner, a.part) <
             std::tie(b.space, b.begin, b.end, b.owner, b.part);
    });
    for (size_t first = 0; first < spans_.size();) {
      size_t next = first + 1;
      for (int64_t end = spans_[first].end;
           next < spans_.size() && spans_[next].space == spans_[first].space &&
           spans_[next].begin < end;
           ++next) {
        end = std::max(end, spans_[next].end);
      }
      settle(first, next);
      first = next;
    }
  }

  void search() {
    OverlapResult result{memories_, bytes_, vague_};
    for (std::vector<Footprint>& layouts : clusters_) join_overlapping(std::move(layouts), result);
  }

  TieSets result() {
    settle_composites();
    return finish();
  }

 private:
  // One part of the memory of a sparse tensor or a wrapper.
  struct Part {
    int32_t owner;
    at::Tensor tensor;
  };

  void add(int32_t owner, int32_t part, const at::Tensor& t) {
    const auto [space, base] = place_of(storage_of(t));
    const Footprint layout = layout_of(owner, t, base);
    spans_.push_back({space, layout.begin, layout.end, owner, part});
  }

  void collect(int32_t owner, const std::vector<at::Tensor>* stand_in) {
    const at::Tensor& t = tensors_[owner];
    const size_t before = spans_.size();
    try {
      if (stand_in == nullptr && has_plain_layout(t)) {
        if (has_bytes(t)) add(owner, -1, t);
      } else {
        collect_parts(owner, stand_in != nullptr ? *stand_in : std::vector<at::Tensor>{t});
      }
    } catch (const std::exception&) {
      // A tensor that will not say what it is (a subclass without sizes) is known as an object
      // alone.
      spans_.resize(before);
    }
    if (spans_.size() == before) {
      const auto self = static_cast<int64_t>(reinterpret_cast<uintptr_t>(t.unsafeGetTensorImpl()));
      spans_.push_back({kObjects, self, self + 1, owner, -1});
    }
  }

  void collect_parts(int32_t owner, const std::vector<at::Tensor>& given) {
    const size_t before = spans_.size();
    for (const at::Tensor& whole : given) {
      for (const at::Tensor& part : parts_of(whole)) {
        if (!has_bytes(part)) continue;
        add(owner, static_cast<int32_t>(parts_.size()), part);
        parts_.push_back({owner, part});
      }
    }
    if (spans_.size() > before) composites_.push_back(owner);
  }

  const at::Tensor& tensor(const Stretch& span) const {
    return span.part < 0 ? tensors_[span.owner] : parts_[span.part].tensor;
  }

  void join_objects(int64_t a, int64_t b) {
    objects_.join(a, b);
    layouts_.join(a, b);
    memories_.join(a, b);
  }

  // Spans [first, last) hang together by their bounding intervals.
  void settle(size_t first, size_t last) {
    const bool objects = spans_[first].space == kObjects;
    if (last - first == 1) {
      if (objects) return;
      const Stretch& span = spans_[first];
      const at::Tensor& t = tensor(span);
      if (has_plain_layout(t) && t.is_contiguous()) {
        bytes_[span.owner] += span.end - span.begin;
        return;
      }
    }
    for (size_t i = first; i < last; ++i) begins_[spans_[i].owner] = objects ? 0 : spans_[i].begin;
    // The same object first: one of them speaks for all.
    std::vector<size_t> order(last - first);
    std::iota(order.begin(), order.end(), first);
    const auto object = [&](size_t i) { return tensors_[spans_[i].owner].unsafeGetTensorImpl(); };
    std::stable_sort(order.begin(), order.end(),
                     [&](size_t a, size_t b) { return object(a) < object(b); });
    std::vector<size_t> speakers;
    for (size_t k = 0, leader = 0; k < order.size(); ++k) {
      if (object(order[k]) != object(order[leader])) leader = k;
      const int32_t a = spans_[order[leader]].owner;
      const int32_t b = spans_[order[k]].owner;
      if (a == b) {
        speakers.push_back(order[k]);
      } else {
        join_objects(a, b);
      }
    }
    if (objects) return;
    // Then the same bytes under the same layout: those lie next to each other once sorted by span.
    std::sort(speakers.begin(), speakers.end());
    std::vector<Footprint> footprints;
    std::vector<size_t> distinct;
    for (size_t i : speakers) {
      const Stretch& span = spans_[i];
      bool seen = false;
      for (size_t k = distinct.size(); k-- > 0 && !seen;) {
        const Stretch& other = spans_[distinct[k]];
        if (other.begin != span.begin || other.end != span.end || distinct.size() - k > kLookBack)
          break;
        if (span.owner == other.owner || !same_layout(tensor(span), tensor(other))) continue;
        if (span.part < 0 && other.part < 0) layouts_.join(span.owner, other.owner);
        memories_.join(span.owner, other.owner);
        seen = true;
      }
      if (seen) continue;
      distinct.push_back(i);
      footprints.push_back(
          layout_of(span.owner, tensor(span), place_of(storage_of(tensor(span))).second));
    }
    clusters_.push_back(std::move(footprints));
  }

  // Sparse and wrapped tensors have one layout where all their parts have.
  void settle_composites() {
    for (size_t k = 0; k < composites_.size(); ++k) {
      const int64_t b = composites_[k];
      for (size_t j = k; j-- > 0 && k - j <= kLookBack;) {
        const int64_t a = composites_[j];
        if (memories_.find(a) != memories_.find(b) || layouts_.find(a) == layouts_.find(b))
          continue;
        if (same_composite(a, b)) layouts_.join(a, b);
      }
    }
  }

  std::pair<std::vector<Part>::const_iterator, std::vector<Part>::const_iterator> parts_of_owner(
      int64_t owner) const {
    const auto before = [](const Part& part, int64_t wanted) { return part.owner < wanted; };
    return {std::lower_bound(parts_.begin(), parts_.end(), owner, before),
            std::lower_bound(parts_.begin(), parts_.end(), owner + 1, before)};
  }

  bool same_composite(int64_t a, int64_t b) const {
    if (tensors_[a].dtype() != tensors_[b].dtype() || tensors_[a].layout() != tensors_[b].layout())
      return false;
    const auto [x, x_end] = parts_of_owner(a);
    const auto [y, y_end] = parts_of_owner(b);
    const auto same = [](const Part& p, const Part& q) {
      return same_layout(p.tensor, q.tensor) &&
             p.tensor.storage_offset() == q.tensor.storage_offset() &&
             place_of(storage_of(p.tensor)) == place_of(storage_of(q.tensor));
    };
    return std::equal(x, x_end, y, y_end, same) &&
           tensors_[a].sym_sizes() == tensors_[b].sym_sizes();
  }

  TieSets finish() {
    TieSets out{objects_.leaders(), layouts_.leaders(), memories_.leaders(),
                std::move(bytes_),  std::move(vague_),  std::move(begins_)};
    std::unordered_map<int64_t, int64_t> first_byte;
    for (int64_t i = 0; i < out.size(); ++i) {
      const int64_t leader = out.memory[i];
      if (leader == i) continue;
      out.vague[leader] |= out.vague[i];
      const auto known = first_byte.try_emplace(leader, out.offset[leader]).first;
      known->second = std::min(known->second, out.offset[i]);
    }
    for (int64_t i = 0; i < out.size(); ++i) {
      if (out.offset[i] == 0) continue;
      const auto known = first_byte.find(out.memory[i]);
      out.offset[i] = known == first_byte.end() ? 0 : out.offset[i] - known->second;
    }
    return out;
  }

  // How many different layouts of the very same bytes are kept apart exactly.
  static constexpr size_t kLookBack = 64;

  const std::vector<at::Tensor>& tensors_;
  std::vector<Stretch> spans_;
  std::vector<Part> parts_;
  std::vector<int64_t> composites_;
  std::vector<std::vector<Footprint>> clusters_;
  DisjointSets objects_;
  DisjointSets layouts_;
  DisjointSets memories_;
  std::vector<int64_t> bytes_;
  std::vector<char> vague_;
  std::vector<int64_t> begins_;
};

int64_t TieSets::total_bytes() const {
  return std::accumulate(bytes.begin(), bytes.end(), int64_t{0});
}

bool TieSets::apart() const {
  for (int64_t i = 0; i < size(); ++i) {
    if (memory[i] != i) return false;
  }
  return true;
}

std::vector<std::vector<int64_t>> TieSets::groups() const {
  std::vector<std::vector<int64_t>> out;
  std::vector<int64_t> place(memory.size(), -1);
  for (int64_t i = 0; i < size(); ++i) {
    const int64_t leader = memory[i];
    if (leader == i) continue;
    if (place[leader] < 0) {
      place[leader] = static_cast<int64_t>(out.size());
      out.push_back({leader});
    }
    out[place[leader]].push_back(i);
  }
  std::sort(out.begin(), out.end(),
            [](const auto& a, const auto& b) { return a.front() < b.front(); });
  return out;
}

std::vector<int64_t> python_tensors(const std::vector<at::Tensor>& tensors) {
  std::vector<int64_t> out;
  for (size_t i = 0; i < tensors.size(); ++i) {
    if (tensors[i].unsafeGetTensorImpl()->key_set().has(c10::DispatchKey::Python)) {
      out.push_back(static_cast<int64_t>(i));
    }
  }
  return out;
}

TieSearch::TieSearch(const std::vector<at::Tensor>& tensors, const std::vector<Held>& held)
    : builder_(std::make_unique<Builder>(tensors, held)) {
  builder_->prepare();
}

TieSearch::~TieSearch() = default;

void TieSearch::search() { builder_->search(); }

TieSets TieSearch::result() { return builder_->result(); }

}  // namespace pyparam
