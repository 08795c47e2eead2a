#include "files/json_text.h"

#include <charconv>
#include <cmath>

namespace pyparam::files {

void append_json(std::string& text, double value) {
  if (!std::isfinite(value)) {
    text.append("null");
    return;
  }
  // "-1.2345e-05": digits with a point behind the first, and the exponent.
  char made[40];
  const char* const end =
      std::to_chars(made, made + sizeof(made), value, std::chars_format::scientific).ptr;
  const char* at = made;
  if (*at == '-') text.push_back(*at++);
  char digits[20];
  int count = 0;
  for (; *at != 'e'; ++at) {
    if (*at != '.') digits[count++] = *at;
  }
  int exponent = 0;
  for (const char* digit = at + 2; digit != end; ++digit) exponent = 10 * exponent + (*digit - '0');
  if (at[1] == '-') exponent = -exponent;

  if (exponent < -4 || exponent >= 16) {
    text.push_back(digits[0]);
    if (count > 1) text.append(".").append(digits + 1, static_cast<size_t>(count - 1));
    text.append(at, end);  // two digits or more, and its sign
  } else if (exponent < 0) {
    text.append("0.").append(static_cast<size_t>(-exponent - 1), '0');
    text.append(digits, static_cast<size_t>(count));
  } else {
    const int whole = exponent + 1;  // digits before the point
    if (count > whole) {
      text.append(digits, static_cast<size_t>(whole)).append(".");
      text.append(digits + whole, static_cast<size_t>(count - whole));
    } else {
      text.append(digits, static_cast<size_t>(count));
      text.append(static_cast<size_t>(whole - count), '0').append(".0");
    }
  }
}

void append_json(std::string& text, int64_t value) {
  char made[24];
  text.append(made, std::to_chars(made, made + sizeof(made), value).ptr);
}

}  // namespace pyparam::files
