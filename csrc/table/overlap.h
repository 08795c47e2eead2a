// Which strided layouts touch a common byte. Plain geometry: bytes and strides, no tensors.
//
// Layouts are sorted by their first byte and swept once, keeping the largest end seen, so that a
// short layout inside a long one does not hide what follows it. Where bounding intervals meet, the
// question is settled exactly if it can be at bounded cost, and answered "they overlap" with a mark
// that says so if it cannot.
#pragma once

#include <cstdint>
#include <vector>

namespace pyparam {

struct Dimension {
  int64_t size;    // > 1
  int64_t stride;  // in bytes, > 0
};

// The bytes begin + Σ i_k · stride_k + [0, run), 0 <= i_k < size_k, of the owner at index `owner`.
struct Footprint {
  int64_t owner;
  int64_t begin;
  int64_t end;                        // one past the last byte
  int64_t run;                        // > 0
  std::vector<Dimension> dimensions;  // strides fall; none folds into the run or into its neighbour
  bool opaque = false;                // the layout is not known: anything in [begin, end)

  // Every byte of [begin, end), each once.
  bool dense() const { return dimensions.empty() && !opaque; }
};

// Drops sizes of 1 and strides of 0, orders the dimensions and folds what is contiguous. `unit` is
// the bytes of one element. Strides are in bytes and not negative, sizes are positive. A layout
// whose extent leaves int64 comes back opaque.
Footprint footprint_of(int64_t owner, int64_t begin, int64_t unit,
                       std::vector<Dimension> dimensions);

enum class Meeting { kNever, kMeet, kUndecided };

// Whether two layouts have a byte in common: a bounded linear Diophantine problem, solved by
// depth-first search with interval and gcd cuts within `work` steps, kUndecided beyond.
Meeting meet(const Footprint& a, const Footprint& b, int64_t work);

// Sets of owners, each named by its smallest member.
class DisjointSets {
 public:
  explicit DisjointSets(int64_t size);
  int64_t find(int64_t i);
  // Returns true where a and b were apart.
  bool join(int64_t a, int64_t b);
  // The smallest member of everyone's set. The sets are given up.
  std::vector<int64_t> leaders();

 private:
  std::vector<int64_t> parent_;
};

// What a search writes. `bytes[owner]` grows by the bytes that no smaller owner has; their sum over
// a set of owners is the set's memory, counted once (an upper bound where `vague`). `vague[owner]`
// is set where a join of that owner was assumed and not shown.
struct OverlapResult {
  DisjointSets& sets;
  std::vector<int64_t>& bytes;
  std::vector<char>& vague;
};

// Joins the owners of layouts that have a byte in common. Memory is linear in the number of
// layouts, beside one buffer of bounded size.
void join_overlapping(std::vector<Footprint> layouts, OverlapResult& result);

}  // namespace pyparam
