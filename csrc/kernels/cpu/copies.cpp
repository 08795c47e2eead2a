#include "kernels/cpu/copies.h"

#include <algorithm>
#include <cstring>

#include "kernels/cpu/memory.h"
#include "kernels/cpu/parallel.h"

namespace pyparam::cpu {

namespace {

constexpr int64_t kChunkElements = int64_t{1} << 20;
constexpr int64_t kGroupElements = int64_t{1} << 15;
constexpr int64_t kParallelBytes = int64_t{1} << 20;  // below, threads take longer to wake
constexpr size_t kAheadOfBytes = 8;

// Whether the order does not matter: nothing that is written is read or written by another one.
bool in_any_order(const std::vector<Copy>& copies) {
  std::vector<Span> targets, sources;
  targets.reserve(copies.size());
  sources.reserve(copies.size());
  for (const Copy& copy : copies) {
    if (copy.numel == 0) continue;
    targets.push_back(copy.written());
    sources.push_back(copy.read());
  }
  if (any_meet(targets)) return false;
  const auto by_begin = [](const Span& a, const Span& b) { return a.begin < b.begin; };
  for (std::vector<Span>* spans : {&targets, &sources}) {
    if (!std::is_sorted(spans->begin(), spans->end(), by_begin))
      std::sort(spans->begin(), spans->end(), by_begin);
  }
  auto source = sources.begin();
  const char* read_until = nullptr;  // by all sources that begin before the target's end
  for (const Span& target : targets) {
    for (; source != sources.end() && source->begin < target.end; ++source)
      read_until = std::max(read_until, source->end);
    if (read_until > target.begin) return false;
  }
  return true;
}

void copy_one(const Copy& copy, bool past_caches, double weight) {
  const auto bytes = static_cast<size_t>(copy.numel * copy.to_size);
  if (copy.lerp != nullptr) {
    copy.lerp(copy.to, copy.from, copy.numel, weight);
  } else if (copy.run == nullptr) {
    if (past_caches) {
      stream_copy(copy.to, copy.from, bytes);
    } else {
      std::memcpy(copy.to, copy.from, bytes);
    }
  } else if (past_caches && copy.stream != nullptr) {
    copy.stream(copy.to, copy.to_size, copy.from, copy.from_size, copy.numel);
  } else if (past_caches) {
    stream_run(copy.run, copy.to, copy.to_size, copy.from, copy.from_size, copy.numel);
  } else {
    copy.run(copy.to, copy.to_size, copy.from, copy.from_size, copy.numel);
  }
}

void prefetch(const Copy& copy) {
  __builtin_prefetch(copy.from, 0);
  __builtin_prefetch(copy.to, 1);
}

}  // namespace

std::optional<Copy> copy_between(const at::Tensor& target, const at::Tensor& source) {
  if (!target.is_cpu() || !source.is_cpu() || !target.is_contiguous() || !source.is_contiguous())
    return std::nullopt;
  const at::ScalarType to = target.scalar_type(), from = source.scalar_type();
  Copy copy{static_cast<char*>(target.mutable_data_ptr()),
            static_cast<const char*>(source.const_data_ptr()), target.numel(),
            static_cast<int64_t>(c10::elementSize(to)),
            static_cast<int64_t>(c10::elementSize(from))};
  if (to == from) return copy;
  const auto is_float = [](at::ScalarType dtype) {
    return dtype == at::kFloat || dtype == at::kDouble || dtype == at::kHalf ||
           dtype == at::kBFloat16;
  };
  if (!is_float(to) || !is_float(from) || copy.written().meets(copy.read())) return std::nullopt;
  copy.run = run_for(to, from);
  copy.stream = stream_for(to, from);
  return copy;
}

void copy_all(const std::vector<Copy>& copies, double weight, const Done& done) {
  int64_t bytes = 0;
  std::vector<int64_t> numels;
  numels.reserve(copies.size());
  for (const Copy& copy : copies) {
    numels.push_back(copy.numel);
    bytes += copy.numel * copy.to_size;
  }
  const ChunkPlan plan = plan_chunks(numels, kChunkElements, kGroupElements);
  const bool past_caches = bytes >= streaming_bytes;
  const auto each = [&](const Chunk& chunk, int64_t index) {
    const size_t ahead = static_cast<size_t>(index) + kAheadOfBytes;
    if (ahead < plan.chunks.size()) {
      const Chunk& next = plan.chunks[ahead];
      prefetch(copies[static_cast<size_t>(next.tensor)].part(next.begin, next.length));
    }
    const Copy& copy = copies[static_cast<size_t>(chunk.tensor)];
    const Copy part = copy.part(chunk.begin, chunk.length);
    if (copy.written().meets(copy.read())) {  // of one dtype, and done in order
      if (chunk.begin == 0)
        std::memmove(copy.to, copy.from, static_cast<size_t>(copy.numel * copy.to_size));
    } else {
      copy_one(part, past_caches, weight);
    }
    if (done) done(copy, part);
  };
  if (bytes >= kParallelBytes && at::get_num_threads() > 1 && !at::in_parallel_region() &&
      in_any_order(copies)) {
    for_each_chunk(plan, Pass::kWrites, each);
    return;
  }
  const ExactFloats exact;
  for (size_t i = 0; i < plan.chunks.size(); ++i) each(plan.chunks[i], static_cast<int64_t>(i));
}

}  // namespace pyparam::cpu
