// The additions to the language that the CUDA kernels need, in a form that the emulator of tests/device/emulator also compiles.
//
// The first include of every `.cu` file. Under NVRTC and nvcc the CUDA names are built in; the emulator brings its own.
#pragma once

#if defined(DUMONT_EMULATOR)
#include "cuda_on_cpu.h"
#endif

#include "portable.h"

// Declares `name`, a `uint8_t*` or array of it: the dynamic shared memory of the block, 16-byte aligned.
#if defined(DUMONT_EMULATOR)
#define DUMONT_DYNAMIC_SHARED(name) uint8_t* const name = dumont::emulator::dynamic_shared()
#else
#define DUMONT_DYNAMIC_SHARED(name) extern __shared__ __align__(16) uint8_t name[]
#endif

// Prefetches the 32 bytes around `address` into the cache of the SM, or into the cache of the device; the address need not be
// readable.
template <class T>
__device__ __forceinline__ void prefetch_near(const T* address) {
#if defined(DUMONT_EMULATOR)
    static_cast<void>(address);
#else
    asm volatile("prefetch.global.L1 [%0];" ::"l"(address));
#endif
}

template <class T>
__device__ __forceinline__ void prefetch_far(const T* address) {
#if defined(DUMONT_EMULATOR)
    static_cast<void>(address);
#else
    asm volatile("prefetch.global.L2 [%0];" ::"l"(address));
#endif
}

namespace dumont {

constexpr uint32_t kWarp = 32;  // threads that run together
constexpr uint32_t kAllLanes = 0xFFFFFFFF;

// ---------------------------------------------------------------------------------------------------------------
// Dynamic shared memory by 32-bit address: loops that index it would spend half their instructions on 64-bit pointers.

__device__ __forceinline__ uint32_t shared_address(const void* pointer) {
#if defined(DUMONT_EMULATOR)
    return static_cast<uint32_t>(static_cast<const uint8_t*>(pointer) - emulator::dynamic_shared());
#else
    return static_cast<uint32_t>(__cvta_generic_to_shared(pointer));
#endif
}

// The address of element `index`, by a multiplication: that takes work off the units that shift and add.
__device__ __forceinline__ uint32_t element_address(uint32_t array, uint32_t index, uint32_t size) {
#if defined(DUMONT_EMULATOR)
    return array + index * size;
#else
    uint32_t address;
    asm("mad.lo.u32 %0, %1, %2, %3;" : "=r"(address) : "r"(index), "r"(size), "r"(array));
    return address;
#endif
}

__device__ __forceinline__ uint32_t load_shared(uint32_t address) {
#if defined(DUMONT_EMULATOR)
    return emulator::load(reinterpret_cast<const uint32_t*>(emulator::dynamic_shared() + address));
#else
    uint32_t value;
    asm volatile("ld.shared.u32 %0, [%1];" : "=r"(value) : "r"(address));
    return value;
#endif
}

__device__ __forceinline__ uint2 load_shared_pair(uint32_t address) {
#if defined(DUMONT_EMULATOR)
    return emulator::load(reinterpret_cast<const uint2*>(emulator::dynamic_shared() + address));
#else
    uint2 value;
    asm volatile("ld.shared.v2.u32 {%0, %1}, [%2];" : "=r"(value.x), "=r"(value.y) : "r"(address));
    return value;
#endif
}

__device__ __forceinline__ void store_shared(uint32_t address, uint32_t value) {
#if defined(DUMONT_EMULATOR)
    emulator::store(reinterpret_cast<uint32_t*>(emulator::dynamic_shared() + address), value);
#else
    asm volatile("st.shared.u32 [%0], %1;" ::"r"(address), "r"(value) : "memory");
#endif
}

// ---------------------------------------------------------------------------------------------------------------

// Four bytes from any address, out of the aligned words around them: up to seven bytes after the first may be read.
__device__ __forceinline__ uint32_t load_unaligned(const uint8_t* bytes) {
    const uintptr_t address = reinterpret_cast<uintptr_t>(bytes);
    const uint32_t* words = reinterpret_cast<const uint32_t*>(address & ~uintptr_t{3});
    return __funnelshift_r(__ldg(words), __ldg(words + 1), 8 * (address & 3));
}

}  // namespace dumont
