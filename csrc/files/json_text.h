// Numbers as JSON text, as Python's json module writes them. Knows no torch and no Python.
#pragma once

#include <cstdint>
#include <string>

namespace pyparam::files {

// The shortest digits that read back as the same number, in the form of float.__repr__; null for
// NaN and infinities, which JSON has not.
void append_json(std::string& text, double value);
void append_json(std::string& text, int64_t value);

}  // namespace pyparam::files
