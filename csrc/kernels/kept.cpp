#include "kernels/kept.h"

#include <c10/core/CPUAllocator.h>
#include <c10/core/impl/alloc_cpu.h>

#include <array>
#include <atomic>

namespace pyparam {
namespace {

// In front of each block, a cache line, so that what follows is aligned as the block is.
struct Header {
  size_t capacity;
};
constexpr size_t kLine = 64;
static_assert(sizeof(Header) <= kLine);

constexpr size_t kLeast = size_t{64} << 10;  // less is what malloc keeps by itself
constexpr size_t kMost = size_t{8} << 20;

// No lock: whoever holds one while another thread forks is gone in the child. What lies here when
// the process ends stays reachable.
std::array<std::atomic<Header*>, 12> slots{};
std::atomic<size_t> kept{0};

Header* header_of(void* data) {
  return reinterpret_cast<Header*>(static_cast<char*>(data) - kLine);
}

bool keep(Header* block) {
  if (kept.fetch_add(block->capacity) + block->capacity <= kMostKept) {
    for (auto& slot : slots) {
      Header* none = nullptr;
      if (slot.compare_exchange_strong(none, block)) return true;
    }
  }
  kept.fetch_sub(block->capacity);
  return false;
}

// A kept block of such a size, and not of several times as much; null if there is none.
Header* find(size_t bytes) {
  for (auto& slot : slots) {
    if (slot.load(std::memory_order_relaxed) == nullptr) continue;
    Header* block = slot.exchange(nullptr);
    if (block == nullptr) continue;
    kept.fetch_sub(block->capacity);
    if (block->capacity >= bytes && block->capacity / 2 <= bytes) return block;
    if (!keep(block)) c10::free_cpu(block);
  }
  return nullptr;
}

struct KeptAllocator final : c10::Allocator {
  c10::DataPtr allocate(size_t bytes) override {
    void* data = take_kept(bytes);
    return {data, data, &give_kept, c10::Device(c10::DeviceType::CPU)};
  }
  c10::DeleterFnPtr raw_deleter() const override { return &give_kept; }
  void copy_data(void* to, const void* from, size_t bytes) const override {
    default_copy_data(to, from, bytes);
  }
};

}  // namespace

void* take_kept(size_t bytes) {
  Header* block = bytes >= kLeast && bytes <= kMost ? find(bytes) : nullptr;
  if (block == nullptr) {
    block = static_cast<Header*>(c10::alloc_cpu(bytes + kLine));
    block->capacity = bytes;
  }
  return reinterpret_cast<char*>(block) + kLine;
}

void give_kept(void* data) {
  if (data == nullptr) return;
  Header* block = header_of(data);
  const bool middling = block->capacity >= kLeast && block->capacity <= kMost;
  if (!middling || !keep(block)) c10::free_cpu(block);
}

c10::Allocator* kept_allocator() {
  static KeptAllocator allocator;
  return &allocator;
}

}  // namespace pyparam
