#include "table/fingerprint.h"

#include <ATen/Parallel.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/ops/empty.h>

#include <atomic>
#include <cstring>

#include "kernels/flatten.h"
#include "kernels/operands.h"

namespace pyparam {
namespace {

constexpr int64_t kNamesPerTask = 2048;

static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "digests are turned round as a whole");

// Most significant byte first, as the hexadecimal number is written: high half, then low half.
void write_digest(char* to, const hash::Digest& digest) {
  const uint64_t halves[2] = {__builtin_bswap64(digest.high), __builtin_bswap64(digest.low)};
  std::memcpy(to, halves, sizeof(halves));
}

hash::Digest read_digest(const char* from) {
  uint64_t halves[2];
  std::memcpy(halves, from, sizeof(halves));
  return {__builtin_bswap64(halves[1]), __builtin_bswap64(halves[0])};
}

// name_of(i, buffer) views the name i, which it may put into the buffer; digest_of(i) is its
// digest.
template <typename NameOf, typename DigestOf>
std::string total_from(size_t count, const NameOf& name_of, const DigestOf& digest_of) {
  std::atomic<uint64_t> low{0};
  std::atomic<uint64_t> high{0};
  at::parallel_for(0, static_cast<int64_t>(count), kNamesPerTask, [&](int64_t begin, int64_t end) {
    hash::Digest sum;
    std::string buffer;
    for (int64_t i = begin; i < end; ++i) {
      const std::string_view name = name_of(static_cast<size_t>(i), buffer);
      const hash::Digest entry =
          hash::entry_digest(name.data(), static_cast<int64_t>(name.size()), digest_of(i));
      sum.low += entry.low;
      sum.high += entry.high;
    }
    low.fetch_add(sum.low, std::memory_order_relaxed);
    high.fetch_add(sum.high, std::memory_order_relaxed);
  });
  std::string total(16, '\0');
  write_digest(total.data(), hash::table_digest({low, high}, static_cast<int64_t>(count)));
  return total;
}

}  // namespace

at::Tensor digests_of(const ParamTable& table, bool release_pages) {
  static const auto op = c10::Dispatcher::singleton()
                             .findSchemaOrThrow("pyparam::fingerprint", "")
                             .typed<at::Tensor(at::TensorList)>();
  // An op cannot be dispatched on no tensor at all.
  if (table.size() == 0) return at::empty({0, 2}, at::TensorOptions(at::kLong));
  const bool direct = release_pages && all_in_memory(table.tensors);
  return direct ? cpu::fingerprint(table.tensors, true) : op.call(table.tensors);
}

std::optional<cpu::HashOperands> operands_of(const ParamTable& table) {
  if (!dispatch_is_plain()) return std::nullopt;
  return cpu::read_ordinary_operands(table.tensors);
}

TableFingerprint fingerprint_of(const ParamTable& table, const at::Tensor& digests) {
  const size_t count = table.size();
  TORCH_CHECK_VALUE(digests.is_cpu() && digests.is_contiguous() &&
                        digests.scalar_type() == at::kLong &&
                        digests.numel() == static_cast<int64_t>(2 * count),
                    "fingerprint: the digests are not those of this table");
  TableFingerprint out;
  const auto* words = reinterpret_cast<const uint64_t*>(digests.const_data_ptr<int64_t>());
  const auto digest_of = [words](int64_t t) {
    return hash::Digest{words[2 * t], words[2 * t + 1]};
  };
  const auto name_of = [&table](size_t i, std::string& buffer) -> std::string_view {
    buffer.resize(table.names.length(i));
    table.names.write(i, buffer.data());
    return buffer;
  };
  out.total = total_from(count, name_of, digest_of);
  out.digests.resize(count * 16);
  for (size_t t = 0; t < count; ++t)
    write_digest(out.digests.data() + t * 16, digest_of(static_cast<int64_t>(t)));
  return out;
}

std::string total_of(const std::vector<std::string_view>& names, std::string_view digests) {
  TORCH_CHECK_VALUE(digests.size() == names.size() * 16, "fingerprint: ", names.size(),
                    " names need ", names.size() * 16, " bytes of digests; got ", digests.size());
  const auto name_of = [&names](size_t i, std::string&) { return names[i]; };
  return total_from(names.size(), name_of,
                    [digests](int64_t i) { return read_digest(digests.data() + i * 16); });
}

}  // namespace pyparam
