// The fingerprint of a whole table, from the digests of its tensors and their names.
#pragma once

#include <ATen/core/Tensor.h>

#include <array>
#include <cstddef>
#include <optional>
#include <string_view>

#include "kernels/cpu/fingerprint.h"
#include "table/param_table.h"

namespace pyparam {

// The op's digests: int64 [tensors, 2], where the tensors are. With release_pages, what was read of
// mapped files is dropped. Needs no GIL.
at::Tensor digests_of(const ParamTable& table, bool release_pages);

// What the CPU's kernel reads of a table of ordinary tensors, where the dispatcher would bring them
// to it and do nothing else. Needs no GIL.
std::optional<cpu::HashOperands> operands_of(const ParamTable& table, bool release_pages);

constexpr size_t kDigestBytes = 16;
using TotalBytes = std::array<char, kDigestBytes>;

// The total of a table with these names and digests (int64 [names, 2], in host memory). The digests
// are written to `bytes`, of kDigestBytes each, in table order. Needs no GIL.
TotalBytes fingerprint_of(const NameColumn& names, const at::Tensor& digests, char* bytes);

// The total of a table with these names and digests, of kDigestBytes each. The order of names does
// not matter.
TotalBytes total_of(const NameColumn& names, std::string_view digests);

}  // namespace pyparam
