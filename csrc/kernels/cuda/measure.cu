// measure and measure_histogram on CUDA: three launches for any number of tensors, and for
// histograms five more with one wait between, for their size.
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>
#include <torch/library.h>

#include <tuple>
#include <vector>

#include "kernels/cpu/elements.h"
#include "kernels/cpu/measure.h"
#include "kernels/cpu/summaries.h"
#include "kernels/cuda/bins.h"
#include "kernels/cuda/devices.h"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/measure.h"

namespace pyparam::cuda {
namespace {

// The rows on the device; `sent` and `parts` outlive the launches on their stream.
Measured launch_rows(const OnDevice& on, const TableView& table) {
  Measured out = empty_measured(table.tensor_count, on.device());
  const at::Tensor parts = room(on, table.chunk_count * static_cast<int64_t>(sizeof(Statistics)));
  launch_measure(Launch{on}, table, static_cast<Statistics*>(parts.mutable_data_ptr()),
                 out.values.mutable_data_ptr<double>(), out.counts.mutable_data_ptr<int64_t>());
  return out;
}

Measured measure_one_device(at::TensorList tensors) {
  const OnDevice on(tensors[0].device());
  DeviceTable table("measure", tensors, kMeasureChunk);
  const SentTable sent = send_table(on, table);
  return launch_rows(on, sent.view);
}

// The last row, from the others.
void launch_total(const Measured& of) {
  const OnDevice on(of.values.device());
  launch<MeasureTotal<256>>(on, 1,
                            {of.values.size(0) - 1, of.values.mutable_data_ptr<double>(),
                             of.counts.mutable_data_ptr<int64_t>()});
}

// Puts the rows of a part, all but its total, to their places.
void place_rows(const Measured& all, const Measured& part, const std::vector<int64_t>& places) {
  const at::Device device = all.values.device();
  const at::Tensor index = index_on(places, device);
  const auto rows = static_cast<int64_t>(places.size());
  all.values.index_copy_(0, index, brought(part.values, device).narrow(0, 0, rows));
  all.counts.index_copy_(0, index, brought(part.counts, device).narrow(0, 0, rows));
}

std::tuple<at::Tensor, at::Tensor> measure(at::TensorList tensors) {
  if (all_ordinary(tensors)) {
    const Measured out = measure_one_device(tensors);
    return {out.values, out.counts};
  }
  check_numbers("measure", tensors);
  if (on_one_device(tensors)) {
    const Measured out = measure_one_device(in_any_order(tensors));
    return {out.values, out.counts};
  }
  const Measured out = empty_measured(static_cast<int64_t>(tensors.size()), first_device(tensors));
  for (const DeviceGroup& group : groups_of("measure", "tensors", tensors)) {
    if (group.device.is_cpu()) {
      place_rows(out, measure_tensors(group.tensors, false, {}), group.places);
    } else {
      place_rows(out, measure_one_device(in_any_order(group.tensors)), group.places);
    }
  }
  launch_total(out);
  return {out.values, out.counts};
}

// Shorter tensors than this are one segment.
constexpr int64_t kShortestSegment = int64_t{1} << 16;

Measured histogram_one_device(at::TensorList given) {
  const OnDevice on(given[0].device());
  const std::vector<at::Tensor> tensors = in_any_order(given);
  DeviceTable table("measure", tensors, kMeasureChunk);
  std::vector<int64_t> numels;
  for (const at::Tensor& tensor : tensors) numels.push_back(tensor.numel());
  const BinPlan plan = plan_bins(numels, kShortestSegment);
  const auto segment_count = static_cast<int64_t>(plan.segments.size());
  const auto dense_count = static_cast<int64_t>(plan.dense_rows.size());
  const int64_t rows = table.tensor_count() + 1;

  ColumnLayout layout;
  table.add_to(layout);
  const int64_t segments_at = layout.add<BinSegment>(segment_count);
  const int64_t dense_at = layout.add<int64_t>(dense_count);
  Upload upload(layout.bytes());
  table.write(upload.host());
  put_rows(upload.host(), segments_at, plan.segments);
  put_rows(upload.host(), dense_at, plan.dense_rows);
  const at::Tensor sent = upload.send(on);
  const char* bytes = static_cast<const char*>(sent.const_data_ptr());
  const TableView view = table.view(bytes);
  const auto* segments = reinterpret_cast<const BinSegment*>(bytes + segments_at);
  const auto* dense_rows = reinterpret_cast<const int64_t*>(bytes + dense_at);

  Measured out = launch_rows(on, view);
  const auto longs = at::TensorOptions(at::kLong).device(on.device());
  out.below = at::zeros({rows, kLimits}, longs);
  const at::Tensor dense = at::zeros({dense_count, kBins}, longs);
  const at::Tensor entries = at::zeros({rows}, longs);
  out.offsets = at::empty({rows + 1}, longs);
  BinColumns to{out.below.mutable_data_ptr<int64_t>(),
                dense.mutable_data_ptr<int64_t>(),
                entries.mutable_data_ptr<int64_t>(),
                out.offsets.mutable_data_ptr<int64_t>(),
                nullptr,
                nullptr};
  const double* values = out.values.const_data_ptr<double>();
  launch_bin_counts(Launch{on}, view, segments, segment_count, dense_rows, dense_count, values, to);
  // The wait: no memory can be had for the bins before their number is known.
  const auto all = out.offsets.select(0, rows).item<int64_t>();
  out.bins = at::empty({all}, longs.dtype(at::kInt));
  out.bin_counts = at::empty({all}, longs);
  to.bins = out.bins.mutable_data_ptr<int32_t>();
  to.counts = out.bin_counts.mutable_data_ptr<int64_t>();
  launch_bin_rows(Launch{on}, view, segments, segment_count, dense_rows, dense_count, values, to);
  return out;
}

// The histograms of several devices together, on the CPU, where they wait for their sizes anyway.
Measured histogram_of_groups(at::TensorList tensors) {
  const auto rows = static_cast<int64_t>(tensors.size());
  const at::Device device = first_device(tensors);
  Measured out = empty_measured(rows, device);
  const auto longs = at::TensorOptions(at::kLong);
  out.below = at::zeros({rows + 1, kLimits}, longs);
  out.offsets = at::zeros({rows + 2}, longs);
  out.bins = at::empty({0}, longs.dtype(at::kInt));
  out.bin_counts = at::empty({0}, longs);
  at::Tensor same = at::empty({rows + 1}, longs);
  auto* same_rows = same.mutable_data_ptr<int64_t>();
  for (int64_t row = 0; row <= rows; ++row) same_rows[row] = row;
  for (const DeviceGroup& group : groups_of("measure", "tensors", tensors)) {
    const Measured part = group.device.is_cpu() ? measure_tensors(group.tensors, true, {})
                                                : histogram_one_device(group.tensors);
    place_rows(out, part, group.places);
    at::Tensor index = at::empty({rows + 1}, longs);
    index.fill_(-1);
    auto* in_part = index.mutable_data_ptr<int64_t>();
    for (size_t i = 0; i < group.places.size(); ++i)
      in_part[group.places[i]] = static_cast<int64_t>(i);
    in_part[rows] = static_cast<int64_t>(group.places.size());
    std::tie(out.offsets, out.bins, out.bin_counts) =
        merge_histograms(out.offsets, out.bins, out.bin_counts, same, part.offsets.cpu(),
                         part.bins.cpu(), part.bin_counts.cpu(), index);
    std::vector<int64_t> places = group.places;
    places.push_back(rows);
    out.below.index_add_(0, index_on(places, at::kCPU), part.below.cpu());
  }
  launch_total(out);
  for (at::Tensor* column : {&out.below, &out.offsets, &out.bins, &out.bin_counts})
    *column = brought(*column, device);
  return out;
}

std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor, at::Tensor, at::Tensor>
measure_histogram(at::TensorList tensors) {
  check_numbers("measure", tensors);
  const Measured out =
      on_one_device(tensors) ? histogram_one_device(tensors) : histogram_of_groups(tensors);
  return {out.values, out.counts, out.below, out.offsets, out.bins, out.bin_counts};
}

}  // namespace
}  // namespace pyparam::cuda

TORCH_LIBRARY_IMPL(pyparam, CUDA, m) {
  m.impl("measure", &pyparam::cuda::measure);
  m.impl("measure_histogram", &pyparam::cuda::measure_histogram);
}
