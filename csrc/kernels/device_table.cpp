#include "kernels/device_table.h"

#include <ATen/Parallel.h>
#include <c10/util/Exception.h>

#include <cstring>
#include <limits>

#include "kernels/extent.h"
#include "table/prefetch.h"

namespace pyparam {
namespace {

constexpr int64_t kTensorsPerTask = 4096;
constexpr int64_t kRowsPerTask = 1 << 14;

// Everything but what depends on the tensors before it.
TensorRow row_of(const char* verb, size_t i, const at::Tensor& tensor) {
  TensorRow row{};
  const c10::TensorImpl* impl = tensor.unsafeGetTensorImpl();
  row.numel = impl->numel();
  row.dtype = static_cast<int8_t>(c10::typeMetaToScalarType(impl->dtype()));
  row.item = static_cast<uint8_t>(impl->itemsize());
  if (row.numel == 0) return row;
  require_extent(tensor, [&] { return c10::str(verb, ": tensors[", i, "]"); });
  row.extents = impl->is_contiguous() ? 0 : 1;
  row.data = reinterpret_cast<uint64_t>(tensor.const_data_ptr());
  return row;
}

}  // namespace

void append_extents(std::vector<ExtentRow>& extents, at::IntArrayRef sizes,
                    at::IntArrayRef strides) {
  const size_t first = extents.size();
  for (size_t d = 0; d < sizes.size(); ++d) {
    if (sizes[d] == 1) continue;
    if (extents.size() > first && extents.back().stride == sizes[d] * strides[d]) {
      extents.back() = {extents.back().size * sizes[d], strides[d]};
    } else {
      extents.push_back({sizes[d], strides[d]});
    }
  }
  if (extents.size() == first + 1 && extents.back().stride == 1) extents.pop_back();
}

DeviceTable::DeviceTable(const char* verb, at::TensorList tensors, int64_t chunk_elements) {
  const auto count = static_cast<int64_t>(tensors.size());
  TORCH_CHECK_VALUE(count < std::numeric_limits<int32_t>::max(), verb, ": ", count,
                    " tensors in one list; fewer than 2^31 expected");
  TORCH_INTERNAL_ASSERT(chunk_elements > 0 && chunk_elements <= (int64_t{1} << 30));
  tensors_.resize(tensors.size() + 1);
  at::parallel_for(0, count, kTensorsPerTask, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      prefetch_ahead(tensors, static_cast<size_t>(i));
      tensors_[i] = row_of(verb, static_cast<size_t>(i), tensors[i]);
    }
  });
  std::vector<int64_t> numels(tensors.size());
  int64_t position = 0;
  for (int64_t i = 0; i < count; ++i) {
    TensorRow& row = tensors_[i];
    numels[i] = row.numel;
    row.position = position;
    position += row.numel;
    if (row.extents == 0) continue;
    TORCH_CHECK_VALUE(extents_.size() < (size_t{1} << 31) - 64, verb,
                      ": too many strided dimensions in one list");
    row.first_extent = static_cast<int32_t>(extents_.size());
    append_extents(extents_, tensors[i].sizes(), tensors[i].strides());
    row.extents = static_cast<int16_t>(extents_.size() - static_cast<size_t>(row.first_extent));
  }
  plan_ = plan_chunks(numels, chunk_elements, chunk_elements);
  for (int64_t i = 0; i <= count; ++i) tensors_[i].first_chunk = plan_.first[i];
  tensors_.back().position = position;
}

void DeviceTable::add_to(ColumnLayout& layout) {
  tensors_at_ = layout.add<TensorRow>(static_cast<int64_t>(tensors_.size()));
  extents_at_ = layout.add<ExtentRow>(static_cast<int64_t>(extents_.size()));
  chunks_at_ = layout.add<ChunkRow>(static_cast<int64_t>(plan_.chunks.size()));
}

void DeviceTable::write(char* bytes) const {
  put_rows(bytes, extents_at_, extents_);
  const auto rows = static_cast<int64_t>(tensors_.size());
  at::parallel_for(0, rows, kRowsPerTask, [&](int64_t begin, int64_t end) {
    std::memcpy(bytes + tensors_at_ + begin * static_cast<int64_t>(sizeof(TensorRow)),
                tensors_.data() + begin, static_cast<size_t>(end - begin) * sizeof(TensorRow));
  });
  auto* const chunks = reinterpret_cast<ChunkRow*>(bytes + chunks_at_);
  at::parallel_for(0, chunk_count(), kRowsPerTask, [&](int64_t begin, int64_t end) {
    for (int64_t c = begin; c < end; ++c) {
      const Chunk& chunk = plan_.chunks[c];
      chunks[c] = {chunk.begin, static_cast<int32_t>(chunk.tensor),
                   static_cast<int32_t>(chunk.length)};
    }
  });
}

TableView DeviceTable::view(const char* bytes) const {
  return {reinterpret_cast<const TensorRow*>(bytes + tensors_at_),
          reinterpret_cast<const ExtentRow*>(bytes + extents_at_),
          reinterpret_cast<const ChunkRow*>(bytes + chunks_at_), tensor_count(), chunk_count()};
}

}  // namespace pyparam
