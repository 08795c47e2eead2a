#include "files/safetensors.h"

#include <algorithm>
#include <functional>
#include <limits>
#include <numeric>
#include <tuple>
#include <unordered_set>

#include "files/json.h"

namespace pyparam::files {
namespace {

constexpr auto kLargest = static_cast<uint64_t>(std::numeric_limits<int64_t>::max());

std::string shortened(std::string_view text) {
  constexpr size_t shown = 80;
  if (text.size() <= shown) return std::string(text);
  size_t cut = shown - 3;
  while (cut > 0 && (static_cast<unsigned char>(text[cut]) & 0xC0) == 0x80)
    --cut;  // not inside a character
  return std::string(text.substr(0, cut)) + "...";
}

std::string quoted(const std::string& name) { return "'" + shortened(name) + "'"; }

// An array of non-negative integers; false for any other value. Integers beyond 64 bits are the
// largest.
bool parse_integers(std::string_view text, std::vector<uint64_t>& out) {
  out.clear();
  JsonReader reader(text);
  if (!reader.take('[')) return false;
  for (bool first = true; reader.next_element(first);) {
    uint64_t value = 0;
    if (!parse_unsigned(reader.skip(), value)) return false;
    out.push_back(value);
  }
  return true;
}

// Names by position, so that each is held once. A header may have half a million: nothing is
// allocated for one, and a name is read again only where its hash is another one's.
class NameSet {
 public:
  // Adds the last of the names. False where it is there already.
  bool insert_last(const Texts& names) {
    if (2 * names.size() > slots_.size()) grow();
    const std::string_view name = names[names.size() - 1];
    const size_t hash = std::hash<std::string_view>()(name);
    size_t at = hash & (slots_.size() - 1);
    for (; slots_[at].position != kNone; at = (at + 1) & (slots_.size() - 1)) {
      if (slots_[at].hash == hash && names[slots_[at].position] == name) return false;
    }
    slots_[at] = {hash, names.size() - 1};
    return true;
  }

 private:
  static constexpr size_t kNone = ~size_t{0};
  struct Slot {
    size_t hash = 0, position = kNone;
  };

  void grow() {
    std::vector<Slot> old(std::max<size_t>(64, 4 * slots_.size()));
    old.swap(slots_);
    for (const Slot& slot : old) {
      if (slot.position == kNone) continue;
      size_t at = slot.hash & (slots_.size() - 1);
      while (slots_[at].position != kNone) at = (at + 1) & (slots_.size() - 1);
      slots_[at] = slot;
    }
  }

  std::vector<Slot> slots_;  // a power of two of them
};

class HeaderParser {
 public:
  HeaderParser(std::string_view text, uint64_t data_bytes, const std::vector<DtypeCode>& codes)
      : reader_(text), data_bytes_(data_bytes), codes_(codes) {}

  SafetensorsHeader parse() {
    if (reader_.peek() != '{') {
      const std::string kind = reader_.kind();
      reader_.skip();
      throw HeaderError("its header is a JSON " + kind + ", not an object");
    }
    reader_.expect('{');
    std::string name;
    bool has_metadata = false;
    for (bool first = true; reader_.next_key(name, first);) {
      if (name == "__metadata__") {
        if (has_metadata) repeated(name);
        has_metadata = true;
        parse_metadata();
        continue;
      }
      header_.names.push_back(name);
      if (!names_.insert_last(header_.names)) repeated(name);
      parse_entry(name);
    }
    reader_.expect_end();
    check_cover();
    header_.names.shrink_to_fit();
    return std::move(header_);
  }

 private:
  [[noreturn]] static void repeated(const std::string& name) {
    throw HeaderError("two entries of its header are named " + quoted(name));
  }

  void parse_metadata() {
    const char* const wrong = "its __metadata__ is not an object of strings";
    if (reader_.peek() == 'n') {
      reader_.skip();
      return;
    }
    if (!reader_.take('{')) throw HeaderError(wrong);
    std::unordered_set<std::string> keys;
    std::string key;
    for (bool first = true; reader_.next_key(key, first);) {
      if (!keys.insert(key).second)
        throw HeaderError("two entries of its __metadata__ are named " + quoted(key));
      if (reader_.peek() != '"') throw HeaderError(wrong);
      header_.metadata.emplace_back(key, reader_.string());
    }
  }

  void parse_entry(const std::string& name) {
    const auto wrong = [&](const std::string& what) { throw HeaderError(what, name); };
    const std::string kind = reader_.kind();
    if (kind != "object") {
      reader_.skip();
      wrong("expected an object with dtype, shape and data_offsets, got a JSON " + kind);
    }
    reader_.expect('{');
    std::string_view dtype, shape, offsets;  // the text of each value
    for (bool first = true; reader_.next_key(field_, first);) {
      std::string_view* const known = field_ == "dtype"          ? &dtype
                                      : field_ == "shape"        ? &shape
                                      : field_ == "data_offsets" ? &offsets
                                                                 : nullptr;
      const std::string_view value = reader_.skip();
      if (known == nullptr) continue;  // of a later version of the format
      if (!known->empty()) wrong("it has two fields named '" + field_ + "'");
      *known = value;
    }
    std::string missing;
    for (const auto& [field, value] : {std::pair{"dtype", dtype}, std::pair{"shape", shape},
                                       std::pair{"data_offsets", offsets}}) {
      if (value.empty()) missing += (missing.empty() ? "" : " and no ") + std::string(field);
    }
    if (!missing.empty()) wrong("it has no " + missing);

    const uint32_t code = find_code(dtype);
    if (code == codes_.size()) {
      std::string known;
      for (const DtypeCode& each : codes_) known += (known.empty() ? "" : ", ") + each.name;
      wrong("unknown dtype " + shortened(dtype) + "; known are " + known);
    }
    if (!parse_integers(shape, integers_)) {
      wrong("shape must be an array of non-negative integers, it is " + shortened(shape));
    }
    const uint64_t bits = count_bits(name, shape, code);
    if (!parse_integers(offsets, integers_) || integers_.size() != 2) {
      wrong("data_offsets must be two non-negative integers, they are " + shortened(offsets));
    }
    const uint64_t begin = integers_[0], end = integers_[1];
    const std::string where = "data_offsets " + shortened(offsets);
    if (begin > end) wrong(where + " end before they begin");
    if (end > data_bytes_) {
      wrong(where + " reach beyond the file, which has " + std::to_string(data_bytes_) +
            " bytes of data");
    }
    if (bits % 8 != 0 || bits / 8 != end - begin) {
      const std::string needed =
          std::to_string(bits / 8) + (bits % 8 == 0 ? "" : " bytes and a part of one");
      wrong("shape " + shortened(shape) + " of " + codes_[code].name + " takes " + needed +
            (bits % 8 == 0 ? " bytes, " : ", ") + where + " span " + std::to_string(end - begin));
    }
    header_.dtypes.push_back(code);
    header_.begins.push_back(begin);
    header_.ends.push_back(end);
  }

  // The code that a JSON text names; as many as there are codes where it names none.
  uint32_t find_code(std::string_view text) {
    const bool is_string = text.size() >= 2 && text.front() == '"';
    const std::string_view name = is_string ? text.substr(1, text.size() - 2) : std::string_view();
    // Entries of one dtype follow each other.
    if (last_code_ < codes_.size() && codes_[last_code_].name == name) return last_code_;
    const auto found = std::find_if(codes_.begin(), codes_.end(),
                                    [&](const DtypeCode& c) { return c.name == name; });
    last_code_ = static_cast<uint32_t>(found - codes_.begin());
    return last_code_;
  }

  // Takes `integers_` as the shape of the next entry, and gives the bits its elements take.
  uint64_t count_bits(const std::string& name, std::string_view shape, uint32_t code) {
    uint64_t span =
        codes_[code]
            .bits;  // as the count, but an extent of 0 does not hide others: strides are of them
    bool empty = false;
    for (const uint64_t extent : integers_) {
      empty |= extent == 0;
      const uint64_t factor = std::max<uint64_t>(extent, 1);
      if (factor > kLargest || span > kLargest / factor) {
        throw HeaderError("shape " + shortened(shape) + " overflows a 64-bit count", name);
      }
      span *= factor;
      header_.extents.push_back(static_cast<int64_t>(extent));
    }
    header_.shape_ends.push_back(header_.extents.size());
    return empty ? 0 : span;
  }

  // The entries must cover the data end to end: no byte twice, none left out.
  void check_cover() const {
    std::vector<size_t> order(header_.size());
    std::iota(order.begin(), order.end(), size_t{0});
    const auto earlier = [&](size_t a, size_t b) {
      return std::tuple(header_.begins[a], header_.ends[a], a) <
             std::tuple(header_.begins[b], header_.ends[b], b);
    };
    if (!std::is_sorted(order.begin(), order.end(), earlier)) {
      std::sort(order.begin(), order.end(), earlier);
    }
    uint64_t reached = 0;
    size_t last = order.size();
    const auto before = [&] {
      return last == order.size() ? "the header" : quoted(std::string(header_.names[last]));
    };
    for (const size_t i : order) {
      const auto name = [&] { return std::string(header_.names[i]); };
      if (header_.begins[i] < reached) {
        throw HeaderError(
            "its bytes from " + std::to_string(header_.begins[i]) + " overlap those of " + before(),
            name());
      }
      if (header_.begins[i] > reached) {
        throw HeaderError(std::to_string(header_.begins[i] - reached) + " bytes between it and " +
                              before() + " belong to no entry",
                          name());
      }
      reached = header_.ends[i];
      last = i;
    }
    if (reached != data_bytes_) {
      throw HeaderError("its last " + std::to_string(data_bytes_ - reached) + " bytes, after " +
                        before() + ", belong to no entry");
    }
  }

  JsonReader reader_;
  const uint64_t data_bytes_;
  const std::vector<DtypeCode>& codes_;
  SafetensorsHeader header_;
  NameSet names_;
  std::string field_;
  uint32_t last_code_ = 0;
  std::vector<uint64_t> integers_;
};

}  // namespace

SafetensorsHeader parse_safetensors(std::string_view text, uint64_t data_bytes,
                                    const std::vector<DtypeCode>& codes) {
  try {
    check_utf8(text);
    return HeaderParser(text, data_bytes, codes).parse();
  } catch (const JsonError& error) {
    throw HeaderError(std::string("its header is ") + error.what());
  }
}

}  // namespace pyparam::files
