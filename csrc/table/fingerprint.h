// The fingerprint of a whole table, from the digests of its tensors and their names.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "kernels/cpu/fingerprint.h"
#include "kernels/hash.h"
#include "table/param_table.h"

namespace pyparam {

struct TableFingerprint {
  std::string digests;  // 16 bytes a tensor, in table order
  std::string total;    // 16 bytes
};

// The op's digests: int64 [tensors, 2], where the tensors are. With release_pages, what was read of
// mapped files is dropped. Needs no GIL.
at::Tensor digests_of(const ParamTable& table, bool release_pages);

// What the CPU's kernel reads of a table of ordinary tensors, where the dispatcher would bring them
// to it and do nothing else. Needs no GIL.
std::optional<cpu::HashOperands> operands_of(const ParamTable& table);

// The fingerprint of a table with these digests, which are in host memory. Needs no GIL.
TableFingerprint fingerprint_of(const ParamTable& table, const at::Tensor& digests);

// The 16 bytes of a table with these names and digests (16 bytes each). The order of names does not
// matter.
std::string total_of(const std::vector<std::string_view>& names, std::string_view digests);

}  // namespace pyparam
