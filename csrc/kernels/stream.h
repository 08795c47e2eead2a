// The stream of a qualified name: its 64-bit FNV-1a hash (Fowler, Noll, Vo; RFC 9923) over the
// UTF-8 bytes. Names of one length that differ in one byte never collide; 50,000 others do with
// probability 1e-10.
#pragma once

#include <cstdint>
#include <string_view>

namespace pyparam {

inline uint64_t stream_of_name(std::string_view name) {
  uint64_t hash = 0xCBF29CE484222325ull;
  for (const char byte : name) hash = (hash ^ static_cast<uint8_t>(byte)) * 0x00000100000001B3ull;
  return hash;
}

}  // namespace pyparam
