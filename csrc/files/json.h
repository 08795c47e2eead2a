// A reader of JSON text that visits values in place. It never recurses, and allocates only the
// strings asked for.
#pragma once

#include <cstdint>
#include <stdexcept>
#include <string>
#include <string_view>

namespace pyparam::files {

// Text that is not JSON, or not UTF-8: what was wrong, and at which byte.
class JsonError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

// Throws JsonError where the text is not UTF-8.
void check_utf8(std::string_view text);

class JsonReader {
 public:
  // The text must be UTF-8 and outlive the reader.
  explicit JsonReader(std::string_view text) : text_(text) {}

  // The first character of the next value or token, after white space; '\0' at the end.
  char peek() {
    skip_space();
    return position_ < text_.size() ? text_[position_] : '\0';
  }
  // Takes `token` if it comes next.
  bool take(char token) {
    if (peek() != token || position_ == text_.size()) return false;
    ++position_;
    return true;
  }
  void expect(char token) {
    if (!take(token)) fail(std::string("expected '") + token + "'");
  }
  void expect_end() {
    skip_space();
    if (position_ != text_.size()) fail("expected the end");
  }

  // The members of an object: for (reader.expect('{'); reader.next_key(key, first);) { ...read the
  // value... }
  bool next_key(std::string& key, bool& first);
  // The elements of an array, after its '[' was taken: while (reader.next_element(first)) { ...read
  // the value... }
  bool next_element(bool& first);

  std::string string();
  // Passes over a value of any kind; gives its text.
  std::string_view skip();
  // "object", "array", "string", "number", "boolean" or "null", of the value that comes next.
  const char* kind();

  [[noreturn]] void fail(const std::string& what) const;

 private:
  void skip_space() {
    while (position_ < text_.size() && is_space(text_[position_])) ++position_;
  }
  static bool is_space(char c) { return c == ' ' || c == '\t' || c == '\n' || c == '\r'; }
  void string_into(std::string* out);
  uint32_t hex4();
  void number();
  void literal(std::string_view word);

  std::string_view text_;
  size_t position_ = 0;
};

// The value of a JSON number that is a non-negative integer; beyond 64 bits it is the largest.
// False for another text.
bool parse_unsigned(std::string_view text, uint64_t& value);

}  // namespace pyparam::files
