// Natural order of names: runs of digits by their value, "h.2" before "h.10". Knows no torch and no
// Python.
#pragma once

#include <cstddef>
#include <string_view>
#include <vector>

namespace pyparam::files {

// Whether `a` stands before `b`. Names are UTF-8, whose bytes are ordered as its characters. Runs
// of 20 digits and more are compared as text.
bool natural_before(std::string_view a, std::string_view b);

// The positions of the names in natural order; names that are equal in it stay in theirs.
std::vector<size_t> natural_order(const std::vector<std::string_view>& names);

}  // namespace pyparam::files
