// Which stored format an element type has.
#pragma once

#include <c10/core/ScalarType.h>

#include <optional>

#include "kernels/cpu/lanes.h"

namespace pyparam::cpu {

// Of a complex type, the format of its two parts. None for types whose elements are not single
// numbers.
inline std::optional<Format> stored_format(c10::ScalarType type) {
  switch (type) {
    case c10::ScalarType::Float:
    case c10::ScalarType::ComplexFloat:
      return Format::kFloat;
    case c10::ScalarType::Double:
    case c10::ScalarType::ComplexDouble:
      return Format::kDouble;
    case c10::ScalarType::Half:
    case c10::ScalarType::ComplexHalf:
      return Format::kHalf;
    case c10::ScalarType::BFloat16:
      return Format::kBFloat16;
    case c10::ScalarType::Float8_e5m2:
      return Format::kFloat8e5m2;
    case c10::ScalarType::Float8_e4m3fn:
      return Format::kFloat8e4m3fn;
    case c10::ScalarType::Float8_e5m2fnuz:
      return Format::kFloat8e5m2fnuz;
    case c10::ScalarType::Float8_e4m3fnuz:
      return Format::kFloat8e4m3fnuz;
    case c10::ScalarType::Float8_e8m0fnu:
      return Format::kFloat8e8m0fnu;
    case c10::ScalarType::Bool:
      return Format::kBool;
    case c10::ScalarType::Byte:
      return Format::kUInt8;
    case c10::ScalarType::Char:
      return Format::kInt8;
    case c10::ScalarType::Short:
      return Format::kInt16;
    case c10::ScalarType::UInt16:
      return Format::kUInt16;
    case c10::ScalarType::Int:
      return Format::kInt32;
    case c10::ScalarType::UInt32:
      return Format::kUInt32;
    case c10::ScalarType::Long:
      return Format::kInt64;
    case c10::ScalarType::UInt64:
      return Format::kUInt64;
    default:
      return std::nullopt;
  }
}

}  // namespace pyparam::cpu
