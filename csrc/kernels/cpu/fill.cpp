// torch.ops.pyparam.fill_ on the CPU, and how autograd, Meta and devices without a kernel of their
// own see it.
#include "kernels/fill.h"

#include <ATen/TensorUtils.h>
#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <torch/library.h>

#include <type_traits>

#include "kernels/cpu/draw_tile.h"
#include "kernels/cpu/parallel.h"

namespace pyparam {
namespace {

using cpu::kTileBlocks;
using cpu::Sums;
using cpu::TileFunctions;
using random::kPerBlock;
using random::Map;

constexpr int64_t kChunkElements = 1 << 16;
constexpr int64_t kGroupElements = 1 << 16;
constexpr int64_t kAhead = 4;  // chunks

// Values are drawn in double for float64 and in float for everything narrower.
template <typename Stored>
using Drawn = std::conditional_t<std::is_same_v<Stored, double>, double, float>;

// Writes elements first .. first + count of a stream. A block that is cut at an end is drawn in
// full aside.
template <typename Real>
void draw_range(const TileFunctions& tile, const random::Draw& draw, random::Key key, int64_t first,
                int64_t count, Real* out) {
  constexpr int64_t per_block = kPerBlock<Real>;
  alignas(64) Real aside[kTileBlocks * per_block];
  while (count > 0) {
    const int64_t lead = first % per_block;
    const auto block = static_cast<uint64_t>(first / per_block);
    if (lead == 0 && count >= per_block) {
      const int64_t blocks = std::min(count / per_block, kTileBlocks);
      tile.draw(draw, key, block, blocks, out);
      out += blocks * per_block;
      first += blocks * per_block;
      count -= blocks * per_block;
      continue;
    }
    const int64_t blocks = std::min((lead + count + per_block - 1) / per_block, kTileBlocks);
    const int64_t taken = std::min(blocks * per_block - lead, count);
    tile.draw(draw, key, block, blocks, aside);
    std::copy_n(aside + lead, taken, out);
    out += taken;
    first += taken;
    count -= taken;
  }
}

void narrow(const TileFunctions& tile, const float* values, int64_t count, c10::BFloat16* out) {
  tile.to_bfloat16(values, count, reinterpret_cast<uint16_t*>(out));
}
void narrow(const TileFunctions& tile, const float* values, int64_t count, c10::Half* out) {
  tile.to_float16(values, count, reinterpret_cast<uint16_t*>(out));
}
template <typename Real>
void narrow(const TileFunctions&, const Real* values, int64_t count, Real* out) {
  std::copy_n(values, count, out);
}

// Fills elements [begin, begin + length) of one tensor, a tile at a time, and sums them if asked.
template <typename Stored>
Sums fill_chunk(const random::Draw& draw, const FillRow& row, Stored* data, int64_t begin,
                int64_t length, bool moments) {
  using Real = Drawn<Stored>;
  const TileFunctions& tile = cpu::tile_functions();
  constexpr int64_t tile_elements = kTileBlocks * kPerBlock<Real>;
  alignas(64) Real values[tile_elements];
  alignas(64) Stored stored[tile_elements];
  Sums sums;
  for (int64_t done = 0; done < length; done += tile_elements) {
    const int64_t count = std::min(tile_elements, length - done);
    const bool dense =
        row.memory.dims.size() <= 1 && (row.memory.dims.empty() || row.memory.dims[0].stride == 1);
    Stored* const target = data + row.memory.offset + begin + done;
    Real* drawn = values;
    if constexpr (std::is_same_v<Stored, Real>) {
      if (dense) drawn = target;
    }
    row.whole.for_runs(
        begin + done, count, [&](int64_t position, int64_t first, int64_t run, int64_t step) {
          if (step == 1) return draw_range(tile, draw, row.key, first, run, drawn + position);
          for (int64_t k = 0; k < run; ++k)
            draw_range(tile, draw, row.key, first + k * step, 1, drawn + position + k);
        });
    if (moments) {
      const Sums part = tile.sums(drawn, count, draw.centre);
      sums.first += part.first;
      sums.second += part.second;
    }
    if (dense) {
      if (static_cast<const void*>(drawn) != static_cast<const void*>(target))
        narrow(tile, drawn, count, target);
      continue;
    }
    narrow(tile, drawn, count, stored);
    row.memory.for_runs(begin + done, count,
                        [&](int64_t position, int64_t at, int64_t run, int64_t step) {
                          for (int64_t k = 0; k < run; ++k)
                            data[at + k * step] = stored[position + k];
                        });
  }
  return sums;
}

// A tensor's memory: its first byte, the byte after its last, what it holds.
struct Memory {
  char* begin = nullptr;
  char* end = nullptr;
  int64_t numel = 0;
  at::ScalarType type = at::ScalarType::Undefined;
};

Sums fill_chunk(const random::Draw& draw, const FillRow& row, const Memory& to, const Chunk& chunk,
                bool moments) {
  switch (to.type) {
    case at::kFloat:
      return fill_chunk(draw, row, reinterpret_cast<float*>(to.begin), chunk.begin, chunk.length,
                        moments);
    case at::kDouble:
      return fill_chunk(draw, row, reinterpret_cast<double*>(to.begin), chunk.begin, chunk.length,
                        moments);
    case at::kHalf:
      return fill_chunk(draw, row, reinterpret_cast<c10::Half*>(to.begin), chunk.begin,
                        chunk.length, moments);
    default:
      return fill_chunk(draw, row, reinterpret_cast<c10::BFloat16*>(to.begin), chunk.begin,
                        chunk.length, moments);
  }
}

std::vector<Memory> memory_of(at::TensorList tensors, const Fill& fill) {
  std::vector<Memory> all(tensors.size());
  at::parallel_for(0, static_cast<int64_t>(tensors.size()), 1 << 16,
                   [&](int64_t begin, int64_t end) {
                     for (int64_t i = begin; i < end; ++i) {
                       const at::Tensor& t = tensors[i];
                       if (fill.draw(i).map == Map::kKeep || t.numel() == 0) continue;
                       int64_t last = 0;
                       for (int64_t d = 0; d < t.dim(); ++d) last += (t.size(d) - 1) * t.stride(d);
                       auto* first = static_cast<char*>(t.mutable_data_ptr());
                       all[i] = {first, first + (last + 1) * static_cast<int64_t>(t.element_size()),
                                 t.numel(), t.scalar_type()};
                     }
                   });
  return all;
}

// Which tensors reach into another's memory. They are filled one after another, in order, so that
// the result does not depend on threads: of elements that two tensors share, the later tensor's
// value stays.
std::vector<bool> entangled(const std::vector<Memory>& memory) {
  std::vector<std::pair<const char*, size_t>> order;
  order.reserve(memory.size());
  for (size_t i = 0; i < memory.size(); ++i) {
    if (memory[i].begin != nullptr) order.emplace_back(memory[i].begin, i);
  }
  if (!std::is_sorted(order.begin(), order.end())) std::sort(order.begin(), order.end());
  std::vector<bool> result(memory.size(), false);
  for (size_t k = 1, longest = 0; k < order.size(); ++k) {
    const size_t here = order[k].second, before = order[longest].second;
    if (memory[here].begin < memory[before].end) result[here] = result[before] = true;
    if (memory[here].end > memory[before].end) longest = k;
  }
  return result;
}

void write_moments(at::Tensor& result, int64_t i, const Sums& sums, int64_t numel, double centre) {
  random::moments_of(sums.first, sums.second, numel, centre,
                     result.mutable_data_ptr<double>() + 2 * i);
}

// Fills the tensors named by `which`, all at once. No two of them share memory.
void fill_together(const std::vector<Memory>& memory, const Fill& fill,
                   const std::vector<int64_t>& which, bool moments, at::Tensor& result) {
  std::vector<int64_t> numels;
  numels.reserve(which.size());
  for (const int64_t i : which) numels.push_back(memory[i].numel);
  const ChunkPlan plan = plan_chunks(numels, kChunkElements, kGroupElements);
  std::vector<Sums> parts(moments ? plan.chunks.size() : 0);
  const auto chunks = static_cast<int64_t>(plan.chunks.size());
  cpu::for_each_chunk(plan, Pass::kWrites, [&](const Chunk& chunk, int64_t c) {
    const int64_t i = which[chunk.tensor];
    // Small tensors lie anywhere: their lines are on the way while this one is drawn.
    if (c + kAhead < chunks && plan.chunks[c + kAhead].begin == 0) {
      const char* next = memory[which[plan.chunks[c + kAhead].tensor]].begin;
      for (int64_t line = 0; line < 4; ++line) __builtin_prefetch(next + 64 * line, 1);
    }
    const Sums sums = fill_chunk(fill.draw(i), fill.rows[i], memory[i], chunk, moments);
    if (moments) parts[c] = sums;
  });
  if (!moments) return;
  for (size_t k = 0; k < which.size(); ++k) {
    Sums sums;
    for (int64_t c = plan.first[k]; c < plan.first[k + 1]; ++c) {
      sums.first += parts[c].first;
      sums.second += parts[c].second;
    }
    write_moments(result, which[k], sums, numels[k], fill.draw(which[k]).centre);
  }
}

at::Tensor empty_moments(size_t tensors, bool moments, c10::DeviceType device) {
  return at::empty({moments ? static_cast<int64_t>(tensors) : 0, 2},
                   at::TensorOptions().dtype(at::kDouble).device(device));
}

at::Tensor fill_cpu(at::TensorList tensors, at::IntArrayRef kinds, at::ArrayRef<double> parameters,
                    int64_t seed, at::IntArrayRef streams, at::IntArrayRef offsets,
                    at::IntArrayRef strides, bool moments) {
  const cpu::ExactFloats mode;  // for constants, and for moments
  const Fill fill = prepare_fill(tensors, {kinds, parameters, seed, streams, offsets, strides});
  at::Tensor result = empty_moments(tensors.size(), moments, at::kCPU);
  const std::vector<Memory> memory = memory_of(tensors, fill);
  const std::vector<bool> alone = entangled(memory);
  std::vector<int64_t> together;
  together.reserve(tensors.size());
  const auto set = [&](int64_t i) {
    if (tensors[i].numel() != 0) tensors[i].fill_(fill.draw(i).affine64.shift);
    if (moments) write_moments(result, i, {}, tensors[i].numel(), fill.draw(i).centre);
  };
  for (int64_t i = 0; i < static_cast<int64_t>(tensors.size()); ++i) {
    const Map map = fill.draw(i).map;
    if (map == Map::kKeep) {
      if (moments) write_moments(result, i, {}, 0, 0.0);
    } else if (map == Map::kConstant && !alone[i]) {
      set(i);
    } else if (!alone[i]) {
      together.push_back(i);
    }
  }
  fill_together(memory, fill, together, moments, result);
  for (int64_t i = 0; i < static_cast<int64_t>(tensors.size()); ++i) {
    if (!alone[i]) continue;
    if (fill.draw(i).map == Map::kConstant) {
      set(i);
    } else {
      fill_together(memory, fill, {i}, moments, result);
    }
  }
  return result;
}

at::Tensor fill_meta(at::TensorList tensors, at::IntArrayRef kinds, at::ArrayRef<double> parameters,
                     int64_t seed, at::IntArrayRef streams, at::IntArrayRef offsets,
                     at::IntArrayRef strides, bool moments) {
  const bool symbolic = std::any_of(tensors.begin(), tensors.end(), [](const at::Tensor& t) {
    return t.unsafeGetTensorImpl()->has_symbolic_sizes_strides();
  });
  check_kinds(tensors, kinds);
  if (!symbolic) prepare_fill(tensors, {kinds, parameters, seed, streams, offsets, strides});
  for (size_t i = 0; i < tensors.size(); ++i) {
    TORCH_CHECK_VALUE(tensors[i].is_meta() || kinds[i] < 0, "fill_: tensors[", i, "] is on ",
                      tensors[i].device(), " and others are on meta; fill them in separate calls");
  }
  return empty_moments(tensors.size(), moments, at::kMeta);
}

// A device without a kernel of its own gets the CPU's values, which are the same bits.
at::Tensor fill_elsewhere(at::TensorList tensors, at::IntArrayRef kinds,
                          at::ArrayRef<double> parameters, int64_t seed, at::IntArrayRef streams,
                          at::IntArrayRef offsets, at::IntArrayRef strides, bool moments) {
  prepare_fill(tensors, {kinds, parameters, seed, streams, offsets, strides});
  std::vector<at::Tensor> staged;
  staged.reserve(tensors.size());
  const auto here = [&](size_t i) { return tensors[i].is_cpu() || kinds[i] < 0; };
  for (size_t i = 0; i < tensors.size(); ++i) {
    TORCH_CHECK_VALUE(!tensors[i].is_meta() || kinds[i] < 0, "fill_: tensors[", i,
                      "] is on meta and others are not; fill them in separate calls");
    staged.push_back(here(i) ? tensors[i]
                             : at::empty_like(tensors[i], tensors[i].options().device(at::kCPU)));
  }
  at::Tensor result = fill_cpu(staged, kinds, parameters, seed, streams, offsets, strides, moments);
  for (size_t i = 0; i < tensors.size(); ++i) {
    if (!here(i)) tensors[i].copy_(staged[i]);
  }
  return result;
}

auto fill_handle() {
  static const auto handle = c10::Dispatcher::singleton()
                                 .findSchemaOrThrow("pyparam::fill_", "")
                                 .typed<decltype(fill_cpu)>();
  return handle;
}

at::Tensor fill_autograd(at::TensorList tensors, at::IntArrayRef kinds,
                         at::ArrayRef<double> parameters, int64_t seed, at::IntArrayRef streams,
                         at::IntArrayRef offsets, at::IntArrayRef strides, bool moments) {
  if (at::GradMode::is_enabled()) {
    check_kinds(tensors, kinds);  // the first to look at them
    for (size_t i = 0; i < tensors.size(); ++i) {
      TORCH_CHECK_VALUE(kinds[i] < 0 || !tensors[i].requires_grad(), "fill_: tensors[", i,
                        "] requires grad; fill it under torch.no_grad()");
    }
  }
  at::AutoDispatchBelowAutograd guard;
  return fill_handle().call(tensors, kinds, parameters, seed, streams, offsets, strides, moments);
}

at::Tensor fill_in_place(at::TensorList tensors, at::IntArrayRef kinds,
                         at::ArrayRef<double> parameters, int64_t seed, at::IntArrayRef streams,
                         at::IntArrayRef offsets, at::IntArrayRef strides, bool moments) {
  check_kinds(tensors, kinds);
  const bool inference = c10::InferenceMode::is_enabled();
  for (size_t i = 0; i < tensors.size(); ++i) {
    // Its version cannot be raised, of which one would hear when the values are gone.
    TORCH_CHECK_VALUE(inference || kinds[i] < 0 || !tensors[i].is_inference(), "fill_: tensors[", i,
                      "] is an inference tensor; outside inference mode it cannot be written");
  }
  at::Tensor result;
  {
    at::AutoDispatchBelowADInplaceOrView guard;
    result =
        fill_handle().call(tensors, kinds, parameters, seed, streams, offsets, strides, moments);
  }
  for (size_t i = 0; i < tensors.size(); ++i) {
    if (kinds[i] >= 0) tensors[i].unsafeGetTensorImpl()->bump_version();
  }
  return result;
}

at::Tensor& fill_one(at::Tensor& tensor, int64_t kind, at::ArrayRef<double> parameters,
                     int64_t seed, int64_t stream, int64_t offset, at::IntArrayRef strides) {
  const bool whole = offset == 0 && strides.empty();
  fill_handle().call({tensor}, {kind}, parameters, seed, {stream},
                     whole ? at::IntArrayRef{} : at::IntArrayRef{offset}, strides, false);
  return tensor;
}

}  // namespace

TORCH_LIBRARY_IMPL(pyparam, CompositeImplicitAutograd, m) { m.impl("fill_.one", fill_one); }
TORCH_LIBRARY_IMPL(pyparam, CPU, m) { m.impl("fill_", fill_cpu); }
TORCH_LIBRARY_IMPL(pyparam, Meta, m) { m.impl("fill_", fill_meta); }
TORCH_LIBRARY_IMPL(pyparam, CompositeExplicitAutograd, m) { m.impl("fill_", fill_elsewhere); }
// Lazy negatives and conjugates go to the checks, which refuse them by name.
TORCH_LIBRARY_IMPL(pyparam, Negative, m) { m.impl("fill_", torch::CppFunction::makeFallthrough()); }
TORCH_LIBRARY_IMPL(pyparam, Conjugate, m) {
  m.impl("fill_", torch::CppFunction::makeFallthrough());
}
TORCH_LIBRARY_IMPL(pyparam, Autograd, m) { m.impl("fill_", fill_autograd); }
TORCH_LIBRARY_IMPL(pyparam, ADInplaceOrView, m) { m.impl("fill_", fill_in_place); }

}  // namespace pyparam
