// Many tensors copied into many others, or moved towards them, where each is a loop over elements
// in order.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <optional>
#include <vector>

#include "kernels/cpu/convert.h"
#include "kernels/cpu/lerp.h"
#include "kernels/spans.h"

namespace pyparam::cpu {

// A run of elements that goes from one place to another.
struct Copy {
  char* to;
  const char* from;
  int64_t numel;
  int64_t to_size, from_size;  // of an element
  Run run = nullptr;           // nullptr: the bytes are copied as they are
  Run stream = nullptr;        // the same past the caches, where there is a loop of its own
  Lerp lerp = nullptr;         // not null: the target moves part of the way

  int64_t bytes_read() const { return numel * from_size; }
  Span read() const { return {from, from + bytes_read()}; }
  Span written() const { return {to, to + numel * to_size}; }

  // Its elements [begin, begin + length).
  Copy part(int64_t begin, int64_t length) const {
    return {to + begin * to_size,
            from + begin * from_size,
            length,
            to_size,
            from_size,
            run,
            stream,
            lerp};
  }
};

// What `target.copy_(source)` comes to, of two ordinary strided tensors of one shape whose memory
// is there. Nothing where that is more than one loop: another device, elements that do not lie in
// order, a conversion other than between floating-point dtypes, a conversion in place.
std::optional<Copy> copy_between(const at::Tensor& target, const at::Tensor& source);

// What to do when a part of a copy, or all of it, is done: on the thread that did it.
using Done = std::function<void(const Copy& whole, const Copy& part)>;

// Does them all, on all threads where none touches what another one writes; else in order, so that
// the last one wins. Many bytes are written past the caches. `weight` is how far those go that
// lerp. Needs no GIL.
void copy_all(const std::vector<Copy>& copies, double weight = 1, const Done& done = {});

}  // namespace pyparam::cpu
