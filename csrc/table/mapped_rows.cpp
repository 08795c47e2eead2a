#include "table/mapped_rows.h"

#include <c10/util/accumulate.h>

#include <numeric>
#include <string>

#include "kernels/spans.h"

namespace pyparam {

LayoutKinds layout_kinds(const files::MappedRows& rows) {
  KindNumbers kinds(rows.size());
  std::string key;
  for (size_t i = 0; i < rows.size(); ++i) {
    const at::IntArrayRef shape = rows.shape(i);
    key.assign(1, static_cast<char>(rows.dtype(i)));
    key.append(reinterpret_cast<const char*>(shape.data()), shape.size() * sizeof(int64_t));
    const bool empty = c10::multiply_integers(shape) == 0;
    if (empty) {  // a kind by itself
      key.assign(reinterpret_cast<const char*>(&i), sizeof(i));
      key.push_back('-');
    }
    kinds.add(key, empty);
  }
  return kinds.finished();
}

std::optional<TieSets> apart_sets(const files::MappedRows& rows) {
  const size_t count = rows.size();
  TieSets sets;
  sets.bytes.resize(count);
  std::vector<Span> spans(count);
  for (size_t i = 0; i < count; ++i) {
    const int64_t numel = c10::multiply_integers(rows.shape(i));
    if (numel == 0) continue;
    const char* const data = rows.data(i);
    if (data == nullptr) return std::nullopt;  // a copy, made anew for each who asks
    sets.bytes[i] = numel * static_cast<int64_t>(c10::elementSize(rows.dtype(i)));
    spans[i] = {data, data + sets.bytes[i]};
  }
  if (any_meet(spans)) return std::nullopt;
  sets.memory.resize(count);
  std::iota(sets.memory.begin(), sets.memory.end(), int64_t{0});
  sets.object = sets.layout = sets.memory;
  sets.vague.resize(count);
  sets.offset.resize(count);
  return sets;
}

}  // namespace pyparam
