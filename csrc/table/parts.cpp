#include "table/parts.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>
#include <c10/util/Exception.h>

#include <map>
#include <utility>

#include "kernels/measure.h"
#include "kernels/operands.h"

namespace pyparam {
namespace {

at::Tensor empty_long(at::IntArrayRef sizes) {
  return at::empty(sizes, at::TensorOptions().dtype(at::kLong));
}

// The words of a row that several ranks have pieces of; found once for each cut and size of
// element.
class SharedWords {
 public:
  explicit SharedWords(const std::vector<Cut>& cuts) : cuts_(cuts) {}

  const std::vector<int64_t>& of(int64_t cut, int64_t itemsize) {
    const auto [found, added] = known_.try_emplace({cut, itemsize});
    const Cut& by = cuts_.at(static_cast<size_t>(cut));
    if (added && by.dim >= 0)
      found->second = cpu::shared_words(by.block.whole, by.dim, by.borders, itemsize);
    return found->second;
  }

 private:
  const std::vector<Cut>& cuts_;
  std::map<std::pair<int64_t, int64_t>, std::vector<int64_t>> known_;
};

}  // namespace

PartStatistics measure_parts(const ParamTable& locals, bool histogram) {
  const auto rows = static_cast<int64_t>(locals.size());
  std::vector<exact::Numbers> numbers;
  PartStatistics out{measure_tensors(locals.tensors, histogram, {}, &numbers),
                     ExactTable(rows, kExactColumns)};
  for (int64_t row = 0; row < rows; ++row) {
    exact::Numbers& of = numbers[static_cast<size_t>(row)];
    out.sums.at(row, kExactValues) = std::move(of.values);
    out.sums.at(row, kExactMagnitudes) = std::move(of.magnitudes);
    out.sums.at(row, kExactSquares) = std::move(of.squares);
  }
  return out;
}

std::tuple<at::Tensor, at::Tensor, at::Tensor> hash_parts(const ParamTable& locals,
                                                          const std::vector<Cut>& cuts,
                                                          const std::vector<int64_t>& cut_of) {
  const auto rows = static_cast<int64_t>(locals.size());
  SharedWords shared(cuts);
  at::Tensor lengths = empty_long({rows});
  auto* length = lengths.mutable_data_ptr<int64_t>();
  std::vector<int64_t> first(locals.size() + 1, 0);
  for (int64_t row = 0; row < rows; ++row) {
    const auto r = static_cast<size_t>(row);
    const at::Tensor& tensor = locals.tensors[r];
    check_readable("fingerprint", "tensors", row, tensor);
    const cpu::Block& block = cuts.at(static_cast<size_t>(cut_of.at(r))).block;
    TORCH_CHECK(tensor.numel() == 0 || tensor.sizes() == at::IntArrayRef(block.sizes),
                "pyparam internal error, please report: a part is not the size of its block");
    length[row] =
        static_cast<int64_t>(shared.of(cut_of[r], static_cast<int64_t>(tensor.itemsize())).size());
    first[r + 1] = first[r] + length[row];
  }
  at::Tensor pieces = at::zeros({first.back()}, at::TensorOptions().dtype(at::kLong));
  at::Tensor sums = empty_long({rows, 2});
  auto* sum = reinterpret_cast<uint64_t*>(sums.mutable_data_ptr<int64_t>());
  auto* piece = reinterpret_cast<uint64_t*>(pieces.mutable_data_ptr<int64_t>());
  for (int64_t row = 0; row < rows; ++row) {
    const auto r = static_cast<size_t>(row);
    const at::Tensor& tensor = locals.tensors[r];
    const hash::Sums found = cpu::hash_part(
        tensor, cuts[static_cast<size_t>(cut_of[r])].block,
        shared.of(cut_of[r], static_cast<int64_t>(tensor.itemsize())), piece + first[r]);
    sum[2 * row] = found.plain;
    sum[2 * row + 1] = found.placed;
  }
  return {sums, pieces, lengths};
}

at::Tensor digests_of_parts(const ParamTable& locals, const std::vector<Cut>& cuts,
                            const std::vector<int64_t>& cut_of, const at::Tensor& sums,
                            const at::Tensor& pieces) {
  const auto rows = static_cast<int64_t>(locals.size());
  TORCH_CHECK(sums.is_cpu() && sums.is_contiguous() && sums.numel() == 2 * rows,
              "pyparam internal error, please report: these are not the sums of the table");
  SharedWords shared(cuts);
  at::Tensor out = empty_long({rows, 2});
  auto* digest = reinterpret_cast<uint64_t*>(out.mutable_data_ptr<int64_t>());
  const auto* sum = reinterpret_cast<const uint64_t*>(sums.const_data_ptr<int64_t>());
  const auto* piece = reinterpret_cast<const uint64_t*>(pieces.const_data_ptr<int64_t>());
  int64_t left = pieces.numel();
  for (int64_t row = 0; row < rows; ++row) {
    const auto r = static_cast<size_t>(row);
    const at::Tensor& tensor = locals.tensors[r];
    const std::vector<int64_t>& whole = cuts.at(static_cast<size_t>(cut_of.at(r))).block.whole;
    hash::Sums all{sum[2 * row], sum[2 * row + 1]};
    const auto& words = shared.of(cut_of[r], static_cast<int64_t>(tensor.itemsize()));
    left -= static_cast<int64_t>(words.size());
    TORCH_CHECK(left >= 0, "pyparam internal error, please report: pieces of words are missing");
    for (const int64_t word : words) all.add_word(*piece++, static_cast<uint64_t>(word));
    const hash::Digest of_row =
        hash::tensor_digest(hash::describe_tensor(static_cast<int>(tensor.scalar_type()),
                                                  whole.data(), static_cast<int64_t>(whole.size())),
                            all);
    digest[2 * row] = of_row.low;
    digest[2 * row + 1] = of_row.high;
  }
  return out;
}

}  // namespace pyparam
