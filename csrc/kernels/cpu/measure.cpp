// measure: every statistic of every tensor, each element read once.
#include "kernels/cpu/measure.h"

#include <ATen/EmptyTensor.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <torch/library.h>

#if defined(__linux__) || defined(__APPLE__)
#include <sys/mman.h>
#include <unistd.h>
#endif

#include <atomic>
#include <memory>
#include <tuple>
#include <vector>

#include "kernels/chunks.h"
#include "kernels/cpu/bins.h"
#include "kernels/cpu/blocks.h"
#include "kernels/cpu/cut.h"
#include "kernels/cpu/elements.h"
#include "kernels/cpu/exact.h"
#include "kernels/cpu/few.h"
#include "kernels/cpu/isa.h"
#include "kernels/cpu/lanes.h"
#include "kernels/cpu/packed_bins.h"
#include "kernels/cpu/parallel.h"
#include "kernels/cpu/summaries.h"
#include "kernels/kept.h"

namespace pyparam {

namespace {

using namespace cpu;

// A partial result covers this many values, the same everywhere: what they add up to may not depend
// on threads.
constexpr int64_t kChunk = 16 * kBlock;
constexpr int64_t kGroup = 4 * kChunk;
constexpr int64_t kMappedGroup = 16 * kChunk;  // whose pages a thread gives back together
static_assert(kChunk <= int64_t{1} << exact::Window::kCountBits);

// What a thread keeps between chunks.
struct Work {
  Scratch memory;
  exact::Sums rest;
  Guess floats, doubles, few;

  static Work& of_this_thread() {
    static thread_local const std::unique_ptr<Work> work = std::make_unique<Work>();
    return *work;
  }
};

// The exact sums of a chunk: those of its window, and `rest`, which is zero at first, where
// something was beyond it.
struct ChunkSums {
  exact::Window window;
  exact::Sums& rest;

  explicit ChunkSums(exact::Sums& sums) : rest(sums) {
    if (!rest.untouched()) rest.clear();
  }
  bool windowed() const { return rest.untouched(); }
  exact::Numbers numbers() {
    rest.add(window);
    window = {};
    return exact::numbers_of(rest);
  }
};

// What is not summed; the sums go to `sums`.
Statistics measure_chunk(const ElementList& list, const Chunk& chunk, const LaneKernels& lanes,
                         BinCounter* counter, Work& work, ChunkSums& sums) {
  Scratch& memory = work.memory;
  const Format format = list[chunk.tensor].format;
  const float normal = smallest_normal(format);
  // Without bins to count, 16-bit values need not be widened in memory.
  const auto measure_stored = counter != nullptr            ? nullptr
                              : format == Format::kHalf     ? lanes.measure_half
                              : format == Format::kBFloat16 ? lanes.measure_bfloat16
                                                            : nullptr;
  // What is copied or widened first is not read where it lies.
  const Elements& e = list[chunk.tensor];
  const void* end = e.strided < 0 ? e.data + e.bytes() : nullptr;
  work.floats.end = measure_stored != nullptr || format == Format::kFloat ? end : nullptr;
  work.doubles.end = format == Format::kDouble ? end : nullptr;
  Statistics out;
  ExactRun runs[kRunsOfBlock];
  for (int64_t done = 0; done < chunk.length; done += kBlock) {
    const int64_t n = std::min(kBlock, chunk.length - done);
    if (measure_stored != nullptr) {
      const void* stored = list.stored(chunk.tensor, chunk.begin + done, n, memory.stored);
      auto* widened = reinterpret_cast<float*>(memory.widened);
      const Statistics part = measure_stored(stored, n, widened, &work.floats, runs);
      add_runs(sums.rest, sums.window, runs, widened, n);
      out = done == 0 ? part : joined(out, part);
      continue;
    }
    const BlockValues block = read_block(list, chunk.tensor, chunk.begin + done, n, lanes, memory);
    MagnitudeRange range;
    Statistics part;
    if (block.floats != nullptr) {
      part = lanes.measure_float(block.floats, n, normal, &range, &work.floats, runs);
      add_runs(sums.rest, sums.window, runs, block.floats, n);
    } else {
      part = lanes.measure_double(block.doubles, n, &work.doubles, runs);
      add_runs(sums.rest, sums.window, runs, block.doubles, n);
    }
    out = done == 0 ? part : joined(out, part);
    if (counter == nullptr) continue;
    if (block.doubles != nullptr) lanes.narrow(block.doubles, n, memory.narrowed);
    counter->take(chunk.tensor, block, memory.narrowed, n, part, range, lanes);
  }
  return out;
}

std::atomic<int64_t> bytes_done{0};
std::atomic<int64_t> bytes_in_all{0};

// Bytes that a worker has read, one after the other.
struct ReadBytes {
  const char* begin = nullptr;
  const char* end = nullptr;
};

// A worker gives back so many bytes at a time: the other cores are told of it each time.
constexpr int64_t kReleased = int64_t{1} << 21;

// Gives back the pages that hold the bytes, where they are in one of the maps.
void release(const FileMaps& maps, const ReadBytes& read) {
#if defined(__linux__) || defined(__APPLE__)
  static const auto page = static_cast<uintptr_t>(sysconf(_SC_PAGESIZE));
  for (const auto& [address, size] : maps) {
    const uintptr_t begin = std::max(reinterpret_cast<uintptr_t>(read.begin), address);
    const uintptr_t end = std::min(reinterpret_cast<uintptr_t>(read.end), address + size);
    // The page that holds the first byte goes too, or long files would leave many: it is clean, and
    // comes back. The one that holds the end is left to whoever reads on, so that pages full of
    // small tensors go once.
    const uintptr_t first = begin / page * page;
    const uintptr_t last = end / page * page;
    if (last > first) madvise(reinterpret_cast<void*>(first), last - first, MADV_DONTNEED);
  }
#else
  (void)maps, (void)read;
#endif
}

// What a worker has read, in whatever order: all of it adds up to the same.
struct Read {
  Statistics found;
  exact::Sums sums;
  exact::Windows windows;
  ReadBytes kept;  // of the maps, and not given back
};

// In two steps: the tensors of few values, a block of the list after the other, and all others in
// chunks.
class Measuring {
 public:
  // `numbers`, unless null, gets each row's exact sums.
  Measuring(const ElementList& list, std::vector<BinCounter>* counters, const FileMaps& maps,
            std::vector<exact::Numbers>* numbers)
      : list_(list),
        counters_(counters),
        maps_(maps),
        numbers_(numbers),
        out_(empty_measured(static_cast<int64_t>(list.size()), at::kCPU)),
        values_(out_.values.mutable_data_ptr<double>()),
        counts_(out_.counts.mutable_data_ptr<int64_t>()),
        read_by_(static_cast<size_t>(at::get_num_threads())) {
    if (numbers != nullptr) numbers->resize(list.size());
  }

  // `reader`, unless null, reads the list meanwhile. False where it cannot.
  bool read_few(OrdinaryReader* reader);
  Measured read_others();

 private:
  // Takes a Window or Numbers.
  template <typename Sums>
  void write(int64_t row, const Statistics& s, const Sums& sums) {
    const Elements& e = list_[row];
    double* row_values = values_ + row * kValueColumns;
    int64_t* row_counts = counts_ + row * kCountColumns;
    write_unsummed(s, e.numel(), e.bytes(), row_values, row_counts);
    exact::write_sums(sums, row_values, row_counts);
  }
  // `piece` of a row; where it is not all of it, `part` is the place of what is found, else -1.
  void take(const Chunk& piece, int64_t part, int64_t worker, Work& work);
  // Gives back the pages of what was read before, unless it is still too little.
  void let_go(const Chunk& piece, Read& read);
  void write_parts(const Cut& cut);
  void write_total();

  const ElementList& list_;
  std::vector<BinCounter>* counters_;
  const FileMaps& maps_;
  std::vector<exact::Numbers>* numbers_;
  Measured out_;
  double* values_;
  int64_t* counts_;
  std::vector<Read> read_by_;
  ListRows rows_;
  // Of the tensors of several chunks, and where those of each of the others would begin.
  std::vector<Statistics> parts_;
  std::vector<exact::Numbers> part_sums_;
  std::vector<int64_t> place_;
};

void Measuring::take(const Chunk& piece, int64_t part, int64_t worker, Work& work) {
  const int64_t row = piece.tensor;
  Read& read = read_by_[static_cast<size_t>(worker)];
  BinCounter* counter = counters_ == nullptr ? nullptr : &counters_->at(worker);
  ChunkSums sums(work.rest);
  const Statistics found = measure_chunk(list_, piece, lane_kernels(), counter, work, sums);
  read.found = joined(read.found, found);
  if (part < 0 && numbers_ == nullptr && sums.windowed()) {
    read.windows.add(sums.window, piece.length, read.sums);
    write(row, found, sums.window);
    return;
  }
  exact::Numbers of_piece = sums.numbers();
  exact::add(read.sums, of_piece);
  if (part >= 0) {
    parts_[part] = found;
    part_sums_[part] = std::move(of_piece);
    return;
  }
  write(row, found, of_piece);
  if (numbers_ != nullptr) (*numbers_)[row] = std::move(of_piece);
}

bool Measuring::read_few(OrdinaryReader* reader) {
  const ExactFloats mode;  // for what is combined and written here
  const bool by_chunks = counters_ != nullptr || numbers_ != nullptr || !maps_.empty();
  const auto whole = [by_chunks](const Elements& e) { return e.few && !by_chunks; };
  const LaneKernels& lanes = lane_kernels();
  const int64_t blocks = RowBlock::count(list_);
  std::vector<ListRows> found(static_cast<size_t>(blocks));
  std::atomic<bool> readable{true};
  for_each_task_by_worker(blocks, Pass::kReads, [&](int64_t worker) {
    Work& work = Work::of_this_thread();
    return [&, worker](int64_t task) {
      const RowBlock block(list_, task);
      BlockAhead ahead(list_, reader, block, whole, found[static_cast<size_t>(task)]);
      if (by_chunks) {
        if (!ahead.reach(block.end)) readable = false;
        return;
      }
      Read& read = read_by_[static_cast<size_t>(worker)];
      FewTotals totals{read.found, read.windows, read.sums};
      int32_t left[RowBlock::kRows];
      const int64_t leavings = lanes.measure_few({list_.data(), ahead, values_, counts_},
                                                 block.begin, block.end, &work.few, totals, left);
      if (leavings < 0) readable = false;
      for (int64_t i = 0; i < leavings; ++i) {
        const int64_t row = block.begin + left[i];
        take({row, 0, list_[row].values}, -1, worker, work);
      }
    };
  });
  if (!readable) return false;
  for (const ListRows& of_block : found) rows_.append(of_block);
  return true;
}

void Measuring::let_go(const Chunk& piece, Read& read) {
  const Elements& e = list_[piece.tensor];
  if (maps_.empty() || e.strided >= 0) return;
  const char* begin = e.data + piece.begin * value_size(e.format);
  if (read.kept.end != begin || read.kept.end - read.kept.begin >= kReleased) {
    release(maps_, read.kept);
    read.kept.begin = begin;
  }
  read.kept.end = begin + piece.length * value_size(e.format);
}

Measured Measuring::read_others() {
  const ExactFloats mode;
  const Cut cut(list_, std::move(rows_.others), kChunk, maps_.empty() ? kGroup : kMappedGroup);
  // Only tensors of several chunks need their partial results kept.
  place_.resize(cut.rows.size());
  int64_t kept = 0;
  for (size_t k = 0; k < cut.rows.size(); ++k) {
    if (cut.chunks(k) <= 1) continue;
    place_[k] = kept - cut.plan.first[k];
    kept += cut.chunks(k);
  }
  parts_.resize(static_cast<size_t>(kept));
  part_sums_.resize(static_cast<size_t>(kept));
  bytes_in_all = rows_.nbytes;
  bytes_done = 0;
  for_each_task_by_worker(cut.tasks(), Pass::kReads, [&](int64_t worker) {
    Work& work = Work::of_this_thread();
    return [&, worker](int64_t task) {
      cut.for_each_piece(list_, task, [&](const Chunk& piece, int64_t c, size_t k) {
        take(piece, cut.chunks(k) == 1 ? -1 : place_[k] + c, worker, work);
        if (piece.length == kChunk)
          bytes_done.fetch_add(kChunk * value_size(list_[piece.tensor].format),
                               std::memory_order_relaxed);
        let_go(piece, read_by_[static_cast<size_t>(worker)]);
      });
    };
  });
  for (const Read& read : read_by_) release(maps_, read.kept);
  write_parts(cut);
  write_total();
  return std::move(out_);
}

// The rows of tensors of several chunks, and of none.
void Measuring::write_parts(const Cut& cut) {
  ChunkSums sums(Work::of_this_thread().rest);
  for (size_t k = 0; k < cut.rows.size(); ++k) {
    const int64_t row = cut.rows[k];
    const int64_t chunks = cut.chunks(k);
    if (chunks == 0) write(row, Statistics{}, exact::Window{});
    if (chunks <= 1) continue;
    const int64_t first = place_[k] + cut.plan.first[k];
    Statistics sum = parts_[first];
    for (int64_t c = 1; c < chunks; ++c) sum = joined(sum, parts_[first + c]);
    for (int64_t c = 0; c < chunks; ++c) exact::add(sums.rest, part_sums_[first + c]);
    exact::Numbers of_row = sums.numbers();
    write(row, sum, of_row);
    if (numbers_ != nullptr) (*numbers_)[row] = std::move(of_row);
    sums.rest.clear();
  }
}

void Measuring::write_total() {
  ChunkSums sums(Work::of_this_thread().rest);
  Statistics total;
  for (Read& read : read_by_) {
    total = joined(total, read.found);
    read.windows.spill(read.sums);
    exact::add(sums.rest, exact::numbers_of(read.sums));
  }
  const auto rows = static_cast<int64_t>(list_.size());
  double* values = values_ + rows * kValueColumns;
  int64_t* counts = counts_ + rows * kCountColumns;
  write_unsummed(total, rows_.numel, rows_.nbytes, values, counts);
  exact::write_sums(sums.numbers(), values, counts);
}

// Of what all workers counted, who are done with it.
std::shared_ptr<PackedBins> packed_bins(std::vector<BinCounter>& counters,
                                        const ElementList& list) {
  std::vector<BinWriter> parts;
  for (auto& counter : counters) parts.push_back(counter.finished());
  std::vector<BinCounter>().swap(counters);
  return std::make_shared<PackedBins>(std::move(parts), static_cast<int64_t>(list.size()));
}

std::tuple<at::Tensor, at::Tensor> measure(at::TensorList tensors) {
  const Measured out = measure_tensors(tensors, false, {});
  return {out.values, out.counts};
}

std::tuple<at::Tensor, at::Tensor> measure_meta(at::TensorList tensors) {
  const at::Device device = tensors.empty() ? at::Device(at::kMeta) : tensors[0].device();
  const Measured out = empty_measured(static_cast<int64_t>(tensors.size()), device);
  return {out.values, out.counts};
}

std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor, at::Tensor, at::Tensor>
measure_histogram(at::TensorList tensors) {
  const Measured out = measure_tensors(tensors, true, {});
  return {out.values, out.counts, out.below, out.offsets, out.bins, out.bin_counts};
}

}  // namespace

Measured empty_measured(int64_t rows, at::Device device) {
  const auto empty = [&](int64_t columns, at::ScalarType dtype) -> at::Tensor {
    const int64_t sizes[] = {rows + 1, columns};
    if (!device.is_cpu()) return at::empty(sizes, at::TensorOptions().device(device).dtype(dtype));
    return at::detail::empty_generic(
        sizes, kept_allocator(), c10::DispatchKeySet(c10::DispatchKey::CPU), dtype, std::nullopt);
  };
  Measured out;
  out.values = empty(kValueColumns, at::kDouble);
  out.counts = empty(kCountColumns, at::kLong);
  return out;
}

Measured measure_elements(const ElementList& list, bool histogram, const FileMaps& maps,
                          std::vector<exact::Numbers>* numbers) {
  std::vector<BinCounter> counters(histogram ? at::get_num_threads() : 0);
  Measuring measuring(list, histogram ? &counters : nullptr, maps, numbers);
  measuring.read_few(nullptr);
  Measured out = measuring.read_others();
  if (histogram) out.packed = packed_bins(counters, list);
  return out;
}

struct OrdinaryMeasuring::State {
  OrdinaryReader reader;
  std::vector<BinCounter> counters;
  Measuring measuring;

  State(at::TensorList tensors, const ElementNotes& notes, bool histogram, const FileMaps& maps)
      : reader(tensors, notes),
        counters(histogram ? at::get_num_threads() : 0),
        measuring(reader.list(), histogram ? &counters : nullptr, maps, nullptr) {}
};

OrdinaryMeasuring::OrdinaryMeasuring(at::TensorList tensors, const ElementNotes& notes,
                                     bool histogram, const FileMaps& maps)
    : state_(std::make_unique<State>(tensors, notes, histogram, maps)) {}
OrdinaryMeasuring::~OrdinaryMeasuring() = default;

bool OrdinaryMeasuring::read() { return state_->measuring.read_few(&state_->reader); }

Measured OrdinaryMeasuring::finish() {
  Measured out = state_->measuring.read_others();
  if (!state_->counters.empty()) out.packed = packed_bins(state_->counters, state_->reader.list());
  return out;
}

Measured measure_tensors(at::TensorList tensors, bool histogram, const FileMaps& maps,
                         std::vector<exact::Numbers>* numbers) {
  Measured out = measure_elements(ElementList("measure", tensors), histogram, maps, numbers);
  if (out.packed != nullptr) {
    std::tie(out.below, out.offsets, out.bins, out.bin_counts) = histogram_rows(*out.packed, {});
    out.packed.reset();
  }
  return out;
}

std::pair<int64_t, int64_t> measure_progress() { return {bytes_done.load(), bytes_in_all.load()}; }

// For every backend without a kernel of its own, so that a sparse or quantized tensor, or one on a
// device that is not served, is refused by its place in the list.
TORCH_LIBRARY_IMPL(pyparam, CompositeExplicitAutograd, m) {
  m.impl("measure", &measure);
  m.impl("measure_histogram", &measure_histogram);
}
TORCH_LIBRARY_IMPL(pyparam, Meta, m) { m.impl("measure", &measure_meta); }
// Statistics have no gradient.
TORCH_LIBRARY_IMPL(pyparam, Autograd, m) {
  m.impl("measure", torch::CppFunction::makeFallthrough());
  m.impl("measure_histogram", torch::CppFunction::makeFallthrough());
}

}  // namespace pyparam
