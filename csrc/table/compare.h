// Two tables compared: entries matched by name, and what the matched tensors differ by.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "files/mapped.h"
#include "table/match.h"
#include "table/param_table.h"

namespace pyparam {

// What is compared: a table, or rows of files, whose tensors are made for as long as they are read.
class ComparedSide {
 public:
  // The table is to outlive it.
  explicit ComparedSide(const ParamTable& table) : table_(&table), names_(table.names) {}
  ComparedSide(NameColumn names, std::shared_ptr<const files::MappedRows> rows);

  size_t size() const { return names_.size(); }
  const NameColumn& names() const { return names_; }
  // The tensors, where they are there already.
  const ParamTable* table() const { return table_; }

  at::IntArrayRef shape(size_t i) const {
    return rows_ ? rows_->shape(i) : table_->tensors[i].sizes();
  }
  at::ScalarType dtype(size_t i) const {
    return rows_ ? rows_->dtype(i) : table_->tensors[i].scalar_type();
  }
  at::Tensor tensor(size_t i) const { return rows_ ? rows_->tensor(i) : table_->tensors[i]; }

 private:
  const ParamTable* table_ = nullptr;
  std::shared_ptr<const files::MappedRows> rows_;
  NameColumn names_;
};

struct TableComparison {
  // Of each pair of equal shapes, in the order of a:
  std::vector<int64_t> in_a;
  std::vector<int64_t> in_b;
  at::Tensor values;             // float64 [pairs, 5]
  at::Tensor counts;             // int64 [pairs, 4]
  at::Tensor sizes;              // int64: the shapes one after the other
  at::Tensor ends;               // int64 [pairs]: where each shape ends in `sizes`
  std::vector<int64_t> retyped;  // pairs whose element types differ
  // Of pairs of other shapes:
  std::vector<int64_t> reshaped_a;
  std::vector<int64_t> reshaped_b;
};

// Divides the matched entries by shape and runs the op on those of equal shapes. With release_a or
// release_b, what was read of mapped files on that side is dropped. Needs no GIL.
TableComparison compare_matched(const ComparedSide& a, const ComparedSide& b,
                                const Matching& matching, bool release_a, bool release_b);

}  // namespace pyparam
