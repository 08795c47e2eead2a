// What is told of mapped rows without making their tensors: the answers that their tensors would
// give.
#pragma once

#include <optional>

#include "files/mapped.h"
#include "table/layout_kinds.h"
#include "table/ties.h"

namespace pyparam {

LayoutKinds layout_kinds(const files::MappedRows& rows);

// The tie sets of rows of which none shares a byte with another; nothing where some may.
std::optional<TieSets> apart_sets(const files::MappedRows& rows);

}  // namespace pyparam
