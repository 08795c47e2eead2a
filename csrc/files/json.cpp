#include "files/json.h"

#include <cstring>
#include <limits>

namespace pyparam::files {

void check_utf8(std::string_view text) {
  const auto* bytes = reinterpret_cast<const unsigned char*>(text.data());
  const size_t size = text.size();
  const auto continues = [&](size_t i) { return i < size && (bytes[i] & 0xC0) == 0x80; };
  for (size_t i = 0; i < size;) {
    // Eight bytes of ASCII at once: headers are little else.
    uint64_t eight = 0x80;
    if (size - i >= sizeof(eight)) std::memcpy(&eight, bytes + i, sizeof(eight));
    if ((eight & 0x8080808080808080u) == 0) {
      i += sizeof(eight);
      continue;
    }
    const unsigned char c = bytes[i];
    size_t length = 0;
    if (c < 0x80) {
      length = 1;
    } else if (c >= 0xC2 && c <= 0xDF) {
      length = continues(i + 1) ? 2 : 0;
    } else if (c >= 0xE0 && c <= 0xEF) {
      const bool good =
          continues(i + 1) && continues(i + 2) && !(c == 0xE0 && bytes[i + 1] < 0xA0) &&
          !(c == 0xED && bytes[i + 1] > 0x9F);  // overlong, or half of a surrogate pair
      length = good ? 3 : 0;
    } else if (c >= 0xF0 && c <= 0xF4) {
      const bool good = continues(i + 1) && continues(i + 2) && continues(i + 3) &&
                        !(c == 0xF0 && bytes[i + 1] < 0x90) && !(c == 0xF4 && bytes[i + 1] > 0x8F);
      length = good ? 4 : 0;
    }
    if (length == 0) throw JsonError("not UTF-8 at byte " + std::to_string(i));
    i += length;
  }
}

void JsonReader::fail(const std::string& what) const {
  throw JsonError("not JSON: " + what + " at byte " + std::to_string(position_));
}

bool JsonReader::next_key(std::string& key, bool& first) {
  if (take('}')) return false;
  if (!first) expect(',');
  first = false;
  if (peek() != '"') fail("expected a name");
  key.clear();
  string_into(&key);
  expect(':');
  return true;
}

bool JsonReader::next_element(bool& first) {
  if (first && take(']')) return false;
  if (!first) {
    if (take(']')) return false;
    expect(',');
  }
  first = false;
  return true;
}

std::string JsonReader::string() {
  skip_space();
  std::string out;
  string_into(&out);
  return out;
}

namespace {

void append_utf8(std::string& out, uint32_t code) {
  if (code < 0x80) {
    out.push_back(static_cast<char>(code));
    return;
  }
  if (code < 0x800) {
    out.push_back(static_cast<char>(0xC0 | (code >> 6)));
  } else {
    if (code < 0x10000) {
      out.push_back(static_cast<char>(0xE0 | (code >> 12)));
    } else {
      out.push_back(static_cast<char>(0xF0 | (code >> 18)));
      out.push_back(static_cast<char>(0x80 | ((code >> 12) & 0x3F)));
    }
    out.push_back(static_cast<char>(0x80 | ((code >> 6) & 0x3F)));
  }
  out.push_back(static_cast<char>(0x80 | (code & 0x3F)));
}

}  // namespace

uint32_t JsonReader::hex4() {
  uint32_t code = 0;
  for (int i = 0; i < 4; ++i) {
    const char c = position_ < text_.size() ? text_[position_] : '\0';
    uint32_t digit = 0;
    if (c >= '0' && c <= '9') {
      digit = static_cast<uint32_t>(c - '0');
    } else if (c >= 'a' && c <= 'f') {
      digit = static_cast<uint32_t>(c - 'a' + 10);
    } else if (c >= 'A' && c <= 'F') {
      digit = static_cast<uint32_t>(c - 'A' + 10);
    } else {
      fail("expected four hexadecimal digits");
    }
    code = code * 16 + digit;
    ++position_;
  }
  return code;
}

// Reads a string; without `out` only checks it.
void JsonReader::string_into(std::string* out) {
  expect('"');
  for (;;) {
    const size_t begin = position_;
    while (position_ < text_.size() && text_[position_] != '"' && text_[position_] != '\\' &&
           static_cast<unsigned char>(text_[position_]) >= 0x20) {
      ++position_;
    }
    if (out != nullptr) out->append(text_.substr(begin, position_ - begin));
    if (position_ == text_.size()) fail("expected the end of a string");
    const char c = text_[position_++];
    if (c == '"') return;
    if (c != '\\') {
      --position_;
      fail("a control character inside a string");
    }
    if (position_ == text_.size()) fail("expected an escape");
    uint32_t code = 0;
    switch (text_[position_++]) {
      case '"':
        code = '"';
        break;
      case '\\':
        code = '\\';
        break;
      case '/':
        code = '/';
        break;
      case 'b':
        code = '\b';
        break;
      case 'f':
        code = '\f';
        break;
      case 'n':
        code = '\n';
        break;
      case 'r':
        code = '\r';
        break;
      case 't':
        code = '\t';
        break;
      case 'u': {
        code = hex4();
        if (code >= 0xDC00 && code <= 0xDFFF) fail("half of a surrogate pair");
        if (code >= 0xD800 && code <= 0xDBFF) {
          if (text_.substr(position_, 2) != "\\u") fail("half of a surrogate pair");
          position_ += 2;
          const uint32_t low = hex4();
          if (low < 0xDC00 || low > 0xDFFF) fail("half of a surrogate pair");
          code = 0x10000 + ((code - 0xD800) << 10) + (low - 0xDC00);
        }
        break;
      }
      default:
        --position_;
        fail("an unknown escape");
    }
    if (out != nullptr) append_utf8(*out, code);
  }
}

void JsonReader::number() {
  const auto digits = [&] {
    const size_t begin = position_;
    while (position_ < text_.size() && text_[position_] >= '0' && text_[position_] <= '9')
      ++position_;
    if (position_ == begin) fail("expected a digit");
  };
  const auto next_is = [&](char c) { return position_ < text_.size() && text_[position_] == c; };
  if (next_is('-')) ++position_;
  if (next_is('0')) {
    ++position_;
  } else {
    digits();
  }
  if (next_is('.')) {
    ++position_;
    digits();
  }
  if (next_is('e') || next_is('E')) {
    ++position_;
    if (next_is('+') || next_is('-')) ++position_;
    digits();
  }
}

void JsonReader::literal(std::string_view word) {
  if (text_.substr(position_, word.size()) != word) fail("expected a value");
  position_ += word.size();
}

std::string_view JsonReader::skip() {
  skip_space();
  const size_t begin = position_;
  std::string open;  // the '{' and '[' we are inside of
  do {
    // A value, of which an object's or array's opening is the first part.
    const char c = peek();
    bool opened = false;
    if (c == '{' || c == '[') {
      ++position_;
      open.push_back(c);
      opened = true;
    } else if (c == '"') {
      string_into(nullptr);
    } else if (c == '-' || (c >= '0' && c <= '9')) {
      number();
    } else if (c == 't') {
      literal("true");
    } else if (c == 'f') {
      literal("false");
    } else {
      literal("null");
    }
    // What may follow: closings, then a comma, or in a fresh object or array its first part.
    while (!open.empty() && take(open.back() == '{' ? '}' : ']')) {
      open.pop_back();
      opened = false;
    }
    if (open.empty()) break;
    if (!opened) expect(',');
    if (open.back() == '{') {
      if (peek() != '"') fail("expected a name");
      string_into(nullptr);
      expect(':');
    }
  } while (true);
  return text_.substr(begin, position_ - begin);
}

const char* JsonReader::kind() {
  switch (peek()) {
    case '{':
      return "object";
    case '[':
      return "array";
    case '"':
      return "string";
    case 't':
    case 'f':
      return "boolean";
    case 'n':
      return "null";
    default:
      return "number";
  }
}

bool parse_unsigned(std::string_view text, uint64_t& value) {
  constexpr uint64_t largest = std::numeric_limits<uint64_t>::max();
  value = 0;
  if (text.empty()) return false;
  for (const char c : text) {
    if (c < '0' || c > '9') return false;
    const auto digit = static_cast<uint64_t>(c - '0');
    value = value > (largest - digit) / 10 ? largest : value * 10 + digit;
  }
  return true;
}

}  // namespace pyparam::files
