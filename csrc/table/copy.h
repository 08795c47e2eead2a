// Copies of many tensors into many others, as `target.copy_(source)` does each.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

namespace pyparam {

// Whether `target.copy_(source)` under no_grad comes to writing values, runs no Python code and is
// not refused: ordinary tensors of one shape on devices with memory, all of which is there, a
// target that may be written to, no complex values into real ones. The caller answers for modes and
// transforms.
bool copies_plainly(const at::Tensor& target, const at::Tensor& source);

// Raises TypeError or ValueError that names `tensors[i]` for a pair that does not copy plainly.
// Source and target may differ in dtype and device.
void check_copies(const std::vector<at::Tensor>& targets, const std::vector<at::Tensor>& sources);

// The positions of the pairs that do not copy plainly.
std::vector<int64_t> odd_copies(const std::vector<at::Tensor>& targets,
                                const std::vector<at::Tensor>& sources);

// Bytes of a file in memory.
struct Mapping {
  const char* begin;
  int64_t bytes;
};

// Copies sources into targets: where they share memory, the last one wins. Each pair must copy
// plainly. Needs no GIL. What a device raises leaves the pairs before it copied.
//
// Of files as large as may be about `batch_bytes` are read at a time, after which the pages that
// were read of the mappings are given back. Pages that someone wrote to stay.
void copy_all(const std::vector<at::Tensor>& targets, const std::vector<at::Tensor>& sources,
              const std::vector<Mapping>& mappings = {}, int64_t batch_bytes = int64_t{32} << 20);

// Moves floating-point and complex targets this part of the way to their sources, as
// `target.lerp_(source, weight)`, and copies the others. Each pair must copy plainly. Raises
// ValueError, with nothing written, that names `tensors[i]` for a floating-point or complex target
// of another dtype or device than its source, TypeError for one of float8. Needs no GIL.
void lerp_all(const std::vector<at::Tensor>& targets, const std::vector<at::Tensor>& sources,
              double weight);

}  // namespace pyparam
