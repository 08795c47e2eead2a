#include "table/fingerprint.h"

#include <ATen/Parallel.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/ops/empty.h>

#include <atomic>
#include <cstring>
#include <vector>

#include "kernels/cpu/hash_few.h"
#include "kernels/flatten.h"
#include "kernels/hash.h"
#include "kernels/operands.h"
#include "table/name_sums.h"

namespace pyparam {
namespace {

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

TotalBytes total_from(const EntrySums& names, const hash::Digest* digests) {
  constexpr int64_t kNamesPerTask = 16384;
  const auto count = static_cast<int64_t>(names.sums.size());
  std::atomic<uint64_t> low{0};
  std::atomic<uint64_t> high{0};
  at::parallel_for(0, count, kNamesPerTask, [&](int64_t begin, int64_t end) {
    const hash::Digest sum =
        cpu::sum_entries(digests + begin, names.sums.data() + begin, end - begin);
    low.fetch_add(sum.low, std::memory_order_relaxed);
    high.fetch_add(sum.high, std::memory_order_relaxed);
  });
  TotalBytes total;
  write_digest(total.data(), hash::table_digest({low, high}, count));
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

std::optional<cpu::HashOperands> operands_of(const ParamTable& table, bool release_pages) {
  if (!dispatch_is_plain()) return std::nullopt;
  return cpu::read_ordinary_operands(table.tensors, release_pages);
}

TotalBytes fingerprint_of(const NameColumn& names, const at::Tensor& digests, char* bytes) {
  const size_t count = names.size();
  TORCH_CHECK_VALUE(digests.is_cpu() && digests.is_contiguous() &&
                        digests.scalar_type() == at::kLong &&
                        digests.numel() == static_cast<int64_t>(2 * count),
                    "fingerprint: the digests are not those of this table");
  const auto* found = reinterpret_cast<const hash::Digest*>(digests.const_data_ptr<int64_t>());
  for (size_t t = 0; t < count; ++t) write_digest(bytes + t * kDigestBytes, found[t]);
  return total_from(*names.entry_sums(), found);
}

TotalBytes total_of(const NameColumn& names, std::string_view digests) {
  TORCH_CHECK_VALUE(digests.size() == names.size() * kDigestBytes, "fingerprint: ", names.size(),
                    " names need ", names.size() * kDigestBytes, " bytes of digests; got ",
                    digests.size());
  std::vector<hash::Digest> found(names.size());
  for (size_t i = 0; i < found.size(); ++i) found[i] = read_digest(&digests[i * kDigestBytes]);
  return total_from(*names.entry_sums(), found.data());
}

}  // namespace pyparam
