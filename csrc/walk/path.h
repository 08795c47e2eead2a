// The qualified name of where a walk stands, as a buffer that grows and shrinks with the walk.
#pragma once

#include <string>
#include <string_view>

#include "walk/prefix_hash.h"
#include "walk/ref.h"

namespace pyparam::walk {

class Path {
 public:
  // A path is what nn.Module calls a name ("a.b"), or what state_dict calls a prefix ("a.b.").
  enum class Style { kName, kPrefix };
  // Whether the strs made of it will be keys of dicts, and are to bring their hash with them.
  enum class Strs { kPlain, kKeys };
  explicit Path(Style style = Style::kName, Strs strs = Strs::kPlain)
      : style_(style), hashes_(strs == Strs::kKeys && PrefixHash::is_known()) {}

  size_t size() const { return bytes_.size(); }
  std::string_view view() const { return bytes_; }

  void truncate(size_t length) {
    bytes_.resize(length);
    if (length < lowest_) lowest_ = length;
    if (first_non_ascii_ >= length) first_non_ascii_ = std::string::npos;
    if (hashes_) hash_.cut(length);
  }
  // Goes down to the child `key`. Raises TypeError for a key that is no string.
  void push(PyObject* key) {
    if (style_ == Style::kName && !bytes_.empty()) bytes_.push_back('.');
    append_str(key);
    if (style_ == Style::kPrefix) bytes_.push_back('.');
    if (hashes_) hash_.extend(bytes_);
  }
  void assign(PyObject* path) {
    truncate(0);
    append_str(path);
    if (hashes_) hash_.extend(bytes_);
  }

  // How much of the path has stayed as it was since the last call of `mark`.
  size_t unchanged() const { return lowest_; }
  void mark() { lowest_ = bytes_.size(); }

  Ref str() const { return make_str(bytes_.size()); }
  // For a path that ends in a byte of our own.
  Ref str_without_last_byte() const { return make_str(bytes_.size() - 1); }
  // The name of the member `key` of the module at this path, as a str.
  Ref joined(PyObject* key) {
    if (bytes_.empty() && PyUnicode_CheckExact(key)) return Ref::borrow(key);
    const size_t length = bytes_.size();
    const size_t dot = style_ == Style::kName && length != 0 ? 1 : 0;
    if (PyUnicode_Check(key) && PyUnicode_IS_COMPACT_ASCII(key) &&
        first_non_ascii_ == std::string::npos) {
      const auto key_length = static_cast<size_t>(PyUnicode_GET_LENGTH(key));
      Ref made =
          Ref::checked(PyUnicode_New(static_cast<Py_ssize_t>(length + dot + key_length), 127));
      char* out = reinterpret_cast<char*>(PyUnicode_1BYTE_DATA(made.get()));
      out += bytes_.copy(out, length);
      if (dot != 0) *out++ = '.';
      std::char_traits<char>::copy(out, ascii(key), key_length);
      set_hash(made.get());
      return made;
    }
    if (dot != 0) bytes_.push_back('.');
    append_str(key);
    Ref made = str();
    truncate(length);
    return made;
  }

  // Appends a key. Raises TypeError for one that is no str.
  void append_str(PyObject* key) {
    if (!PyUnicode_Check(key)) {
      PyErr_Format(
          PyExc_TypeError,
          "can only concatenate str (not \"%.200s\") to str: a name below '%.200s' is no string",
          Py_TYPE(key)->tp_name, bytes_.c_str());
      throw PythonError{};
    }
    if (PyUnicode_IS_COMPACT_ASCII(key)) {
      bytes_.append(ascii(key), static_cast<size_t>(PyUnicode_GET_LENGTH(key)));
      return;
    }
    // Any str is a name, also one with lone surrogates; "surrogatepass" brings each back as it was.
    const Ref utf8 = Ref::checked(PyUnicode_AsEncodedString(key, "utf-8", "surrogatepass"));
    if (first_non_ascii_ == std::string::npos) first_non_ascii_ = bytes_.size();
    bytes_.append(PyBytes_AS_STRING(utf8.get()), static_cast<size_t>(PyBytes_GET_SIZE(utf8.get())));
  }

 private:
  Ref make_str(size_t length) const {
    if (first_non_ascii_ != std::string::npos) {
      return Ref::checked(
          PyUnicode_DecodeUTF8(bytes_.data(), static_cast<Py_ssize_t>(length), "surrogatepass"));
    }
    Ref made = Ref::checked(PyUnicode_New(static_cast<Py_ssize_t>(length), 127));
    if (length != 0) {  // the empty str is everybody's
      bytes_.copy(reinterpret_cast<char*>(PyUnicode_1BYTE_DATA(made.get())), length);
      set_hash(made.get());
    }
    return made;
  }

  // Of a new str of ASCII.
  void set_hash(PyObject* made) const {
    if (!hashes_) return;
    const std::string_view text(ascii(made), static_cast<size_t>(PyUnicode_GET_LENGTH(made)));
    reinterpret_cast<PyASCIIObject*>(made)->hash = hash_.of(text);
  }

  static const char* ascii(PyObject* key) {
    return reinterpret_cast<const char*>(PyUnicode_1BYTE_DATA(key));
  }

  Style style_;
  std::string bytes_;  // UTF-8
  size_t first_non_ascii_ = std::string::npos;
  size_t lowest_ = 0;
  bool hashes_;
  PrefixHash hash_;
};

}  // namespace pyparam::walk
