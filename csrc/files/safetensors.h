// The header of a .safetensors file, from JSON text to checked columns. Knows no torch, no Python
// and no file.
#pragma once

#include <cstdint>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace pyparam::files {

// What the format calls a dtype, and how many bits an element takes.
struct DtypeCode {
  std::string name;
  uint32_t bits;
};

// Texts in one piece of memory: of half a million names, an object each would take more than the
// names.
class Texts {
 public:
  size_t size() const { return ends_.size(); }
  // Holds until the next one is added.
  std::string_view operator[](size_t i) const {
    const size_t begin = i == 0 ? 0 : ends_[i - 1];
    return std::string_view(held_).substr(begin, ends_[i] - begin);
  }
  void push_back(std::string_view text) {
    held_.append(text);
    ends_.push_back(held_.size());
  }
  void shrink_to_fit() {
    held_.shrink_to_fit();
    ends_.shrink_to_fit();
  }

 private:
  std::string held_;
  std::vector<size_t> ends_;
};

// One row an entry, in the order of the text.
struct SafetensorsHeader {
  Texts names;
  std::vector<uint32_t> dtypes;        // index into the codes given to parse_safetensors
  std::vector<int64_t> extents;        // of all shapes, one after the other
  std::vector<size_t> shape_ends;      // where each entry's extents end
  std::vector<uint64_t> begins, ends;  // bytes, counted from the end of the header
  std::vector<std::pair<std::string, std::string>> metadata;

  size_t size() const { return names.size(); }
};

// A header that breaks the format: what is wrong, and in which entry where it is one entry's fault.
class HeaderError : public std::runtime_error {
 public:
  explicit HeaderError(const std::string& what) : std::runtime_error(what) {}
  HeaderError(const std::string& what, std::string entry) : HeaderError(what) {
    entry_ = std::move(entry);
    has_entry_ = true;
  }
  const std::string* entry() const { return has_entry_ ? &entry_ : nullptr; }

 private:
  std::string entry_;
  bool has_entry_ = false;
};

// Reads the JSON `text` of a file with `data_bytes` bytes after it. All is checked: the JSON, the
// names, each entry's fields and sizes, and that the entries cover the data end to end. Throws
// HeaderError for the first thing wrong. Time and memory are linear in the text, and no nesting
// makes it recurse.
SafetensorsHeader parse_safetensors(std::string_view text, uint64_t data_bytes,
                                    const std::vector<DtypeCode>& codes);

}  // namespace pyparam::files
