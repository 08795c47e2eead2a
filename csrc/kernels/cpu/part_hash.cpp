#include "kernels/cpu/part_hash.h"

#include <algorithm>

#include "kernels/cpu/hash.h"

namespace pyparam::cpu {
namespace {

// The part of one run that lies in a word: its bytes at their place in the word.
uint64_t piece_of(const char* bytes, int64_t begin, int64_t end, int64_t word) {
  const int64_t from = std::max(begin, 8 * word);
  const int64_t to = std::min(end, 8 * word + 8);
  return hash::partial_word(bytes + (from - begin), to - from) << (8 * (from - 8 * word));
}

class RunHash {
 public:
  RunHash(const std::vector<int64_t>& shared, uint64_t* pieces)
      : shared_(shared), next_(shared.begin()), pieces_(pieces) {}

  // Bytes [begin, end) of the whole, after all that came before.
  void take(const char* bytes, int64_t begin, int64_t end) {
    int64_t word = begin / 8;
    const int64_t last = (end - 1) / 8;
    if (is_shared(word)) give(bytes, begin, end, word++);
    const bool tail = word <= last && is_shared(last);
    const int64_t stop = tail ? last : last + 1;
    if (word < stop) {
      const int64_t from = 8 * word;
      const int64_t to = std::min(end, 8 * stop);
      sums.add(hash_bytes(bytes + (from - begin), to - from, static_cast<uint64_t>(word)));
    }
    if (tail) give(bytes, begin, end, last);
  }

  hash::Sums sums;

 private:
  bool is_shared(int64_t word) {
    while (next_ != shared_.end() && *next_ < word) ++next_;
    return next_ != shared_.end() && *next_ == word;
  }
  void give(const char* bytes, int64_t begin, int64_t end, int64_t word) {
    pieces_[next_ - shared_.begin()] |= piece_of(bytes, begin, end, word);
  }

  const std::vector<int64_t>& shared_;
  std::vector<int64_t>::const_iterator next_;
  uint64_t* pieces_;
};

}  // namespace

std::vector<int64_t> shared_words(const std::vector<int64_t>& whole, int64_t dim,
                                  const std::vector<int64_t>& borders, int64_t itemsize) {
  std::vector<int64_t> words;
  if (itemsize % 8 == 0 || whole.empty()) return words;
  int64_t rows = 1;
  int64_t inner = itemsize;
  for (size_t d = 0; d < whole.size(); ++d) {
    if (static_cast<int64_t>(d) < dim) rows *= whole[d];
    if (static_cast<int64_t>(d) > dim) inner *= whole[d];
  }
  const int64_t row_bytes = inner * whole[static_cast<size_t>(dim)];
  if (row_bytes == 0) return words;
  for (int64_t row = 0; row < rows; ++row) {
    for (const int64_t border : borders) {
      const int64_t at = row * row_bytes + border * inner;
      if (at % 8 != 0 && (words.empty() || words.back() != at / 8)) words.push_back(at / 8);
    }
  }
  return words;
}

hash::Sums hash_part(const at::Tensor& local, const Block& block,
                     const std::vector<int64_t>& shared, uint64_t* pieces) {
  RunHash hash(shared, pieces);
  if (local.numel() == 0) return hash.sums;
  const at::Tensor dense = local.contiguous();
  const char* bytes = static_cast<const char*>(dense.const_data_ptr());
  const auto item = static_cast<int64_t>(dense.itemsize());
  // The innermost dimensions that are whole make one run with the first that is not.
  const auto dims = static_cast<int64_t>(block.whole.size());
  int64_t inner = dims;
  int64_t run = item;
  while (inner > 0) {
    --inner;
    run *= block.sizes[static_cast<size_t>(inner)];
    if (block.sizes[static_cast<size_t>(inner)] != block.whole[static_cast<size_t>(inner)]) break;
  }
  std::vector<int64_t> strides(static_cast<size_t>(dims));
  int64_t step = item;
  int64_t begin = 0;
  for (int64_t d = dims; d-- > 0;) {
    strides[static_cast<size_t>(d)] = step;
    begin += block.offsets[static_cast<size_t>(d)] * step;
    step *= block.whole[static_cast<size_t>(d)];
  }
  std::vector<int64_t> index(static_cast<size_t>(inner), 0);
  for (;;) {
    hash.take(bytes, begin, begin + run);
    bytes += run;
    int64_t d = inner;
    for (; d > 0; --d) {
      const auto at = static_cast<size_t>(d - 1);
      begin += strides[at];
      if (++index[at] < block.sizes[at]) break;
      begin -= index[at] * strides[at];
      index[at] = 0;
    }
    if (d == 0) return hash.sums;
  }
}

}  // namespace pyparam::cpu
