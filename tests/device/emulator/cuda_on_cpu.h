// The part of CUDA C++ that the kernels use, for a host compiler: each name means what the CUDA programming guide says.
//
// What is undefined there is an error here: lanes outside a mask, misaligned vectors, a selector out of range.
#pragma once

#include <cstdint>
#include <cstring>
#include <type_traits>

#include "emulator.h"

#define __global__
#define __host__
#define __device__ __attribute__((unused))
#define __constant__ __attribute__((unused))
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)
#define __align__(bytes) __attribute__((aligned(bytes)))
// One block runs at a time. The section lets the emulator overwrite the variables before the next.
#define __shared__ static __attribute__((section("dumont_shared")))

struct uint3 {
    unsigned x, y, z;
};

struct dim3 {
    constexpr dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
    unsigned x, y, z;
};

extern uint3 threadIdx;
extern uint3 blockIdx;
extern dim3 blockDim;
extern dim3 gridDim;
constexpr int warpSize = 32;

// ---------------------------------------------------------------------------------------------------------------
// Vectors.

struct alignas(2) uchar2 {
    unsigned char x, y;
};
struct alignas(4) uchar4 {
    unsigned char x, y, z, w;
};
struct alignas(4) ushort2 {
    unsigned short x, y;
};
struct alignas(8) ushort4 {
    unsigned short x, y, z, w;
};
struct alignas(8) uint2 {
    unsigned x, y;
};
struct alignas(16) uint4 {
    unsigned x, y, z, w;
};
struct alignas(16) ulonglong2 {
    unsigned long long x, y;
};

inline uchar2 make_uchar2(unsigned char x, unsigned char y) {
    return {x, y};
}
inline uchar4 make_uchar4(unsigned char x, unsigned char y, unsigned char z, unsigned char w) {
    return {x, y, z, w};
}
inline ushort2 make_ushort2(unsigned short x, unsigned short y) {
    return {x, y};
}
inline ushort4 make_ushort4(unsigned short x, unsigned short y, unsigned short z, unsigned short w) {
    return {x, y, z, w};
}
inline uint2 make_uint2(unsigned x, unsigned y) {
    return {x, y};
}
inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) {
    return {x, y, z, w};
}
inline ulonglong2 make_ulonglong2(unsigned long long x, unsigned long long y) {
    return {x, y};
}

namespace dumont::emulator {

template <class T>
void check_alignment(const T* address) {
    if (reinterpret_cast<uintptr_t>(address) % sizeof(T) != 0) {
        fail("access of %u bytes at a misaligned address", static_cast<unsigned>(sizeof(T)));
    }
}

template <class T>
T load(const T* address) {
    check_alignment(address);
    return *address;
}

template <class T>
void store(T* address, T value) {
    check_alignment(address);
    *address = value;
}

}  // namespace dumont::emulator

template <class T>
T __ldg(const T* address) {
    return dumont::emulator::load(address);
}
template <class T>
T __ldcs(const T* address) {
    return dumont::emulator::load(address);
}
template <class T>
T __ldcg(const T* address) {
    return dumont::emulator::load(address);
}
template <class T>
T __ldca(const T* address) {
    return dumont::emulator::load(address);
}
template <class T>
void __stcs(T* address, T value) {
    dumont::emulator::store(address, value);
}
template <class T>
void __stcg(T* address, T value) {
    dumont::emulator::store(address, value);
}

// ---------------------------------------------------------------------------------------------------------------
// Integers.

inline int __popc(unsigned value) {
    return __builtin_popcount(value);
}
inline int __popcll(unsigned long long value) {
    return __builtin_popcountll(value);
}
inline int __clz(int value) {
    return value == 0 ? 32 : __builtin_clz(static_cast<unsigned>(value));
}
inline int __clzll(long long value) {
    return value == 0 ? 64 : __builtin_clzll(static_cast<unsigned long long>(value));
}
inline int __ffs(int value) {
    return __builtin_ffs(value);
}
inline int __ffsll(long long value) {
    return __builtin_ffsll(value);
}

inline unsigned __brev(unsigned value) {
    unsigned reversed = 0;
    for (int bit = 0; bit < 32; ++bit) reversed |= (value >> bit & 1) << (31 - bit);
    return reversed;
}
inline unsigned long long __brevll(unsigned long long value) {
    return static_cast<unsigned long long>(__brev(static_cast<unsigned>(value))) << 32 |
           __brev(static_cast<unsigned>(value >> 32));
}

inline unsigned __umulhi(unsigned a, unsigned b) {
    return static_cast<unsigned>(static_cast<uint64_t>(a) * b >> 32);
}

namespace dumont::emulator {

inline uint64_t pair(unsigned low, unsigned high) {
    return static_cast<uint64_t>(high) << 32 | low;
}
inline unsigned at_most_32(unsigned shift) {
    return shift < 32 ? shift : 32;
}

}  // namespace dumont::emulator

inline unsigned __funnelshift_l(unsigned low, unsigned high, unsigned shift) {
    return static_cast<unsigned>(dumont::emulator::pair(low, high) << (shift & 31) >> 32);
}
inline unsigned __funnelshift_lc(unsigned low, unsigned high, unsigned shift) {
    return static_cast<unsigned>(dumont::emulator::pair(low, high) << dumont::emulator::at_most_32(shift) >> 32);
}
inline unsigned __funnelshift_r(unsigned low, unsigned high, unsigned shift) {
    return static_cast<unsigned>(dumont::emulator::pair(low, high) >> (shift & 31));
}
inline unsigned __funnelshift_rc(unsigned low, unsigned high, unsigned shift) {
    return static_cast<unsigned>(dumont::emulator::pair(low, high) >> dumont::emulator::at_most_32(shift));
}

inline unsigned __byte_perm(unsigned low, unsigned high, unsigned selector) {
    // The guide gives a selector three bits; the fourth makes the instruction repeat a sign.
    if (selector & 0x8888) dumont::emulator::fail("__byte_perm with selector %04x", selector & 0xFFFF);
    unsigned result = 0;
    for (int i = 0; i < 4; ++i) {
        const unsigned byte = selector >> (4 * i) & 7;
        result |= static_cast<unsigned>(dumont::emulator::pair(low, high) >> (8 * byte) & 255) << (8 * i);
    }
    return result;
}

// Operands are promoted and converted as for `a + b`, as by CUDA's overloads.
template <class A, class B>
constexpr auto min(A a, B b) {
    using T = decltype(a + b);
    return static_cast<T>(a) < static_cast<T>(b) ? static_cast<T>(a) : static_cast<T>(b);
}
template <class A, class B>
constexpr auto max(A a, B b) {
    using T = decltype(a + b);
    return static_cast<T>(a) > static_cast<T>(b) ? static_cast<T>(a) : static_cast<T>(b);
}

// ---------------------------------------------------------------------------------------------------------------
// Atomics: of the types that CUDA has, so that what compiles here compiles there. Threads take turns, so a plain
// read and write are atomic.

#define DUMONT_ATOMICS(T)                                                \
    inline T atomicAdd(T* address, T value) {                            \
        const T old = *address;                                          \
        *address = static_cast<T>(static_cast<uint64_t>(old) + value);   \
        return old;                                                      \
    }                                                                    \
    inline T atomicExch(T* address, T value) {                           \
        const T old = *address;                                          \
        *address = value;                                                \
        return old;                                                      \
    }                                                                    \
    inline T atomicCAS(T* address, T expected, T value) {                \
        const T old = *address;                                          \
        if (old == expected) *address = value;                           \
        return old;                                                      \
    }                                                                    \
    inline T atomicAnd(T* address, T value) {                            \
        const T old = *address;                                          \
        *address = old & value;                                          \
        return old;                                                      \
    }                                                                    \
    inline T atomicOr(T* address, T value) {                             \
        const T old = *address;                                          \
        *address = old | value;                                          \
        return old;                                                      \
    }                                                                    \
    inline T atomicXor(T* address, T value) {                            \
        const T old = *address;                                          \
        *address = old ^ value;                                          \
        return old;                                                      \
    }

#define DUMONT_ATOMIC_BOUNDS(T)                                          \
    inline T atomicMin(T* address, T value) {                            \
        const T old = *address;                                          \
        if (value < old) *address = value;                               \
        return old;                                                      \
    }                                                                    \
    inline T atomicMax(T* address, T value) {                            \
        const T old = *address;                                          \
        if (value > old) *address = value;                               \
        return old;                                                      \
    }

DUMONT_ATOMICS(int)
DUMONT_ATOMICS(unsigned)
DUMONT_ATOMICS(unsigned long long)
DUMONT_ATOMIC_BOUNDS(int)
DUMONT_ATOMIC_BOUNDS(unsigned)
DUMONT_ATOMIC_BOUNDS(long long)
DUMONT_ATOMIC_BOUNDS(unsigned long long)

inline int atomicSub(int* address, int value) {
    return atomicAdd(address, static_cast<int>(0u - static_cast<unsigned>(value)));
}
inline unsigned atomicSub(unsigned* address, unsigned value) {
    return atomicAdd(address, 0u - value);
}

#undef DUMONT_ATOMICS
#undef DUMONT_ATOMIC_BOUNDS

// ---------------------------------------------------------------------------------------------------------------
// The block and the warp.

inline void __threadfence() {}
inline void __threadfence_block() {}

[[noreturn]] inline void __trap() {
    dumont::emulator::fail("__trap");
}

inline void __syncthreads() {
    dumont::emulator::sync_block();
}
inline int __syncthreads_count(int predicate) {
    return static_cast<int>(dumont::emulator::sync_block(predicate != 0));
}
inline int __syncthreads_and(int predicate) {
    return dumont::emulator::sync_block(predicate != 0) == blockDim.x;
}
inline int __syncthreads_or(int predicate) {
    return dumont::emulator::sync_block(predicate != 0) != 0;
}

inline void __syncwarp(unsigned mask = 0xFFFFFFFF) {
    dumont::emulator::exchange(dumont::emulator::Collective::kSyncWarp, mask);
}

inline unsigned __ballot_sync(unsigned mask, int predicate) {
    return static_cast<unsigned>(
        dumont::emulator::exchange(dumont::emulator::Collective::kBallot, mask, predicate != 0));
}
inline int __any_sync(unsigned mask, int predicate) {
    return __ballot_sync(mask, predicate) != 0;
}
inline int __all_sync(unsigned mask, int predicate) {
    return __ballot_sync(mask, predicate) == mask;
}

namespace dumont::emulator {

// Small integers are promoted to int: CUDA has shuffles of 32 and 64 bits only.
template <class T>
auto shuffle(unsigned mask, T value, unsigned source) {
    using Word = decltype(+value);
    static_assert(std::is_arithmetic<T>::value && sizeof(Word) <= 8, "CUDA has no shuffle of this type");
    const Word word = value;
    uint64_t bits = 0;
    std::memcpy(&bits, &word, sizeof word);
    bits = exchange(Collective::kShuffle, mask, bits, source);
    Word result;
    std::memcpy(&result, &bits, sizeof result);
    return result;
}

// The first lane of the caller's segment of `width` lanes.
inline unsigned segment(int width) {
    if (width < 1 || width > 32 || (width & (width - 1)) != 0) fail("a shuffle with width %d", width);
    return lane_id() & ~(static_cast<unsigned>(width) - 1);
}

}  // namespace dumont::emulator

template <class T>
auto __shfl_sync(unsigned mask, T value, int source, int width = 32) {
    const unsigned first = dumont::emulator::segment(width);
    return dumont::emulator::shuffle(mask, value, first + (static_cast<unsigned>(source) & (width - 1)));
}
template <class T>
auto __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = 32) {
    const unsigned lane = dumont::emulator::lane_id();
    const unsigned first = dumont::emulator::segment(width);
    return dumont::emulator::shuffle(mask, value, lane - first >= delta ? lane - delta : lane);
}
template <class T>
auto __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = 32) {
    const unsigned lane = dumont::emulator::lane_id();
    const unsigned end = dumont::emulator::segment(width) + static_cast<unsigned>(width);
    return dumont::emulator::shuffle(mask, value, delta < end - lane ? lane + delta : lane);
}
// A lane of a later segment cannot be read: the caller keeps its value. One of an earlier segment can.
template <class T>
auto __shfl_xor_sync(unsigned mask, T value, int lane_mask, int width = 32) {
    const unsigned lane = dumont::emulator::lane_id();
    const unsigned end = dumont::emulator::segment(width) + static_cast<unsigned>(width);
    const unsigned source = lane ^ (static_cast<unsigned>(lane_mask) & 31);
    return dumont::emulator::shuffle(mask, value, source < end ? source : lane);
}

template <class T>
unsigned __match_any_sync(unsigned mask, T value) {
    static_assert(std::is_arithmetic<T>::value && sizeof(T) <= 8, "CUDA has no match of this type");
    const auto word = +value;
    uint64_t bits = 0;
    std::memcpy(&bits, &word, sizeof word);
    return static_cast<unsigned>(dumont::emulator::exchange(dumont::emulator::Collective::kMatchAny, mask, bits));
}

namespace dumont::emulator {

inline unsigned reduce_sync(Collective kind, unsigned mask, unsigned value) {
    return static_cast<unsigned>(exchange(kind, mask, value));
}

constexpr unsigned kSignBit = 0x80000000;  // flipped, it turns the order of int into that of unsigned

}  // namespace dumont::emulator

// Devices of compute capability 8.0 and later have these.
inline unsigned __reduce_add_sync(unsigned mask, unsigned value) {
    return dumont::emulator::reduce_sync(dumont::emulator::Collective::kReduceAdd, mask, value);
}
inline int __reduce_add_sync(unsigned mask, int value) {
    return static_cast<int>(__reduce_add_sync(mask, static_cast<unsigned>(value)));
}
inline unsigned __reduce_min_sync(unsigned mask, unsigned value) {
    return dumont::emulator::reduce_sync(dumont::emulator::Collective::kReduceMin, mask, value);
}
inline int __reduce_min_sync(unsigned mask, int value) {
    using dumont::emulator::kSignBit;
    return static_cast<int>(__reduce_min_sync(mask, static_cast<unsigned>(value) ^ kSignBit) ^ kSignBit);
}
inline unsigned __reduce_max_sync(unsigned mask, unsigned value) {
    return dumont::emulator::reduce_sync(dumont::emulator::Collective::kReduceMax, mask, value);
}
inline int __reduce_max_sync(unsigned mask, int value) {
    using dumont::emulator::kSignBit;
    return static_cast<int>(__reduce_max_sync(mask, static_cast<unsigned>(value) ^ kSignBit) ^ kSignBit);
}
inline unsigned __reduce_and_sync(unsigned mask, unsigned value) {
    return dumont::emulator::reduce_sync(dumont::emulator::Collective::kReduceAnd, mask, value);
}
inline unsigned __reduce_or_sync(unsigned mask, unsigned value) {
    return dumont::emulator::reduce_sync(dumont::emulator::Collective::kReduceOr, mask, value);
}
inline unsigned __reduce_xor_sync(unsigned mask, unsigned value) {
    return dumont::emulator::reduce_sync(dumont::emulator::Collective::kReduceXor, mask, value);
}
