// What CUDA C++ does not offer by a function: prefetches, shared memory by 32-bit address, words at any address.
//
// The first include of every `.cu` file.
#pragma once

#include "portable.h"

// Prefetches the 32 bytes around `address` into the cache of the SM, or into the cache of the device; the address need not be
// readable.
template <class T>
__device__ __forceinline__ void prefetch_near(const T* address) {
    asm volatile("prefetch.global.L1 [%0];" ::"l"(address));
}

template <class T>
__device__ __forceinline__ void prefetch_far(const T* address) {
    asm volatile("prefetch.global.L2 [%0];" ::"l"(address));
}

namespace dumont {

constexpr uint32_t kWarp = 32;  // threads that run together
constexpr uint32_t kAllLanes = 0xFFFFFFFF;

// ---------------------------------------------------------------------------------------------------------------
// Dynamic shared memory by 32-bit address: loops that index it would spend half their instructions on 64-bit pointers.

__device__ __forceinline__ uint32_t shared_address(const void* pointer) {
    return static_cast<uint32_t>(__cvta_generic_to_shared(pointer));
}

// The address of element `index`, by a multiplication: that takes work off the units that shift and add.
__device__ __forceinline__ uint32_t element_address(uint32_t array, uint32_t index, uint32_t size) {
    uint32_t address;
    asm("mad.lo.u32 %0, %1, %2, %3;" : "=r"(address) : "r"(index), "r"(size), "r"(array));
    return address;
}

__device__ __forceinline__ uint32_t load_shared(uint32_t address) {
    uint32_t value;
    asm volatile("ld.shared.u32 %0, [%1];" : "=r"(value) : "r"(address));
    return value;
}

__device__ __forceinline__ uint2 load_shared_pair(uint32_t address) {
    uint2 value;
    asm volatile("ld.shared.v2.u32 {%0, %1}, [%2];" : "=r"(value.x), "=r"(value.y) : "r"(address));
    return value;
}

__device__ __forceinline__ void store_shared(uint32_t address, uint32_t value) {
    asm volatile("st.shared.u32 [%0], %1;" ::"r"(address), "r"(value) : "memory");
}

// ---------------------------------------------------------------------------------------------------------------

// Four bytes from any address, out of the aligned words around them: up to seven bytes after the first may be read.
__device__ __forceinline__ uint32_t load_unaligned(const uint8_t* bytes) {
    const uintptr_t address = reinterpret_cast<uintptr_t>(bytes);
    const uint32_t* words = reinterpret_cast<const uint32_t*>(address & ~uintptr_t{3});
    return __funnelshift_r(__ldg(words), __ldg(words + 1), 8 * (address & 3));
}

}  // namespace dumont
