// Function qualifiers and unaligned little-endian loads, for host and device compilers.
//
// Every header in kernels/shared is freestanding: no containers, no exceptions, no allocation. Functions have internal
// linkage because the same header is compiled for several instruction sets within one library: with external
// linkage the linker would keep one copy, perhaps one that this CPU cannot run.
#pragma once

#if defined(__CUDACC_RTC__)
// NVRTC has no headers. The types are those of 64-bit Linux, so that overloads resolve as under nvcc.
using int8_t = signed char;
using int16_t = short;
using int32_t = int;
using int64_t = long;
using uint8_t = unsigned char;
using uint16_t = unsigned short;
using uint32_t = unsigned int;
using uint64_t = unsigned long;
using uintptr_t = unsigned long;
static_assert(sizeof(uint64_t) == 8 && sizeof(uintptr_t) == sizeof(void*), "the device shares the host's types");
#else
#include <stdint.h>
#endif

#if defined(__CUDACC__)
#define DUMONT_HD static inline __host__ __device__
#else
#define DUMONT_HD [[maybe_unused]] static inline
#endif

#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "ZipNN planes are defined on little-endian elements, and so are these kernels"
#endif

namespace dumont {

DUMONT_HD uint32_t load_u16(const uint8_t* bytes) {
    return bytes[0] | static_cast<uint32_t>(bytes[1]) << 8;
}

DUMONT_HD uint32_t load_u32(const uint8_t* bytes) {
    return load_u16(bytes) | load_u16(bytes + 2) << 16;
}

DUMONT_HD uint64_t load_u64(const uint8_t* bytes) {
    return load_u32(bytes) | static_cast<uint64_t>(load_u32(bytes + 4)) << 32;
}

// Position of the highest set bit; `value` is not 0.
DUMONT_HD uint32_t highest_bit(uint32_t value) {
#if defined(__CUDA_ARCH__)
    return 31 - __clz(static_cast<int>(value));
#else
    return 31 - static_cast<uint32_t>(__builtin_clz(value));
#endif
}

DUMONT_HD bool is_power_of_two(uint32_t value) {
    return value != 0 && (value & (value - 1)) == 0;
}

}  // namespace dumont
