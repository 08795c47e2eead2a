// A kernel's body is written once and runs on the device and, thread by thread, on the host. No
// torch header and no CUDA header: a plain C++ compiler compiles every body, and the tests run it
// over the tables that the device would get.
//
// A body is a struct:
//
//     struct Body {
//       static constexpr int kThreads = 256;
//       static constexpr int kBlocks = 4;         // optional: see cuda/launch.cuh
//       struct Arguments { ... };                 // plain data, given to every block
//       struct Shared { Slots<double, kThreads> sums; };  // shared memory; uninitialised
//       template <typename Block>
//       static PYPARAM_DEVICE void run(const Block& block, const Arguments& a, Shared& shared) {
//         typename Block::template Local<double> sum;       // lives across phases
//         block.each([&](int thread) { sum[thread] = ...; });  // one phase
//         block.reduce(sum, shared.sums, [](double x, double y) { return x + y; });
//         block.last([&](int thread) { if (thread == 0) ... });
//       }
//     };
//
// Threads meet after each phase. Within a phase no thread may read what another one writes; the
// host runs the threads of a phase one after the other, in either order, and must get the same
// bytes both ways.
#pragma once

#include <cstdint>
#include <cstring>

#include "kernels/macros.h"

#if defined(__CUDACC__) || defined(__HIPCC__)
#define PYPARAM_DEVICE __device__ __forceinline__
// A function of its own, so that its registers do not add to its caller's.
#define PYPARAM_DEVICE_CALL __device__ __noinline__
#else
#define PYPARAM_DEVICE inline
#define PYPARAM_DEVICE_CALL inline
#endif

namespace pyparam {

// An array in shared memory, which has no constructors.
template <typename T, int kCount>
struct Slots {
  alignas(alignof(T) > 16 ? alignof(T) : 16) unsigned char bytes[sizeof(T) * kCount];

  PYPARAM_DEVICE T& operator[](int i) { return reinterpret_cast<T*>(bytes)[i]; }
  PYPARAM_DEVICE const T& operator[](int i) const { return reinterpret_cast<const T*>(bytes)[i]; }
};

// A body without shared memory.
struct NoShared {};

// What both kinds of block have in common. `Self` has each().
template <typename Self, int kThreadCount>
struct BlockOf {
  static constexpr int kThreads = kThreadCount;
  static_assert((kThreadCount & (kThreadCount - 1)) == 0, "a tree halves the threads");

  // Combines the slots of the first `count` threads as a binary tree, the same on every machine:
  // slots[0] holds the result afterwards, and every thread may read it. The tree depends on `count`
  // alone.
  template <typename T, typename Combine>
  PYPARAM_DEVICE void combine(Slots<T, kThreadCount>& slots, int count, const Combine& both) const {
    int half = 1;
    while (half < count) half *= 2;
    PYPARAM_UNROLL(1)
    for (half /= 2; half > 0; half /= 2) {
      self().each([&](int thread) {
        if (thread < half && thread + half < count)
          slots[thread] = both(slots[thread], slots[thread + half]);
      });
    }
  }
  // The same of every thread's value, by way of slots that are not in use.
  template <typename Values, typename T, typename Combine>
  PYPARAM_DEVICE void reduce(Values& values, Slots<T, kThreadCount>& slots,
                             const Combine& both) const {
    self().each([&](int thread) { slots[thread] = values[thread]; });
    combine(slots, kThreadCount, both);
  }
  // slots[0], which may be written to again once every thread has this.
  template <typename T>
  PYPARAM_DEVICE T first(const Slots<T, kThreadCount>& slots) const {
    typename Self::template Local<T> value;
    self().each([&](int thread) { value[thread] = slots[0]; });
    return value[0];
  }

 private:
  PYPARAM_DEVICE const Self& self() const { return *static_cast<const Self*>(this); }
};

#if defined(__CUDACC__)

template <int kThreadCount>
struct DeviceBlock : BlockOf<DeviceBlock<kThreadCount>, kThreadCount> {
  // One a thread: a register.
  template <typename T>
  struct Local {
    T value;
    PYPARAM_DEVICE T& operator[](int) { return value; }
  };

  PYPARAM_DEVICE int64_t index() const { return static_cast<int64_t>(blockIdx.x); }
  PYPARAM_DEVICE int64_t count() const { return static_cast<int64_t>(gridDim.x); }

  // One phase: `phase(thread)` on every thread, and then they meet.
  template <typename Phase>
  PYPARAM_DEVICE void each(const Phase& phase) const {
    phase(static_cast<int>(threadIdx.x));
    __syncthreads();
  }
  // The same without meeting: the last phase of a body, or the only one.
  template <typename Phase>
  PYPARAM_DEVICE void last(const Phase& phase) const {
    phase(static_cast<int>(threadIdx.x));
  }

  // Adds to a counter in shared or global memory that several threads add to. Integers only: the
  // order of sums of floats would differ from run to run.
  PYPARAM_DEVICE void add(int32_t& counter, int32_t amount) const { atomicAdd(&counter, amount); }
  PYPARAM_DEVICE void add(uint32_t& counter, uint32_t amount) const { atomicAdd(&counter, amount); }
  PYPARAM_DEVICE void add(uint64_t& counter, uint64_t amount) const {
    static_assert(sizeof(unsigned long long) == sizeof(uint64_t), "one size");
    atomicAdd(reinterpret_cast<unsigned long long*>(&counter),
              static_cast<unsigned long long>(amount));
  }
  PYPARAM_DEVICE void add(int64_t& counter, int64_t amount) const {
    add(reinterpret_cast<uint64_t&>(counter), static_cast<uint64_t>(amount));
  }
};

#endif

template <int kThreadCount>
struct HostBlock : BlockOf<HostBlock<kThreadCount>, kThreadCount> {
  template <typename T>
  struct Local {
    T values[kThreadCount];
    T& operator[](int thread) { return values[thread]; }
  };

  int64_t block_index;
  int64_t block_count;
  bool backwards;

  HostBlock(int64_t index, int64_t count, bool backwards)
      : block_index(index), block_count(count), backwards(backwards) {}

  int64_t index() const { return block_index; }
  int64_t count() const { return block_count; }

  template <typename Phase>
  void each(const Phase& phase) const {
    for (int i = 0; i < kThreadCount; ++i) phase(backwards ? kThreadCount - 1 - i : i);
  }
  template <typename Phase>
  void last(const Phase& phase) const {
    each(phase);
  }
  template <typename T>
  void add(T& counter, T amount) const {
    static_assert(T(1) / T(2) == T(0), "integers only");
    counter = static_cast<T>(counter + amount);
  }
};

// Runs every block of a launch, one after the other; `backwards` turns the order of blocks and
// threads.
template <typename Body>
void run_on_host(int64_t blocks, const typename Body::Arguments& arguments, bool backwards) {
  for (int64_t i = 0; i < blocks; ++i) {
    typename Body::Shared shared;
    std::memset(static_cast<void*>(&shared), 0xCD, sizeof(shared));  // no body may count on zeros
    Body::run(HostBlock<Body::kThreads>(backwards ? blocks - 1 - i : i, blocks, backwards),
              arguments, shared);
  }
}

}  // namespace pyparam
