#include "kernels/cpu/words.h"

#include <ATen/ops/zeros.h>

#include <algorithm>
#include <numeric>

#include "kernels/cpu/parallel.h"
#include "kernels/extent.h"
#include "table/ordinary.h"

namespace pyparam::cpu {
namespace {

constexpr int64_t kWordsChunk = 1 << 16;
constexpr int64_t kWordsGroup = 1 << 18;

template <typename Word>
int64_t count_run(const char* bytes, int64_t length, uint64_t bits) {
  const auto* words = reinterpret_cast<const Word*>(bytes);
  const auto wanted = static_cast<Word>(bits);
  int64_t found = 0;
  // In runs whose counts fit into a lane.
  for (int64_t begin = 0; begin < length; begin += 4096) {
    const int64_t end = std::min(begin + 4096, length);
    Word run = 0;
    for (int64_t i = begin; i < end; ++i) run += words[i] == wanted ? 1 : 0;
    found += static_cast<int64_t>(run);
  }
  return found;
}

int64_t count_run(const WantedWord& word, const char* bytes, int64_t length) {
  switch (word.size) {
    case 2:
      return count_run<uint16_t>(bytes, length, word.bits);
    case 4:
      return count_run<uint32_t>(bytes, length, word.bits);
    default:
      return count_run<uint64_t>(bytes, length, word.bits);
  }
}

}  // namespace

at::Tensor count_words(at::TensorList tensors, const std::vector<WantedWord>& words) {
  for (const WantedWord& word : words) {
    TORCH_CHECK((word.size == 2 || word.size == 4 || word.size == 8) &&
                    static_cast<int64_t>(c10::elementSize(word.dtype)) % word.size == 0,
                "pyparam internal error, please report: words of ", word.size, " bytes in ",
                word.dtype);
  }
  const auto rows = static_cast<int64_t>(tensors.size());
  std::vector<int64_t> lengths(tensors.size(), 0);
  std::vector<const WantedWord*> of(tensors.size(), nullptr);
  at::Tensor out = at::zeros({rows}, at::TensorOptions().dtype(at::kLong));
  auto* counts = out.mutable_data_ptr<int64_t>();
  for (size_t i = 0; i < tensors.size(); ++i) {
    const at::Tensor& tensor = tensors[i];
    const auto word = std::find_if(words.begin(), words.end(), [&](const WantedWord& w) {
      return w.dtype == tensor.scalar_type();
    });
    if (word == words.end() || !is_ordinary(*tensor.unsafeGetTensorImpl()) || !tensor.is_cpu() ||
        !tensor.is_contiguous() || !has_extent(tensor)) {
      counts[i] = -1;
      continue;
    }
    of[i] = &*word;
    lengths[i] = tensor.numel() * (static_cast<int64_t>(tensor.itemsize()) / word->size);
  }
  const ChunkPlan plan = plan_chunks(lengths, kWordsChunk, kWordsGroup);
  std::vector<int64_t> found(plan.chunks.size());
  for_each_chunk(plan, Pass::kReads, [&](const Chunk& chunk, int64_t index) {
    const auto row = static_cast<size_t>(chunk.tensor);
    const auto* bytes = static_cast<const char*>(tensors[row].const_data_ptr());
    found[static_cast<size_t>(index)] =
        count_run(*of[row], bytes + chunk.begin * of[row]->size, chunk.length);
  });
  for (size_t i = 0; i < tensors.size(); ++i) {
    if (of[i] == nullptr) continue;
    counts[i] = std::accumulate(found.begin() + plan.first[i], found.begin() + plan.first[i + 1],
                                int64_t{0});
  }
  return out;
}

}  // namespace pyparam::cpu
