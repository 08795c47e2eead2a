#include "kernels/cpu/transfer.h"

#include <ATen/ops/from_blob.h>
#include <c10/core/InferenceMode.h>
#include <c10/util/Exception.h>

#include <algorithm>
#include <cstring>

#include "kernels/cpu/convert.h"
#include "kernels/cpu/memory.h"
#include "kernels/cpu/parallel.h"
#include "kernels/cpu/strided.h"
#include "kernels/extent.h"
#include "table/ordinary.h"
#include "table/prefetch.h"

namespace pyparam::cpu {
namespace {

constexpr int64_t chunk_bytes = int64_t{1} << 20;
constexpr int64_t strided_chunk_bytes = int64_t{4}
                                        << 20;  // more rows to a chunk, where columns are far apart
constexpr int64_t group_bytes = int64_t{1} << 18;
constexpr size_t bytes_ahead = 8;  // chunks whose bytes are asked for ahead of use

// Bytes from the first to past the last of a tensor that has elements.
int64_t bytes_spanned(const Piece& piece, const at::Tensor& tensor) {
  const int64_t reach = piece.dense ? piece.numel : reach_of(tensor);
  return reach * static_cast<int64_t>(c10::elementSize(piece.dtype));
}

}  // namespace

bool is_ordinary(const at::Tensor& tensor) {
  constexpr c10::DispatchKeySet kLazy({c10::DispatchKey::Conjugate, c10::DispatchKey::Negative});
  return tensor.defined() && is_ordinary_cpu(*tensor.unsafeGetTensorImpl(), kLazy);
}

namespace {

// Reads what almost every tensor is: contiguous, with elements in memory that is there. False for
// any other, which is nothing known about then.
PYPARAM_INLINE bool read_dense(const at::Tensor& tensor, bool write, Piece& piece) {
  const c10::TensorImpl& impl = *tensor.unsafeGetTensorImpl();
  if (!is_ordinary_cpu(impl) || !impl.is_contiguous()) return false;
  piece.numel = impl.numel();
  if (piece.numel == 0) return false;
  piece.dtype = c10::typeMetaToScalarType(impl.dtype());
  piece.dense = true;
  piece.lazy = false;
  piece.data = const_cast<char*>(dense_memory(impl, piece.numel, c10::elementSize(piece.dtype)));
  if (piece.data == nullptr) return false;
  if (write) piece.data = static_cast<char*>(tensor.mutable_data_ptr());
  return true;
}

// Reads tensor i, whatever it is. False where it is not ordinary.
bool read_any(const char* verb, const Subject& subject, size_t i, bool write, Piece& piece) {
  const bool present = subject[i].defined();
  const at::Tensor& tensor = subject.shape(i);
  if (!is_ordinary(tensor)) return false;
  const c10::TensorImpl* impl = tensor.unsafeGetTensorImpl();
  piece = {nullptr, impl->numel(), piece.offset, c10::typeMetaToScalarType(impl->dtype()),
           true,    false};
  if (!present) require_strided(verb, subject, i);
  if (piece.numel == 0 || !present) return true;
  require_extent(tensor, [&] { return c10::str(verb, ": ", subject.spoken(i)); });
  piece.dense = impl->is_contiguous();
  piece.lazy = tensor.is_conj() || tensor.is_neg();
  piece.data = write ? static_cast<char*>(tensor.mutable_data_ptr())
                     : static_cast<char*>(const_cast<void*>(tensor.const_data_ptr()));
  return true;
}

}  // namespace

std::optional<Pieces> read_pieces(const char* verb, const Subject& subject, bool write) {
  Pieces pieces;
  const size_t count = subject.size();
  pieces.list.resize(count);
  for (size_t i = 0; i < count; ++i) {
    prefetch_ahead(subject.tensors, i);
    Piece& piece = pieces.list[i];
    piece.offset = pieces.numel;
    if (!read_dense(subject[i], write, piece)) {
      if (!read_any(verb, subject, i, write, piece)) return std::nullopt;
      if (piece.numel == 0) pieces.empties.push_back(i);
      pieces.whole &= piece.data != nullptr && piece.dense && !piece.lazy;
    }
    pieces.same_dtype &= piece.dtype == pieces.list[0].dtype;
    pieces.numel += piece.numel;
  }
  return pieces;
}

Span span_of(const Piece& piece, const at::Tensor& tensor) {
  if (piece.data == nullptr) return {};
  return {piece.data, piece.data + bytes_spanned(piece, tensor)};
}

void require_convertible(const char* verb, const Subject& subject, const Pieces& pieces,
                         at::ScalarType to) {
  if (pieces.list.empty() || (pieces.same_dtype && pieces.list.front().dtype == to)) return;
  for (size_t i = 0; i < pieces.list.size(); ++i) {
    const at::ScalarType from = pieces.list[i].dtype;
    TORCH_CHECK_TYPE(from == to || run_for(to, from) != nullptr, verb, ": ", subject.spoken(i),
                     " is torch.", c10::getDtypeNames(from).first,
                     ", which does not convert to torch.", c10::getDtypeNames(to).first);
  }
}

namespace {

// A two-dimensional arrangement: element (a, b) lies at data + a * a_step + b * b_step.
struct Plane {
  char* data;
  int64_t a_step;
  int64_t b_step;
};

// dst(a, b) = src(a, b), where src is dense along a and dst along b. Both are touched a cache line
// at a time: a square of the source waits in the first-level cache.
void transpose(Run run, int64_t size, const Plane& src, const Plane& dst, int64_t count_a,
               int64_t count_b) {
  constexpr int64_t side = 32;
  alignas(64) char square[side * side * 16];
  const Run copy = word_copy(size);
  for (int64_t b = 0; b < count_b; b += side) {
    const int64_t bs = std::min(side, count_b - b);
    for (int64_t a = 0; a < count_a; a += side) {
      const int64_t as = std::min(side, count_a - a);
      const char* from = src.data + a * src.a_step + b * src.b_step;
      char* to = dst.data + a * dst.a_step + b * dst.b_step;
      for (int64_t i = 0; i < bs; ++i)
        copy(square + i * side * size, size, from + i * src.b_step, src.a_step, as);
      for (int64_t i = 0; i < as; ++i)
        run(to + i * dst.a_step, dst.b_step, square + i * size, side * size, bs);
    }
  }
}

// One direction of a transfer. Gather writes the vector, scatter writes the tensors.
template <bool to_vector>
class Transfer {
 public:
  Transfer(const Subject& subject, const Pieces& pieces, const at::Tensor& vector)
      : subject_(subject),
        pieces_(pieces),
        vector_dtype_(vector.scalar_type()),
        vector_size_(static_cast<int64_t>(vector.itemsize())),
        vector_(to_vector ? static_cast<char*>(vector.mutable_data_ptr())
                          : static_cast<char*>(const_cast<void*>(vector.const_data_ptr()))),
        streams_(to_vector && pieces.numel * vector_size_ >= streaming_bytes) {}

  void run(const ChunkPlan& plan, bool serial) {
    const ExactFloats mode;
    const auto each = [&](const Chunk& chunk, int64_t index) {
      const size_t ahead = static_cast<size_t>(index) + bytes_ahead;
      if (ahead < plan.chunks.size()) prefetch_bytes(plan.chunks[ahead]);
      move(chunk);
    };
    if (serial) {
      for (size_t c = 0; c < plan.chunks.size(); ++c) each(plan.chunks[c], static_cast<int64_t>(c));
    } else {
      for_each_chunk(plan, Pass::kWrites, each);
    }
    for (size_t i = 0; i < pieces_.list.size(); ++i) {
      if (pieces_.list[i].lazy) move_lazy(i);
    }
  }

 private:
  void prefetch_bytes(const Chunk& chunk) const {
    const Piece& piece = pieces_.list[chunk.tensor];
    for (int64_t line = 0; line < 256; line += 64)
      __builtin_prefetch(piece.data + line, to_vector ? 0 : 1);
  }

  void move(const Chunk& chunk) const {
    const Piece& piece = pieces_.list[chunk.tensor];
    char* in_vector = vector_ + (piece.offset + chunk.begin) * vector_size_;
    if (piece.lazy) return;
    if (piece.data == nullptr) {
      std::memset(in_vector, 0, static_cast<size_t>(chunk.length * vector_size_));
      return;
    }
    const auto size = static_cast<int64_t>(c10::elementSize(piece.dtype));
    if (piece.dense) {
      move_run(piece, in_vector, piece.data + chunk.begin * size, size, chunk.length);
      return;
    }
    const at::Tensor& tensor = subject_[static_cast<size_t>(chunk.tensor)];
    const Odometer odometer(tensor.sizes(), tensor.strides(), size);
    odometer.walk(
        chunk.begin, chunk.length,
        [&](int64_t position, int64_t offset, int64_t step, int64_t count) {
          move_run(piece, in_vector + position * vector_size_, piece.data + offset, step, count);
        },
        [&](const StridedBlock& block) {
          char* at = in_vector + block.position * vector_size_;
          char* in_tensor = piece.data + block.offset;
          const int64_t pitch = block.pitch * vector_size_;
          if constexpr (to_vector) {
            transpose(run_for(vector_dtype_, piece.dtype), size,
                      {in_tensor, block.row_step, block.column_step}, {at, pitch, vector_size_},
                      block.rows, block.columns);
          } else {
            transpose(run_for(piece.dtype, vector_dtype_), vector_size_, {at, vector_size_, pitch},
                      {in_tensor, block.column_step, block.row_step}, block.columns, block.rows);
          }
        });
  }

  void move_run(const Piece& piece, char* in_vector, char* in_tensor, int64_t step,
                int64_t count) const {
    const auto size = static_cast<int64_t>(c10::elementSize(piece.dtype));
    if (piece.dtype == vector_dtype_ && step == size) {
      if (in_vector == in_tensor) return;
      const auto bytes = static_cast<size_t>(count * size);
      if constexpr (!to_vector) {
        std::memcpy(in_tensor, in_vector, bytes);
      } else if (streams_) {
        stream_copy(in_vector, in_tensor, bytes);
      } else {
        std::memcpy(in_vector, in_tensor, bytes);
      }
      return;
    }
    if constexpr (to_vector) {
      const Run run = run_for(vector_dtype_, piece.dtype);
      if (!streams_) {
        run(in_vector, vector_size_, in_tensor, step, count);
        return;
      }
      stream_run(run, in_vector, vector_size_, in_tensor, step, count);
    } else {
      run_for(piece.dtype, vector_dtype_)(in_tensor, step, in_vector, vector_size_, count);
    }
  }

  // A tensor with the conjugate or negative bit: torch's copy knows both.
  void move_lazy(size_t i) const {
    const Piece& piece = pieces_.list[i];
    const at::Tensor& tensor = subject_[i];
    const at::Tensor slice = at::from_blob(vector_ + piece.offset * vector_size_, tensor.sizes(),
                                           at::TensorOptions(vector_dtype_));
    if constexpr (to_vector) {
      slice.copy_(tensor);
    } else {
      tensor.copy_(slice);
    }
  }

  const Subject& subject_;
  const Pieces& pieces_;
  const at::ScalarType vector_dtype_;
  const int64_t vector_size_;
  char* const vector_;
  const bool streams_;
};

ChunkPlan plan_for(const Pieces& pieces, int64_t vector_size) {
  std::vector<int64_t> numels;
  numels.reserve(pieces.list.size());
  bool dense = true;
  for (const Piece& piece : pieces.list) {
    numels.push_back(piece.numel);
    dense &= piece.dense;
  }
  const int64_t bytes = dense ? chunk_bytes : strided_chunk_bytes;
  return plan_chunks(numels, bytes / vector_size, group_bytes / vector_size);
}

// Whether any two tensors share a byte of their spans.
bool any_overlap(const Subject& subject, const Pieces& pieces) {
  std::vector<Span> spans;
  spans.reserve(pieces.list.size());
  for (size_t i = 0; i < pieces.list.size(); ++i) {
    const Span span = span_of(pieces.list[i], subject[i]);
    if (!span.empty()) spans.push_back(span);
  }
  return any_meet(spans);
}

}  // namespace

namespace {

// Little memory, all of it to be copied as it is, is copied before threads could wake up.
constexpr int64_t few_bytes = int64_t{256} << 10;

void gather_few(const Pieces& pieces, const at::Tensor& vector) {
  const auto size = static_cast<int64_t>(vector.itemsize());
  auto* to = static_cast<char*>(vector.mutable_data_ptr());
  const size_t count = pieces.list.size();
  for (size_t i = 0; i < count; ++i) {
    if (i + bytes_ahead < count) __builtin_prefetch(pieces.list[i + bytes_ahead].data);
    const Piece& piece = pieces.list[i];
    const auto bytes = static_cast<size_t>(piece.numel * size);
    if (to != piece.data) std::memcpy(to, piece.data, bytes);
    to += bytes;
  }
}

}  // namespace

void gather(const Subject& subject, const Pieces& pieces, const at::Tensor& vector) {
  if (pieces.numel == 0) return;
  if (pieces.whole && pieces.same_dtype && pieces.list[0].dtype == vector.scalar_type() &&
      pieces.numel * static_cast<int64_t>(vector.itemsize()) <= few_bytes) {
    gather_few(pieces, vector);
    return;
  }
  Transfer<true>(subject, pieces, vector)
      .run(plan_for(pieces, static_cast<int64_t>(vector.itemsize())), false);
}

void scatter(const Subject& subject, const Pieces& pieces, const at::Tensor& vector) {
  if (pieces.numel == 0) return;
  const ChunkPlan plan = plan_for(pieces, static_cast<int64_t>(vector.itemsize()));
  const bool one_task = plan.groups.size() <= 2;
  Transfer<false>(subject, pieces, vector).run(plan, one_task || any_overlap(subject, pieces));
}

}  // namespace pyparam::cpu
