// Entries of two tables that belong together: those of one name.
#pragma once

#include <cstdint>
#include <vector>

#include "table/param_table.h"

namespace pyparam {

struct Matching {
  std::vector<int64_t> in_a;  // positions of the matched, in the order of a
  std::vector<int64_t> in_b;
  std::vector<int64_t> missing;     // positions in a of names that b lacks
  std::vector<int64_t> unexpected;  // positions in b of names that a lacks, in the order of b
};

// Raises c10::ValueError where a table has a name twice: "compare: two parameters of a are named
// ...".
Matching match(const char* verb, const NameColumn& a, const NameColumn& b);

}  // namespace pyparam
