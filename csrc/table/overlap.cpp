#include "table/overlap.h"

#include <algorithm>
#include <iterator>
#include <limits>
#include <numeric>
#include <utility>

namespace pyparam {

namespace {

// Bounds of the exact methods. Contiguous runs laid out one by one: 24 bytes each.
constexpr int64_t kMaxRuns = int64_t{1} << 20;
constexpr int64_t kMaxPairs = int64_t{1} << 20;
constexpr int64_t kWorkPerPair = 4096;

int64_t floor_div(int64_t a, int64_t b) { return a / b - (a % b != 0 && (a % b < 0) != (b < 0)); }
int64_t ceil_div(int64_t a, int64_t b) { return -floor_div(-a, b); }

// Σ coefficient · x, 0 <= x <= bound, somewhere in [low, high]?
struct Term {
  int64_t coefficient;
  int64_t bound;
};

class WindowSearch {
 public:
  WindowSearch(std::vector<Term> terms, int64_t work) : terms_(std::move(terms)), work_(work) {
    const size_t n = terms_.size();
    reach_.assign(n + 1, 0);
    gcd_.assign(n + 1, 0);
    for (size_t k = n; k-- > 0;) {
      reach_[k] = reach_[k + 1] + terms_[k].coefficient * terms_[k].bound;
      gcd_[k] = std::gcd(gcd_[k + 1], terms_[k].coefficient);
    }
  }

  Meeting run(int64_t low, int64_t high) {
    if (descend(0, low, high)) return Meeting::kMeet;
    return work_ < 0 ? Meeting::kUndecided : Meeting::kNever;
  }

 private:
  bool descend(size_t k, int64_t low, int64_t high) {
    low = std::max<int64_t>(low, 0);
    high = std::min(high, reach_[k]);
    if (low > high) return false;
    if (low == 0 || high == reach_[k]) return true;  // all x at 0, or all at their bounds
    // Some multiple of the gcd must lie in the window, and between 0 and reach.
    if (floor_div(high, gcd_[k]) < ceil_div(low, gcd_[k])) return false;
    if (k + 1 == terms_.size()) return true;
    if (--work_ < 0) return false;
    const auto [c, bound] = terms_[k];
    const int64_t first = std::max<int64_t>(0, ceil_div(low - reach_[k + 1], c));
    const int64_t last = std::min(bound, floor_div(high, c));
    for (int64_t x = first; x <= last && work_ >= 0; ++x) {
      if (descend(k + 1, low - c * x, high - c * x)) return true;
    }
    return false;
  }

  std::vector<Term> terms_;
  std::vector<int64_t> reach_;
  std::vector<int64_t> gcd_;
  int64_t work_;
};

int64_t runs_of(const Footprint& f) {
  int64_t runs = 1;
  for (const Dimension& d : f.dimensions) {
    if (d.size > kMaxRuns / runs) return kMaxRuns + 1;
    runs *= d.size;
  }
  return runs;
}

void join_at(const Footprint& a, const Footprint& b, bool vague, OverlapResult& result) {
  result.sets.join(a.owner, b.owner);
  if (vague) result.vague[a.owner] = 1;
}

using Iterator = std::vector<Footprint>::iterator;

// Bytes [begin, end) of an owner.
struct Run {
  int64_t begin;
  int64_t end;
  int64_t owner;
};

// Joins the owners of runs that have a byte in common, and gives every byte to the smallest owner
// that has it. Runs are sorted by begin: whoever reaches furthest holds every later begin below its
// end.
void sweep(const std::vector<Run>& runs, int64_t copies, OverlapResult& result) {
  // The runs over the byte at `position` and some that have ended, the smallest owner on top.
  const auto later = [](const Run& a, const Run& b) { return a.owner > b.owner; };
  std::vector<Run> open;
  int64_t position = 0;
  const auto give_up_to = [&](int64_t limit) {
    while (!open.empty() && position < limit) {
      const Run& top = open.front();
      const int64_t end = std::min(top.end, limit);
      if (end > position) {
        result.bytes[top.owner] += copies * (end - position);
        position = end;
      }
      if (top.end <= position) {
        std::pop_heap(open.begin(), open.end(), later);
        open.pop_back();
      }
    }
  };
  Run furthest = runs.front();
  for (const Run& run : runs) {
    if (run.begin < furthest.end) result.sets.join(furthest.owner, run.owner);
    if (run.end > furthest.end) furthest = run;
    give_up_to(run.begin);
    position = run.begin;
    open.push_back(run);
    std::push_heap(open.begin(), open.end(), later);
  }
  give_up_to(furthest.end);
}

// All of [first, last) are dense and sorted by begin.
void sweep_dense(Iterator first, Iterator last, int64_t copies, OverlapResult& result) {
  std::vector<Run> runs;
  runs.reserve(static_cast<size_t>(last - first));
  for (Iterator it = first; it != last; ++it) runs.push_back({it->begin, it->end, it->owner});
  sweep(runs, copies, result);
}

// Lays every contiguous run out, sorts and sweeps them: exact.
void sweep_runs(Iterator first, Iterator last, int64_t total, int64_t copies,
                OverlapResult& result) {
  std::vector<Run> runs;
  runs.reserve(static_cast<size_t>(total));
  for (Iterator it = first; it != last; ++it) {
    const size_t from = runs.size();
    runs.push_back({it->begin, it->begin + it->run, it->owner});
    for (const Dimension& d : it->dimensions) {
      const size_t so_far = runs.size() - from;
      for (int64_t i = 1; i < d.size; ++i) {
        for (size_t r = 0; r < so_far; ++r) {
          const Run& run = runs[from + r];
          runs.push_back({run.begin + i * d.stride, run.end + i * d.stride, run.owner});
        }
      }
    }
  }
  std::sort(runs.begin(), runs.end(), [](const Run& a, const Run& b) { return a.begin < b.begin; });
  sweep(runs, copies, result);
}

// Too much memory to lay out: asks pair by pair where there are few, else assumes what the bounding
// intervals say.
void sweep_pairs(Iterator first, Iterator last, int64_t copies, OverlapResult& result) {
  const int64_t count = last - first;
  const bool ask = count <= kMaxPairs / count;
  for (Iterator it = first; it != last; ++it) {
    int64_t bytes = it->end - it->begin;
    if (!it->opaque) {
      int64_t touched = it->run;
      for (const Dimension& d : it->dimensions)
        touched = touched > bytes / d.size ? bytes : touched * d.size;
      bytes = touched;
    }
    result.bytes[it->owner] += copies * bytes;
  }
  Iterator furthest = first;
  for (Iterator it = std::next(first); it != last; ++it) {
    if (!ask) {
      if (it->begin < furthest->end) join_at(*furthest, *it, true, result);
      if (it->end > furthest->end) furthest = it;
      continue;
    }
    for (Iterator other = first; other != it; ++other) {
      if (other->end <= it->begin || result.sets.find(other->owner) == result.sets.find(it->owner))
        continue;
      const Meeting met = meet(*other, *it, kWorkPerPair);
      if (met != Meeting::kNever) join_at(*other, *it, met == Meeting::kUndecided, result);
    }
  }
}

void settle(Iterator first, Iterator last, int64_t copies, OverlapResult& result);

// Bytes repeat their place modulo the largest distance at which some layout repeats. Layouts whose
// arcs on that circle do not hang together cannot meet: columns, or tiles, of one matrix, whatever
// their numbers of rows. Settles the parts one by one where there are two or more.
bool split_by_residue(Iterator first, Iterator last, int64_t copies, OverlapResult& result) {
  int64_t period = 0;
  for (Iterator it = first; it != last; ++it) {
    if (it->opaque) return false;
    if (!it->dimensions.empty()) period = std::max(period, it->dimensions.front().stride);
  }
  struct Arc {
    int64_t begin;
    int64_t end;
    int64_t layout;
  };
  std::vector<Arc> arcs;
  arcs.reserve(static_cast<size_t>(last - first));
  for (Iterator it = first; it != last; ++it) {
    int64_t length = it->end - it->begin;
    if (!it->dimensions.empty() && it->dimensions.front().stride == period) {
      length -= (it->dimensions.front().size - 1) * period;
    }
    if (length > period) return false;
    const int64_t begin = (it->begin - first->begin) % period;
    arcs.push_back({begin, begin + length, it - first});
  }
  std::sort(arcs.begin(), arcs.end(), [](const Arc& a, const Arc& b) { return a.begin < b.begin; });
  // parts[k] .. parts[k + 1] hang together; what the last ones reach beyond the period belongs to
  // the first.
  std::vector<size_t> parts{0};
  int64_t reach = arcs[0].end;
  for (size_t k = 1; k < arcs.size(); ++k) {
    if (arcs[k].begin >= reach) parts.push_back(k);
    reach = std::max(reach, arcs[k].end);
  }
  size_t joined = 0;  // of the first parts, how many the last one reaches
  while (joined + 1 < parts.size() && arcs[parts[joined]].begin < reach - period) ++joined;
  if (parts.size() - joined < 2) return false;
  parts.push_back(arcs.size());
  std::vector<Footprint> moved;
  moved.reserve(arcs.size());
  std::vector<size_t> ends;
  for (size_t p = joined; p + 1 < parts.size(); ++p) {
    for (size_t k = parts[p]; k < parts[p + 1]; ++k)
      moved.push_back(std::move(first[arcs[k].layout]));
    if (p + 2 == parts.size()) {
      for (size_t k = 0; k < parts[joined]; ++k) moved.push_back(std::move(first[arcs[k].layout]));
    }
    ends.push_back(moved.size());
  }
  std::move(moved.begin(), moved.end(), first);
  Iterator from = first;
  for (size_t end : ends) {
    const Iterator to = first + static_cast<std::ptrdiff_t>(end);
    settle(from, to, copies, result);
    from = to;
  }
  return true;
}

// A layout alone has nothing to meet; its bytes are known at once unless it slides over itself.
bool count_alone(const Footprint& f, int64_t copies, OverlapResult& result) {
  if (f.opaque) return false;
  int64_t bytes = f.run;
  int64_t extent = f.run;
  for (auto d = f.dimensions.rbegin(); d != f.dimensions.rend(); ++d) {
    if (d->stride < extent) return false;
    bytes *= d->size;
    extent += (d->size - 1) * d->stride;
  }
  result.bytes[f.owner] += copies * bytes;
  return true;
}

// Where every layout repeats the same number of times at the same distance, and none reaches into
// its next repetition counted from a common base, two of them meet if and only if their first
// repetitions do.
bool drop_common_dimension(Iterator first, Iterator last, int64_t& copies) {
  if (first->dimensions.empty()) return false;
  const auto [size, stride] = first->dimensions.front();
  const int64_t base = first->begin;
  for (Iterator it = first; it != last; ++it) {
    if (it->opaque || it->dimensions.empty()) return false;
    const Dimension& outer = it->dimensions.front();
    if (outer.size != size || outer.stride != stride) return false;
    if (it->end - (size - 1) * stride - base > stride) return false;
  }
  for (Iterator it = first; it != last; ++it) {
    it->end -= (size - 1) * stride;
    it->dimensions.erase(it->dimensions.begin());
  }
  copies *= size;
  return true;
}

// [first, last) are sorted by begin and their bounding intervals hang together.
void settle_cluster(Iterator first, Iterator last, int64_t copies, OverlapResult& result) {
  if (std::all_of(first, last, [](const Footprint& f) { return f.dense(); })) {
    return sweep_dense(first, last, copies, result);
  }
  if (last - first == 1 && count_alone(*first, copies, result)) return;
  if (split_by_residue(first, last, copies, result)) return;
  if (drop_common_dimension(first, last, copies)) return settle(first, last, copies, result);
  int64_t runs = 0;
  for (Iterator it = first; it != last && runs <= kMaxRuns; ++it)
    runs += it->opaque ? kMaxRuns + 1 : runs_of(*it);
  if (runs <= kMaxRuns) return sweep_runs(first, last, runs, copies, result);
  sweep_pairs(first, last, copies, result);
}

void settle(Iterator first, Iterator last, int64_t copies, OverlapResult& result) {
  std::sort(first, last, [](const Footprint& a, const Footprint& b) {
    return a.begin != b.begin ? a.begin < b.begin : a.owner < b.owner;
  });
  while (first != last) {
    Iterator next = std::next(first);
    for (int64_t end = first->end; next != last && next->begin < end; ++next)
      end = std::max(end, next->end);
    settle_cluster(first, next, copies, result);
    first = next;
  }
}

}  // namespace

Footprint footprint_of(int64_t owner, int64_t begin, int64_t unit,
                       std::vector<Dimension> dimensions) {
  constexpr int64_t kFar = std::numeric_limits<int64_t>::max() / 4;
  Footprint f{owner, begin, 0, unit, {}, false};
  int64_t extent = unit;
  for (const Dimension& d : dimensions) {
    int64_t span = 0;
    if (__builtin_mul_overflow(d.size - 1, d.stride, &span) ||
        __builtin_add_overflow(extent, span, &extent) || extent > kFar) {
      f.opaque = true;
      f.end = begin + kFar;
      return f;
    }
  }
  f.end = begin + extent;
  dimensions.erase(std::remove_if(dimensions.begin(), dimensions.end(),
                                  [](const Dimension& d) { return d.size == 1 || d.stride == 0; }),
                   dimensions.end());
  std::sort(dimensions.begin(), dimensions.end(),
            [](const Dimension& a, const Dimension& b) { return a.stride > b.stride; });
  while (!dimensions.empty() && dimensions.back().stride <= f.run) {
    // Windows that touch or slide over one another are one longer run.
    f.run += (dimensions.back().size - 1) * dimensions.back().stride;
    dimensions.pop_back();
  }
  for (const Dimension& d : dimensions) {
    if (!f.dimensions.empty() && f.dimensions.back().stride == d.size * d.stride) {
      f.dimensions.back() = {f.dimensions.back().size * d.size, d.stride};
    } else {
      f.dimensions.push_back(d);
    }
  }
  return f;
}

Meeting meet(const Footprint& a, const Footprint& b, int64_t work) {
  if (a.end <= b.begin || b.end <= a.begin) return Meeting::kNever;
  if (a.opaque || b.opaque) return Meeting::kUndecided;
  // Σ s·x − Σ t·y lies in [low, high]; y counted from its far end makes every coefficient positive.
  int64_t low = b.begin - a.begin - (a.run - 1);
  int64_t high = b.begin - a.begin + (b.run - 1);
  std::vector<Term> terms;
  terms.reserve(a.dimensions.size() + b.dimensions.size());
  for (const Dimension& d : a.dimensions) terms.push_back({d.stride, d.size - 1});
  for (const Dimension& d : b.dimensions) {
    terms.push_back({d.stride, d.size - 1});
    low += d.stride * (d.size - 1);
    high += d.stride * (d.size - 1);
  }
  std::sort(terms.begin(), terms.end(),
            [](const Term& x, const Term& y) { return x.coefficient > y.coefficient; });
  std::vector<Term> merged;
  for (const Term& term : terms) {
    if (!merged.empty() && merged.back().coefficient == term.coefficient) {
      merged.back().bound += term.bound;
    } else {
      merged.push_back(term);
    }
  }
  return WindowSearch(std::move(merged), work).run(low, high);
}

DisjointSets::DisjointSets(int64_t size) : parent_(static_cast<size_t>(size)) {
  std::iota(parent_.begin(), parent_.end(), int64_t{0});
}

int64_t DisjointSets::find(int64_t i) {
  while (parent_[i] != i) i = parent_[i] = parent_[parent_[i]];
  return i;
}

bool DisjointSets::join(int64_t a, int64_t b) {
  a = find(a);
  b = find(b);
  if (a == b) return false;
  parent_[std::max(a, b)] = std::min(a, b);
  return true;
}

std::vector<int64_t> DisjointSets::leaders() {
  // A parent is never larger than its child, so that one pass upwards will do.
  for (int64_t& parent : parent_) parent = parent_[parent];
  return std::move(parent_);
}

void join_overlapping(std::vector<Footprint> layouts, OverlapResult& result) {
  settle(layouts.begin(), layouts.end(), 1, result);
}

}  // namespace pyparam
