// fill_ on CUDA: one launch for all tensors of a device that one map draws, one for all constants.
#include "kernels/fill.h"

#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/ops/empty.h>
#include <c10/util/Exception.h>
#include <torch/library.h>

#include <cstring>
#include <limits>
#include <map>
#include <utility>

#include "kernels/cuda/devices.h"
#include "kernels/cuda/fill.h"
#include "kernels/cuda/launch.cuh"
#include "kernels/memory_spans.h"

namespace pyparam::cuda {
namespace {

using random::Map;

// One call, on all its devices.
struct FillCall {
  at::TensorList tensors;
  const Fill& fill;
  uint64_t seed;
  at::Tensor moments;  // on the device at work; undefined where none are asked for
};

struct Subset {
  std::vector<int64_t> which;  // indices in the call
  std::vector<at::Tensor> tensors;

  void add(int64_t i, const at::Tensor& tensor) {
    which.push_back(i);
    tensors.push_back(tensor);
  }
};

int64_t chunk_for(const std::vector<at::Tensor>& tensors) {
  int64_t bytes = 0;
  for (const at::Tensor& tensor : tensors) bytes += static_cast<int64_t>(tensor.nbytes());
  return chunk_elements_for(bytes, 4);
}

// The columns of `subset` that tell what each tensor is drawn from.
void describe(const FillCall& call, const Subset& subset, std::vector<FillSource>& sources,
              std::vector<ExtentRow>& extents) {
  sources.reserve(subset.which.size());
  for (const int64_t i : subset.which) {
    const FillRow& row = call.fill.rows[i];
    FillSource source{row.key.stream,
                      row.whole.offset,
                      static_cast<int32_t>(row.draw),
                      static_cast<int32_t>(extents.size()),
                      0,
                      static_cast<int32_t>(i)};
    const auto& dims = row.whole.dims;
    if (dims.size() > 1 || (dims.size() == 1 && dims[0].stride != 1)) {
      source.extents = static_cast<int32_t>(dims.size());
      for (const Extent& dim : dims) extents.push_back({dim.size, dim.stride});
    }
    sources.push_back(source);
  }
}

template <Map map>
void draw_subset(const OnDevice& on, const FillCall& call, const Subset& subset) {
  if (subset.which.empty()) return;
  DeviceTable table("fill_", subset.tensors, chunk_for(subset.tensors));
  std::vector<FillSource> sources;
  std::vector<ExtentRow> extents;
  describe(call, subset, sources, extents);
  ColumnLayout layout;
  table.add_to(layout);
  const int64_t sources_at = layout.add<FillSource>(static_cast<int64_t>(sources.size()));
  const int64_t extents_at = layout.add<ExtentRow>(static_cast<int64_t>(extents.size()));
  const int64_t draws_at = layout.add<random::Draw>(static_cast<int64_t>(call.fill.draws.size()));
  Upload upload(layout.bytes());
  table.write(upload.host());
  put_rows(upload.host(), sources_at, sources);
  put_rows(upload.host(), extents_at, extents);
  put_rows(upload.host(), draws_at, call.fill.draws);
  const at::Tensor bytes = upload.send(on);
  const auto* there = static_cast<const char*>(bytes.const_data_ptr());
  const TableView view = table.view(there);
  const auto* device_sources = reinterpret_cast<const FillSource*>(there + sources_at);
  const auto* draws = reinterpret_cast<const random::Draw*>(there + draws_at);

  at::Tensor partial;
  FillSums* sums = nullptr;
  if (call.moments.defined()) {
    partial = room(on, table.chunk_count() * static_cast<int64_t>(sizeof(FillSums)));
    sums = static_cast<FillSums*>(partial.mutable_data_ptr());
  }
  launch<FillBody<map>>(
      on, table.chunk_count(),
      {view, device_sources, reinterpret_cast<const ExtentRow*>(there + extents_at), draws,
       call.seed, sums});
  if (sums != nullptr) {
    launch<FillMoments>(
        on, table.tensor_count(),
        {view, device_sources, draws, sums, call.moments.mutable_data_ptr<double>()});
  }
}

// Torch's own fill_ on one element says what the value becomes in each dtype.
class Patterns {
 public:
  int32_t find(double value, at::ScalarType dtype) {
    uint64_t bits;
    std::memcpy(&bits, &value, sizeof(bits));
    const auto [entry, fresh] =
        known_.try_emplace({bits, dtype}, static_cast<int32_t>(patterns_.size()));
    if (fresh) patterns_.push_back(make(value, dtype));
    return entry->second;
  }
  const std::vector<FillPattern>& all() const { return patterns_; }

 private:
  static FillPattern make(double value, at::ScalarType dtype) {
    const at::Tensor one = at::empty({1}, dtype).fill_(value);
    const auto size = static_cast<int64_t>(one.itemsize());
    TORCH_CHECK_TYPE(size <= 16 && 16 % size == 0, "fill_: dtype ", dtype, " cannot be filled");
    FillPattern pattern{};
    pattern.size = size;
    auto* bytes = reinterpret_cast<char*>(&pattern.bytes);
    for (int64_t at = 0; at < 16; at += size)
      std::memcpy(bytes + at, one.const_data_ptr(), static_cast<size_t>(size));
    return pattern;
  }

  std::map<std::pair<uint64_t, at::ScalarType>, int32_t> known_;
  std::vector<FillPattern> patterns_;
};

double constant_of(const Fill& fill, int64_t i) { return fill.draw(i).affine64.shift; }

void set_subset(const OnDevice& on, const FillCall& call, const Subset& subset,
                Patterns& patterns) {
  if (subset.which.empty()) return;
  DeviceTable table("fill_", subset.tensors, chunk_for(subset.tensors));
  std::vector<int32_t> pattern_of;
  pattern_of.reserve(subset.which.size());
  for (const int64_t i : subset.which)
    pattern_of.push_back(patterns.find(constant_of(call.fill, i), call.tensors[i].scalar_type()));
  ColumnLayout layout;
  table.add_to(layout);
  const int64_t pattern_of_at = layout.add<int32_t>(static_cast<int64_t>(pattern_of.size()));
  const int64_t patterns_at = layout.add<FillPattern>(static_cast<int64_t>(patterns.all().size()));
  Upload upload(layout.bytes());
  table.write(upload.host());
  put_rows(upload.host(), pattern_of_at, pattern_of);
  put_rows(upload.host(), patterns_at, patterns.all());
  const at::Tensor bytes = upload.send(on);
  const auto* there = static_cast<const char*>(bytes.const_data_ptr());
  launch<FillConstant>(on, table.chunk_count(),
                       {table.view(there), reinterpret_cast<const int32_t*>(there + pattern_of_at),
                        reinterpret_cast<const FillPattern*>(there + patterns_at)});
}

// Fills tensors of one device, no two of which share memory.
void fill_together(const OnDevice& on, const FillCall& call, const std::vector<int64_t>& which,
                   Patterns& patterns) {
  std::map<Map, Subset> subsets;
  for (const int64_t i : which) subsets[call.fill.draw(i).map].add(i, call.tensors[i]);
  set_subset(on, call, subsets[Map::kConstant], patterns);
  draw_subset<Map::kUniform>(on, call, subsets[Map::kUniform]);
  draw_subset<Map::kNormal>(on, call, subsets[Map::kNormal]);
  draw_subset<Map::kTruncated>(on, call, subsets[Map::kTruncated]);
  draw_subset<Map::kFarTail>(on, call, subsets[Map::kFarTail]);
}

void fill_device(const OnDevice& on, const FillCall& call, const std::vector<int64_t>& which,
                 Patterns& patterns) {
  std::vector<at::Tensor> tensors;
  tensors.reserve(which.size());
  for (const int64_t i : which) tensors.push_back(call.tensors[i]);
  auto next = which.begin();
  for (const at::TensorList piece : pieces_apart(tensors)) {
    const auto end = next + static_cast<int64_t>(piece.size());
    fill_together(on, call, {next, end}, patterns);
    next = end;
  }
}

// What is known of the moments without looking: those of constants; NaN for all others, which the
// kernels overwrite where they draw.
at::Tensor known_moments(const OnDevice& on, at::TensorList tensors, const Fill& fill) {
  const auto count = static_cast<int64_t>(tensors.size());
  Upload upload(2 * count * static_cast<int64_t>(sizeof(double)));
  auto* rows = reinterpret_cast<double*>(upload.host());
  for (int64_t i = 0; i < count; ++i) {
    const bool constant = fill.draw(i).map == Map::kConstant && tensors[i].numel() > 0;
    rows[2 * i] = constant ? fill.draw(i).centre : std::numeric_limits<double>::quiet_NaN();
    rows[2 * i + 1] = constant ? 0.0 : std::numeric_limits<double>::quiet_NaN();
  }
  return upload.send(on).view(at::kDouble).view({count, 2});
}

// The tensors at `which` and their columns: a fill of their own.
struct Columns {
  std::vector<at::Tensor> tensors;
  std::vector<int64_t> kinds, streams, offsets, strides;
  std::vector<double> parameters;

  Columns(at::TensorList all, const FillColumns& c, const std::vector<int64_t>& which) {
    std::vector<size_t> first_dim(all.size() + 1);
    for (size_t i = 0; i < all.size(); ++i)
      first_dim[i + 1] = first_dim[i] + static_cast<size_t>(all[i].dim());
    for (const int64_t i : which) {
      tensors.push_back(all[i]);
      kinds.push_back(c.kinds[i]);
      streams.push_back(c.streams[i]);
      if (!c.offsets.empty()) offsets.push_back(c.offsets[i]);
      const auto p = c.parameters.slice(i * random::kParameters, random::kParameters);
      parameters.insert(parameters.end(), p.begin(), p.end());
      if (c.strides.empty()) continue;
      const auto s = c.strides.slice(first_dim[i], static_cast<size_t>(all[i].dim()));
      strides.insert(strides.end(), s.begin(), s.end());
    }
  }
};

at::Tensor fill_cuda(at::TensorList tensors, at::IntArrayRef kinds, at::ArrayRef<double> parameters,
                     int64_t seed, at::IntArrayRef streams, at::IntArrayRef offsets,
                     at::IntArrayRef strides, bool moments) {
  const FillColumns columns{kinds, parameters, seed, streams, offsets, strides};
  const Fill fill = prepare_fill(tensors, columns);
  const auto count = static_cast<int64_t>(tensors.size());
  TORCH_CHECK_VALUE(count <= std::numeric_limits<int32_t>::max() &&
                        fill.draws.size() <= std::numeric_limits<int32_t>::max(),
                    "fill_: ", count, " tensors in one list; fewer than 2^31 expected");
  std::vector<std::pair<at::Device, std::vector<int64_t>>> devices;
  std::vector<int64_t> elsewhere;
  Patterns patterns;
  at::Device home(at::kCUDA, 0);  // where the moments are
  bool found = false;
  for (int64_t i = 0; i < count; ++i) {
    const at::Tensor& tensor = tensors[i];
    if (!found && tensor.defined() && tensor.is_cuda()) {
      home = tensor.device();
      found = true;
    }
    if (fill.draw(i).map == Map::kKeep && kinds[i] < 0) continue;
    TORCH_CHECK_VALUE(tensor.is_cuda() || tensor.is_cpu(), "fill_: tensors[", i, "] is on ",
                      tensor.device(),
                      " and others are on CUDA devices; fill them in separate calls");
    if (tensor.is_cpu()) {
      elsewhere.push_back(i);
      continue;
    }
    auto group = devices.begin();
    while (group != devices.end() && group->first != tensor.device()) ++group;
    if (group == devices.end())
      group = devices.insert(group, {tensor.device(), std::vector<int64_t>{}});
    group->second.push_back(i);
  }

  at::Tensor result;
  {
    const OnDevice on(home);
    result = moments ? known_moments(on, tensors, fill)
                     : at::empty({0, 2}, at::TensorOptions(at::kDouble).device(home));
  }
  if (!elsewhere.empty()) {
    refuse_capture("fill_");
    static const auto op = c10::Dispatcher::singleton()
                               .findSchemaOrThrow("pyparam::fill_", "")
                               .typed<decltype(fill_cuda)>();
    const Columns part(tensors, columns, elsewhere);
    const at::Tensor there = op.call(part.tensors, part.kinds, part.parameters, seed, part.streams,
                                     part.offsets, part.strides, moments);
    for (size_t k = 0; moments && k < elsewhere.size(); ++k)
      result.select(0, elsewhere[k]).copy_(there.select(0, static_cast<int64_t>(k)));
  }
  for (const auto& [device, which] : devices) {
    const OnDevice on(device);
    FillCall call{tensors, fill, static_cast<uint64_t>(seed), {}};
    if (moments) call.moments = device == home ? result : result.to(device);
    fill_device(on, call, which, patterns);
    if (!moments || device == home) continue;
    const at::Tensor back = call.moments.to(home);
    for (const int64_t i : which) result.select(0, i).copy_(back.select(0, i));
  }
  return result;
}

}  // namespace
}  // namespace pyparam::cuda

TORCH_LIBRARY_IMPL(pyparam, CUDA, m) { m.impl("fill_", &pyparam::cuda::fill_cuda); }
