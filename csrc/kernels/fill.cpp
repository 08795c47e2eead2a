#include "kernels/fill.h"

#include <ATen/Parallel.h>
#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/ops/empty.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <exception>
#include <map>
#include <set>
#include <utility>

namespace pyparam {
void check_kinds(at::TensorList tensors, at::IntArrayRef kinds) {
  TORCH_CHECK_VALUE(kinds.size() == tensors.size(), "fill_: ", tensors.size(), " tensors, but ",
                    kinds.size(), " kinds");
}

namespace {

using random::Kind;

constexpr int64_t kAhead = 8;  // tensors to fetch into the cache ahead of the one at hand

std::string place(size_t i) { return "fill_: tensors[" + std::to_string(i) + "]"; }

void check_columns(at::TensorList tensors, const FillColumns& c) {
  const size_t n = tensors.size();
  check_kinds(tensors, c.kinds);
  TORCH_CHECK_VALUE(c.parameters.size() == n * random::kParameters, "fill_: ", n, " tensors, so ",
                    n * random::kParameters, " parameters expected, got ", c.parameters.size());
  TORCH_CHECK_VALUE(c.streams.size() == n, "fill_: ", n, " tensors, but ", c.streams.size(),
                    " streams");
  TORCH_CHECK_VALUE(c.offsets.empty() || c.offsets.size() == n, "fill_: ", n, " tensors, but ",
                    c.offsets.size(), " offsets");
  if (c.strides.empty()) return;
  size_t dims = 0;
  for (const at::Tensor& t : tensors) dims += static_cast<size_t>(t.dim());
  TORCH_CHECK_VALUE(c.strides.size() == dims, "fill_: the tensors have ", dims,
                    " dimensions in all, but there are ", c.strides.size(), " strides");
}

void check_parameters(size_t i, Kind kind, const double* p) {
  const auto finite = [&](int k) { return std::isfinite(p[k]); };
  switch (kind) {
    case Kind::kKeep:
    case Kind::kConstant:
      return;
    case Kind::kUniform:
      TORCH_CHECK_VALUE(finite(0) && finite(1) && p[0] <= p[1] && std::isfinite(p[1] - p[0]),
                        place(i), ": a uniform needs finite bounds with a <= b; got a=", p[0],
                        ", b=", p[1]);
      return;
    case Kind::kNormal:
      TORCH_CHECK_VALUE(finite(0) && finite(1) && p[1] >= 0, place(i),
                        ": a normal needs a finite mean and std >= 0; got mean=", p[0],
                        ", std=", p[1]);
      return;
    case Kind::kTruncated:
      TORCH_CHECK_VALUE(finite(0) && finite(1) && p[1] >= 0, place(i),
                        ": a normal needs a finite mean and std >= 0; got mean=", p[0],
                        ", std=", p[1]);
      TORCH_CHECK_VALUE(p[2] <= p[3] && p[2] != INFINITY && p[3] != -INFINITY, place(i),
                        ": a truncated normal needs bounds with a <= b; got a=", p[2],
                        ", b=", p[3]);
      return;
  }
}

// Strides under which no two elements can meet: each exceeds the reach of all the smaller ones.
bool separated(const at::Tensor& t) {
  if (t.is_non_overlapping_and_dense()) return true;
  std::vector<Extent> dims;
  for (int64_t d = 0; d < t.dim(); ++d) {
    if (t.size(d) > 1) dims.push_back({t.size(d), t.stride(d)});
  }
  std::sort(dims.begin(), dims.end(),
            [](const Extent& a, const Extent& b) { return a.stride < b.stride; });
  int64_t reach = 0;
  for (const Extent& d : dims) {
    if (d.stride <= reach) return false;
    reach += (d.size - 1) * d.stride;
  }
  return true;
}

void check_tensor(size_t i, const at::Tensor& t, Kind kind) {
  TORCH_CHECK_VALUE(t.defined(), place(i), " is undefined");
  TORCH_CHECK_TYPE(t.layout() == at::kStrided && !t.is_nested(), place(i), " is ",
                   t.is_nested() ? "nested" : "sparse", " (layout ", t.layout(),
                   "); expected a strided tensor");
  TORCH_CHECK_TYPE(!t.is_quantized(), place(i), " is quantized (", t.scalar_type(),
                   "); expected an ordinary tensor");
  TORCH_CHECK_TYPE(!t.is_conj() && !t.is_neg(), place(i), " is a lazy ",
                   t.is_conj() ? "conjugate" : "negative",
                   "; expected a tensor that holds its own values");
  const at::ScalarType type = t.scalar_type();
  TORCH_CHECK_TYPE(kind == Kind::kConstant || type == at::kFloat || type == at::kDouble ||
                       type == at::kHalf || type == at::kBFloat16,
                   place(i), " has dtype ", type,
                   "; random fills write float32, float64, float16 and bfloat16");
  TORCH_CHECK_VALUE(t.numel() <= 1 || separated(t), place(i),
                    " has elements that share memory (size ", t.sizes(), ", stride ", t.strides(),
                    "); clone() it before filling");
}

Layout merged(int64_t offset, const at::Tensor& t, at::IntArrayRef strides) {
  Layout layout;
  layout.offset = offset;
  for (int64_t d = 0; d < t.dim(); ++d) {
    const Extent next = {t.size(d), strides[d]};
    if (next.size == 1) continue;
    if (!layout.dims.empty() && layout.dims.back().stride == next.size * next.stride) {
      layout.dims.back() = {layout.dims.back().size * next.size, next.stride};
    } else {
      layout.dims.push_back(next);
    }
  }
  return layout;
}

Layout whole_layout(size_t i, const at::Tensor& t, int64_t offset, at::IntArrayRef strides) {
  if (t.numel() == 0) return {};
  TORCH_CHECK_VALUE(offset >= 0, place(i), ": the offset in the whole is negative (", offset, ")");
  if (strides.empty()) {
    Layout layout;
    layout.offset = offset;
    if (t.numel() > 1) layout.dims.push_back({t.numel(), 1});
    return layout;
  }
  int64_t reach = offset;
  for (int64_t d = 0; d < t.dim(); ++d) {
    int64_t span = 0;
    TORCH_CHECK_VALUE(
        strides[d] >= 0 && !__builtin_mul_overflow(t.size(d) - 1, strides[d], &span) &&
            !__builtin_add_overflow(reach, span, &reach),
        place(i), ": strides of the whole must be non-negative and stay below 2^63; got ", strides);
  }
  return merged(offset, t, strides);
}

// Checks tensor i and lays it out. Safe to run for different tensors at once.
void prepare_row(FillRow& row, size_t i, const at::Tensor& t, const FillColumns& columns,
                 size_t first_dim) {
  check_tensor(i, t, static_cast<Kind>(columns.kinds[i]));
  at::IntArrayRef strides;
  if (!columns.strides.empty())
    strides = columns.strides.slice(first_dim, static_cast<size_t>(t.dim()));
  row.whole = whole_layout(i, t, columns.offsets.empty() ? 0 : columns.offsets[i], strides);
  row.memory = merged(0, t, t.strides());
  row.key = {static_cast<uint64_t>(columns.seed), static_cast<uint64_t>(columns.streams[i])};
}

// The draw of each row. Tensors filled alike share one, and neighbours often are.
void prepare_draws(Fill& fill, const FillColumns& columns) {
  fill.draws.emplace_back();  // of tensors left alone
  std::map<std::array<double, random::kParameters + 1>, size_t> known;
  for (size_t i = 0; i < fill.rows.size(); ++i) {
    TORCH_CHECK_VALUE(columns.kinds[i] >= -1 && columns.kinds[i] < random::kKinds, place(i),
                      ": unknown kind ", columns.kinds[i]);
    const double* p = columns.parameters.data() + i * random::kParameters;
    if (i > 0 && columns.kinds[i] == columns.kinds[i - 1] &&
        std::equal(p, p + random::kParameters, p - random::kParameters)) {
      fill.rows[i].draw = fill.rows[i - 1].draw;
      continue;
    }
    const auto kind = static_cast<Kind>(columns.kinds[i]);
    if (kind == Kind::kKeep) continue;
    check_parameters(i, kind, p);
    const auto [entry, fresh] = known.try_emplace(
        {static_cast<double>(columns.kinds[i]), p[0], p[1], p[2], p[3]}, fill.draws.size());
    if (fresh) fill.draws.push_back(random::prepared(kind, p));
    fill.rows[i].draw = entry->second;
  }
}

// A constant that a dtype cannot hold is refused before anything is written. Torch's own fill_ says
// which.
void check_constants(at::TensorList tensors, const Fill& fill) {
  std::set<std::pair<size_t, at::ScalarType>> known;
  std::pair<size_t, at::ScalarType> last{0,
                                         at::ScalarType::Undefined};  // neighbours are often alike
  for (size_t i = 0; i < fill.rows.size(); ++i) {
    if (fill.draw(i).map != random::Map::kConstant || tensors[i].numel() == 0) continue;
    const at::ScalarType dtype = tensors[i].scalar_type();
    const std::pair<size_t, at::ScalarType> pair{fill.rows[i].draw, dtype};
    if (pair == last || !known.insert(pair).second) continue;
    last = pair;
    const double value = fill.draw(i).affine64.shift;
    bool held = true;
    try {
      const at::AutoDispatchBelowAutograd guard;
      at::empty({1}, dtype).fill_(value);
    } catch (const std::exception&) {
      held = false;
    }
    TORCH_CHECK_VALUE(held, place(i), " has dtype ", dtype, ", which cannot hold ", value);
  }
}

}  // namespace

Fill prepare_fill(at::TensorList tensors, const FillColumns& columns) {
  check_columns(tensors, columns);
  Fill fill;
  fill.rows.resize(tensors.size());
  prepare_draws(fill, columns);
  std::vector<size_t> first_dim(columns.strides.empty() ? 0 : tensors.size());
  for (size_t i = 1; i < first_dim.size(); ++i)
    first_dim[i] = first_dim[i - 1] + static_cast<size_t>(tensors[i - 1].dim());
  const auto prepare = [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      if (i + kAhead < end) __builtin_prefetch(tensors[i + kAhead].unsafeGetTensorImpl());
      if (columns.kinds[i] >= 0)
        prepare_row(fill.rows[i], i, tensors[i], columns, first_dim.empty() ? 0 : first_dim[i]);
    }
  };
  const auto count = static_cast<int64_t>(tensors.size());
  try {
    at::parallel_for(0, count, 1 << 16, prepare);
  } catch (const c10::Error&) {
    prepare(0, count);  // again, in order, so that the first wrong tensor is the one named
    throw;
  }
  check_constants(tensors, fill);
  return fill;
}

}  // namespace pyparam
