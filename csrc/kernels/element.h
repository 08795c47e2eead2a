// One element of any dtype, told at run time: what it is worth, and how another dtype stores it.
// Conversions are those of Tensor.to (c10::convert), but that a NaN may come out as another NaN.
// No torch header.
#pragma once

#include <cstdint>
#include <cstring>

#include "kernels/dtypes.h"
#include "kernels/macros.h"

namespace pyparam {

// The numbers of c10::ScalarType, which PyTorch keeps fixed. Those that are not here convert to
// none.
enum class Dtype : int16_t {
  kUInt8 = 0,
  kInt8 = 1,
  kInt16 = 2,
  kInt32 = 3,
  kInt64 = 4,
  kHalf = 5,
  kFloat = 6,
  kDouble = 7,
  kComplexHalf = 8,
  kComplexFloat = 9,
  kComplexDouble = 10,
  kBool = 11,
  kBFloat16 = 15,
  kFloat8e5m2 = 23,
  kFloat8e4m3fn = 24,
  kFloat8e5m2fnuz = 25,
  kFloat8e4m3fnuz = 26,
  kUInt16 = 27,
  kUInt32 = 28,
  kUInt64 = 29,
  kFloat8e8m0fnu = 44,
};

// Of a complex type, the type of its parts.
PYPARAM_FORMULA Dtype part_type(Dtype dtype) {
  switch (dtype) {
    case Dtype::kComplexHalf:
      return Dtype::kHalf;
    case Dtype::kComplexFloat:
      return Dtype::kFloat;
    case Dtype::kComplexDouble:
      return Dtype::kDouble;
    default:
      return dtype;
  }
}
PYPARAM_FORMULA bool is_complex(Dtype dtype) { return part_type(dtype) != dtype; }

// Bytes of a value.
PYPARAM_FORMULA int value_bytes(Dtype part) {
  switch (part) {
    case Dtype::kDouble:
    case Dtype::kInt64:
    case Dtype::kUInt64:
      return 8;
    case Dtype::kFloat:
    case Dtype::kInt32:
    case Dtype::kUInt32:
      return 4;
    case Dtype::kHalf:
    case Dtype::kBFloat16:
    case Dtype::kInt16:
    case Dtype::kUInt16:
      return 2;
    default:
      return 1;
  }
}
PYPARAM_FORMULA int64_t element_bytes(Dtype dtype) {
  return static_cast<int64_t>(value_bytes(part_type(dtype))) * (is_complex(dtype) ? 2 : 1);
}

// float32 and float64 with the face of the smaller formats.
struct Float32 {
  using storage = uint32_t;
  static PYPARAM_FORMULA float value(uint32_t stored) { return bit_cast<float>(stored); }
  static PYPARAM_FORMULA uint32_t stored(float x) { return bit_cast<uint32_t>(x); }
};
struct Float64 {
  using storage = uint64_t;
  static PYPARAM_FORMULA double value(uint64_t stored) { return bit_cast<double>(stored); }
  static PYPARAM_FORMULA uint64_t stored(double x) { return bit_cast<uint64_t>(x); }
};

// Every step rounds once, as c10::convert: a double becomes a half by way of float.
template <typename To, typename From>
PYPARAM_FORMULA typename To::storage convert_stored(typename From::storage stored) {
  if constexpr (sizeof(typename To::storage) == 8) {
    return To::stored(static_cast<double>(From::value(stored)));
  } else {
    return To::stored(static_cast<float>(From::value(stored)));
  }
}

// What an element is worth: a real number, an integer, or a complex number.
struct Number {
  enum class Kind : uint8_t { kReal, kSigned, kUnsigned, kComplex };
  Kind kind;
  double real;  // also of a complex number
  double imaginary;
  uint64_t integer;  // two's complement where signed
};

template <typename T>
PYPARAM_FORMULA T read_as(const char* from) {
  // A copy of unknown alignment goes byte by byte on a device.
  if (reinterpret_cast<uintptr_t>(from) % sizeof(T) == 0) return *reinterpret_cast<const T*>(from);
  T value;
  memcpy(&value, from, sizeof(T));
  return value;
}
template <typename T>
PYPARAM_FORMULA void write_as(char* to, T value) {
  if (reinterpret_cast<uintptr_t>(to) % sizeof(T) == 0) {
    *reinterpret_cast<T*>(to) = value;
  } else {
    memcpy(to, &value, sizeof(T));
  }
}

PYPARAM_FORMULA Number real_number(double x) { return {Number::Kind::kReal, x, 0.0, 0}; }
PYPARAM_FORMULA Number complex_number(double re, double im) {
  return {Number::Kind::kComplex, re, im, 0};
}
PYPARAM_FORMULA Number signed_number(int64_t x) {
  return {Number::Kind::kSigned, 0.0, 0.0, static_cast<uint64_t>(x)};
}
PYPARAM_FORMULA Number unsigned_number(uint64_t x) {
  return {Number::Kind::kUnsigned, 0.0, 0.0, x};
}

PYPARAM_FORMULA Number read_number(Dtype dtype, const char* from) {
  switch (dtype) {
    case Dtype::kUInt8:
      return unsigned_number(read_as<uint8_t>(from));
    case Dtype::kInt8:
      return signed_number(read_as<int8_t>(from));
    case Dtype::kInt16:
      return signed_number(read_as<int16_t>(from));
    case Dtype::kInt32:
      return signed_number(read_as<int32_t>(from));
    case Dtype::kInt64:
      return signed_number(read_as<int64_t>(from));
    case Dtype::kHalf:
      return real_number(static_cast<double>(Half::value(read_as<uint16_t>(from))));
    case Dtype::kFloat:
      return real_number(static_cast<double>(bit_cast<float>(read_as<uint32_t>(from))));
    case Dtype::kDouble:
      return real_number(bit_cast<double>(read_as<uint64_t>(from)));
    case Dtype::kComplexHalf:
      return complex_number(static_cast<double>(Half::value(read_as<uint16_t>(from))),
                            static_cast<double>(Half::value(read_as<uint16_t>(from + 2))));
    case Dtype::kComplexFloat:
      return complex_number(static_cast<double>(bit_cast<float>(read_as<uint32_t>(from))),
                            static_cast<double>(bit_cast<float>(read_as<uint32_t>(from + 4))));
    case Dtype::kComplexDouble:
      return complex_number(bit_cast<double>(read_as<uint64_t>(from)),
                            bit_cast<double>(read_as<uint64_t>(from + 8)));
    case Dtype::kBool:  // a byte that is neither 0 nor 1 reads as true
      return unsigned_number(read_as<uint8_t>(from) != 0 ? 1 : 0);
    case Dtype::kBFloat16:
      return real_number(static_cast<double>(BFloat16::value(read_as<uint16_t>(from))));
    case Dtype::kFloat8e5m2:
      return real_number(static_cast<double>(Float8e5m2::value(read_as<uint8_t>(from))));
    case Dtype::kFloat8e4m3fn:
      return real_number(static_cast<double>(Float8e4m3fn::value(read_as<uint8_t>(from))));
    case Dtype::kFloat8e5m2fnuz:
      return real_number(static_cast<double>(Float8e5m2fnuz::value(read_as<uint8_t>(from))));
    case Dtype::kFloat8e4m3fnuz:
      return real_number(static_cast<double>(Float8e4m3fnuz::value(read_as<uint8_t>(from))));
    case Dtype::kUInt16:
      return unsigned_number(read_as<uint16_t>(from));
    case Dtype::kUInt32:
      return unsigned_number(read_as<uint32_t>(from));
    case Dtype::kUInt64:
      return unsigned_number(read_as<uint64_t>(from));
    case Dtype::kFloat8e8m0fnu:
      return real_number(static_cast<double>(Float8e8m0fnu::value(read_as<uint8_t>(from))));
  }
  return real_number(0.0);
}

// The real part as each family of dtypes takes it. A real number that an integer type cannot hold
// has no defined value there, as in PyTorch.
PYPARAM_FORMULA double as_double(const Number& x) {
  if (x.kind == Number::Kind::kSigned) return static_cast<double>(static_cast<int64_t>(x.integer));
  if (x.kind == Number::Kind::kUnsigned) return static_cast<double>(x.integer);
  return x.real;
}
PYPARAM_FORMULA float as_float(const Number& x) {
  if (x.kind == Number::Kind::kSigned) return static_cast<float>(static_cast<int64_t>(x.integer));
  if (x.kind == Number::Kind::kUnsigned) return static_cast<float>(x.integer);
  return static_cast<float>(x.real);
}
PYPARAM_FORMULA uint64_t as_integer(const Number& x) {
  const bool integer = x.kind == Number::Kind::kSigned || x.kind == Number::Kind::kUnsigned;
  if (integer) return x.integer;
  if (x.real >= 9223372036854775808.0) return static_cast<uint64_t>(x.real);
  return static_cast<uint64_t>(static_cast<int64_t>(x.real));
}
PYPARAM_FORMULA bool as_bool(const Number& x) {
  const bool integer = x.kind == Number::Kind::kSigned || x.kind == Number::Kind::kUnsigned;
  return integer ? x.integer != 0 : (x.real != 0.0 || x.imaginary != 0.0);
}

// `saturate`: whether this PyTorch stores what is beyond float8_e4m3fn as its largest value (from
// 2.14 on) or as NaN.
PYPARAM_FORMULA void write_number(Dtype dtype, char* to, const Number& x, bool saturate) {
  switch (dtype) {
    case Dtype::kUInt8:
    case Dtype::kInt8:
      return write_as<uint8_t>(to, static_cast<uint8_t>(as_integer(x)));
    case Dtype::kInt16:
    case Dtype::kUInt16:
      return write_as<uint16_t>(to, static_cast<uint16_t>(as_integer(x)));
    case Dtype::kInt32:
    case Dtype::kUInt32:
      return write_as<uint32_t>(to, static_cast<uint32_t>(as_integer(x)));
    case Dtype::kInt64:
    case Dtype::kUInt64:
      return write_as<uint64_t>(to, as_integer(x));
    case Dtype::kHalf:
      return write_as<uint16_t>(to, Half::stored(as_float(x)));
    case Dtype::kFloat:
      return write_as<uint32_t>(to, bit_cast<uint32_t>(as_float(x)));
    case Dtype::kDouble:
      return write_as<uint64_t>(to, bit_cast<uint64_t>(as_double(x)));
    case Dtype::kComplexHalf:
      write_as<uint16_t>(to, Half::stored(as_float(x)));
      return write_as<uint16_t>(to + 2, Half::stored(static_cast<float>(x.imaginary)));
    case Dtype::kComplexFloat:
      write_as<uint32_t>(to, bit_cast<uint32_t>(as_float(x)));
      return write_as<uint32_t>(to + 4, bit_cast<uint32_t>(static_cast<float>(x.imaginary)));
    case Dtype::kComplexDouble:
      write_as<uint64_t>(to, bit_cast<uint64_t>(as_double(x)));
      return write_as<uint64_t>(to + 8, bit_cast<uint64_t>(x.imaginary));
    case Dtype::kBool:
      return write_as<uint8_t>(to, as_bool(x) ? 1 : 0);
    case Dtype::kBFloat16:
      return write_as<uint16_t>(to, BFloat16::stored(as_float(x)));
    case Dtype::kFloat8e5m2:
      return write_as<uint8_t>(to, Float8e5m2::stored(as_float(x)));
    case Dtype::kFloat8e4m3fn: {
      const float value = as_float(x);
      const bool nan = (bit_cast<uint32_t>(value) & 0x7fffffffu) > 0x7f800000u;
      const uint8_t stored = Float8e4m3fn::stored(value);
      const bool beyond = saturate && !nan && (stored & 0x7f) == 0x7f;
      return write_as<uint8_t>(to, beyond ? static_cast<uint8_t>(stored - 1) : stored);
    }
    case Dtype::kFloat8e5m2fnuz:
      return write_as<uint8_t>(to, Float8e5m2fnuz::stored(as_float(x)));
    case Dtype::kFloat8e4m3fnuz:
      return write_as<uint8_t>(to, Float8e4m3fnuz::stored(as_float(x)));
    case Dtype::kFloat8e8m0fnu:
      return write_as<uint8_t>(to, Float8e8m0fnu::stored(as_float(x)));
  }
}

}  // namespace pyparam
