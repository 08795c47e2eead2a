// Exact sums of many rows, as ranks exchange them: first how far each reaches, then its limbs.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <tuple>
#include <vector>

#include "kernels/exact.h"

namespace pyparam {

// rows x columns numbers. Ranks agree on windows by a minimum, and then add up their packed limbs;
// integers come to the same in any order, so every rank and every cut has the same bits.
class ExactTable {
 public:
  ExactTable(int64_t rows, int64_t columns)
      : rows_(rows), columns_(columns), numbers_(static_cast<size_t>(rows * columns)) {}
  // One column: row r is the sum of the values (float64, all finite) that `rows_of` (int64) gives
  // r.
  static ExactTable summed(const at::Tensor& values, const at::Tensor& rows_of, int64_t rows);

  int64_t rows() const { return rows_; }
  int64_t columns() const { return columns_; }
  exact::Number& at(int64_t row, int64_t column) {
    return numbers_[static_cast<size_t>(row * columns_ + column)];
  }
  const exact::Number& at(int64_t row, int64_t column) const {
    return numbers_[static_cast<size_t>(row * columns_ + column)];
  }

  // int64 [rows, 2 columns]: the first limb of each number, and minus the end of its limbs.
  at::Tensor windows() const;
  // The limbs in those windows, which reach as far as the numbers do or farther: all rows' one
  // after the other, and how many each row has (int64 [rows]).
  std::tuple<at::Tensor, at::Tensor> packed(const at::Tensor& windows) const;
  // The table of such limbs after they were added up.
  static ExactTable unpacked(const at::Tensor& windows, const at::Tensor& limbs);
  // The numbers as the nearest float64: [rows, columns].
  at::Tensor rounded() const;

 private:
  int64_t rows_;
  int64_t columns_;
  std::vector<exact::Number> numbers_;
};

// Columns of the table that measuring makes.
enum ExactColumn { kExactValues, kExactMagnitudes, kExactSquares, kExactColumns };

// What the measure op returns, values [rows + 1, kValueColumns] and counts [rows + 1,
// kCountColumns], from exact sums, the rows' counts (int64 [rows, kCountColumns]) and their least
// and largest values (float64 [rows, 2]; of no account where no value is finite). The last row is
// that of the rows with counted[row] (bool [rows]) together.
std::tuple<at::Tensor, at::Tensor> statistics_of(const ExactTable& sums, const at::Tensor& counts,
                                                 const at::Tensor& extremes,
                                                 const at::Tensor& counted);

}  // namespace pyparam
