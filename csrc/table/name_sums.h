// What the names of a table add to its fingerprint.
#pragma once

#include <vector>

#include "kernels/hash.h"

namespace pyparam {

struct EntrySums {
  std::vector<hash::Sums> sums;  // of each name, as hash::entry_digest takes it
  bool unique;                   // whether no name stands twice
};

}  // namespace pyparam
