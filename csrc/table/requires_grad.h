// requires_grad of a table's tensors.
#pragma once

#include "table/param_table.h"

namespace pyparam {

// Sets it for every tensor. Raises ValueError, with nothing changed, for one that cannot have it
// set.
void set_requires_grad(const ParamTable& table, bool flag);

}  // namespace pyparam
