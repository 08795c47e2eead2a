// Memory of a megabyte or so that each call of a verb takes and gives back, kept for the next call.
// malloc returns as much to the system at once, and to have it again costs a page fault every 4 KB:
// with tens of thousands of small tensors that takes as long as measuring them.
#pragma once

#include <c10/core/Allocator.h>

#include <cstddef>
#include <new>
#include <type_traits>
#include <utility>

namespace pyparam {

// At least so many bytes, aligned to a cache line and not cleared; and where they go when they are
// done with, on whatever thread. A few blocks of middling size are kept, of kMostKept bytes
// together; all else is malloc's.
constexpr size_t kMostKept = size_t{16} << 20;
void* take_kept(size_t bytes);
void give_kept(void* data);

// For tensors that verbs return.
c10::Allocator* kept_allocator();

// For vectors that live as long as a call, of plain data. Elements that a vector grows by are not
// cleared, as for tens of thousands of tensors that takes time: whoever makes one sets all of it.
template <typename T>
struct Kept {
  static_assert(std::is_trivially_copyable_v<T>);
  using value_type = T;

  Kept() = default;
  template <typename Other>
  Kept(const Kept<Other>&) {}  // NOLINT: allocators convert

  T* allocate(size_t count) { return static_cast<T*>(take_kept(count * sizeof(T))); }
  void deallocate(T* data, size_t) { give_kept(data); }
  template <typename Other>
  void construct(Other*) noexcept {}
  template <typename Other, typename... Arguments>
  void construct(Other* at, Arguments&&... arguments) {
    new (static_cast<void*>(at)) Other(std::forward<Arguments>(arguments)...);
  }
  bool operator==(const Kept&) const { return true; }
  bool operator!=(const Kept&) const { return false; }
};

}  // namespace pyparam
