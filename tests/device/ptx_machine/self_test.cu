// Small kernels for what the machine knows, and for every mistake that it must find; nvcc compiles them too, for a real
// device.
//
// `out` has one slot, or row of slots, per thread of the grid. self_test.cpp computes what they must hold.
#include "device.h"
#include "self_test.h"

#define KERNEL extern "C" __global__ void

static __device__ __forceinline__ uint32_t thread_of_grid() {
    return blockIdx.x * blockDim.x + threadIdx.x;
}

KERNEL self_indices(uint32_t* out) {
    uint32_t* row = out + 4 * thread_of_grid();
    row[0] = threadIdx.x;
    row[1] = blockIdx.x;
    row[2] = blockDim.x;
    row[3] = gridDim.x + threadIdx.y + blockIdx.z + blockDim.y + gridDim.z;
}

KERNEL self_arguments(uint8_t small, uint64_t large, int32_t negative, const uint32_t* in, uint64_t* out) {
    out[thread_of_grid()] = small + large + static_cast<uint64_t>(static_cast<int64_t>(negative)) + in[0];
}

KERNEL __launch_bounds__(128) self_integers(const uint32_t* __restrict__ in, uint32_t* __restrict__ out) {
    const uint32_t a = in[3 * thread_of_grid()];
    const uint32_t b = in[3 * thread_of_grid() + 1];
    const uint32_t c = in[3 * thread_of_grid() + 2];
    const uint64_t wide = static_cast<uint64_t>(b) << 32 | a;
    uint32_t* row = out + kIntegerResults * thread_of_grid();
    row[0] = __popc(a);
    row[1] = __popcll(wide);
    row[2] = __clz(static_cast<int>(a));
    row[3] = __clzll(static_cast<long long>(wide));
    row[4] = __ffs(static_cast<int>(a));
    row[5] = __ffsll(static_cast<long long>(wide));
    row[6] = __brev(a);
    row[7] = static_cast<uint32_t>(__brevll(wide));
    row[8] = __funnelshift_l(a, b, c);
    row[9] = __funnelshift_lc(a, b, c);
    row[10] = __funnelshift_r(a, b, c);
    row[11] = __funnelshift_rc(a, b, c);
    row[12] = __byte_perm(a, b, c & 0x7777);
    row[13] = __umulhi(a, b);
    row[14] = min(a, b);
    row[15] = max(a, b);
    row[16] = static_cast<uint32_t>(min(static_cast<int>(a), static_cast<int>(b)));
    row[17] = static_cast<uint32_t>(max(static_cast<int>(a), static_cast<int>(b)));
    row[18] = min(static_cast<int>(a), b);  // compares as unsigned
    row[19] = static_cast<uint32_t>(max(wide, static_cast<uint64_t>(c)) >> 32);
    row[20] = dumont::highest_bit(a | 1);
    row[21] = dumont::load_u32(reinterpret_cast<const uint8_t*>(in + 3 * thread_of_grid()));
    row[22] = static_cast<uint32_t>(__brevll(wide) >> 32);
    row[23] = dumont::is_power_of_two(a);
}

// Each thread copies four times 16 bytes, through every way to load and store.
KERNEL self_vectors(const uint8_t* __restrict__ in, uint8_t* __restrict__ out) {
    const uint8_t* from = in + kVectorBytes * thread_of_grid();
    uint8_t* to = out + kVectorBytes * thread_of_grid();
    __stcs(reinterpret_cast<uint4*>(to), __ldg(reinterpret_cast<const uint4*>(from)));
    const uint2 pair = __ldcs(reinterpret_cast<const uint2*>(from + 16));
    __stcs(reinterpret_cast<uint2*>(to + 16), make_uint2(pair.x, pair.y));
    __stcs(reinterpret_cast<uint32_t*>(to + 24), __ldcs(reinterpret_cast<const uint32_t*>(from + 24)));
    __stcg(reinterpret_cast<uint32_t*>(to + 28), __ldcg(reinterpret_cast<const uint32_t*>(from + 28)));
    const uint4 quad = *reinterpret_cast<const uint4*>(from + 32);
    *reinterpret_cast<uint4*>(to + 32) = make_uint4(quad.x, quad.y, quad.z, quad.w);
    const ulonglong2 longs = *reinterpret_cast<const ulonglong2*>(from + 48);
    *reinterpret_cast<ulonglong2*>(to + 48) = make_ulonglong2(longs.x, longs.y);
}

// `words` start as the test says; every thread of the grid takes part once.
KERNEL self_atomics(uint32_t* words, unsigned long long* longs, uint32_t* tickets) {
    const uint32_t t = thread_of_grid();
    tickets[t] = atomicAdd(&words[0], 1u);
    atomicOr(&words[1], 1u << (t & 31));
    atomicAnd(&words[2], ~(1u << (t & 15)));
    atomicXor(&words[3], t);
    atomicMin(&words[4], t * 7 + 3);
    atomicMax(&words[5], t * 7 + 3);
    atomicSub(&words[6], 2u);
    atomicMin(reinterpret_cast<int*>(&words[7]), -static_cast<int>(t));
    atomicMax(reinterpret_cast<int*>(&words[8]), -static_cast<int>(t) - 1);
    atomicAdd(reinterpret_cast<int*>(&words[9]), -1);
    uint32_t seen = atomicOr(&words[10], 0u);
    for (uint32_t expected = seen + 1; seen != expected;) {  // doubles plus one, whoever comes first
        expected = seen;
        seen = atomicCAS(&words[10], expected, 2 * expected + 1);
    }
    if (t == 5) atomicExch(&words[11], 99u);
    atomicAdd(&longs[0], 1ull << 33);
    atomicMax(&longs[1], static_cast<unsigned long long>(t) << 34);
    atomicMin(&longs[2], static_cast<unsigned long long>(t + 1) << 34);
    atomicOr(&longs[3], 1ull << (t & 63));
    if (t == 5) atomicCAS(&longs[4], 7ull, 1ull << 40);
    if (t == 6) atomicExch(&longs[5], 1ull << 41);
}

KERNEL self_shuffles(const uint32_t* in, uint32_t* out) {
    const uint32_t t = thread_of_grid();
    const uint32_t lane = threadIdx.x & 31;
    const uint32_t value = in[t];
    uint32_t* row = out + kShuffleResults * t;
    row[0] = __shfl_sync(0xFFFFFFFFu, value, static_cast<int>(31 - lane));
    row[1] = __shfl_sync(0xFFFFFFFFu, value, 3, 8);
    row[2] = __shfl_sync(0xFFFFFFFFu, value, static_cast<int>(lane + 5), 16);
    row[3] = __shfl_up_sync(0xFFFFFFFFu, value, 3);
    row[4] = __shfl_up_sync(0xFFFFFFFFu, value, 3, 8);
    row[5] = __shfl_down_sync(0xFFFFFFFFu, value, 3);
    row[6] = __shfl_down_sync(0xFFFFFFFFu, value, 3, 8);
    row[7] = __shfl_xor_sync(0xFFFFFFFFu, value, 5);
    row[8] = __shfl_xor_sync(0xFFFFFFFFu, value, 8, 8);
    const uint64_t wide = __shfl_sync(0xFFFFFFFFu, static_cast<uint64_t>(value) << 32 | t, static_cast<int>(lane ^ 1));
    row[9] = static_cast<uint32_t>(wide >> 32) ^ static_cast<uint32_t>(wide);
    row[10] = static_cast<uint32_t>(__shfl_sync(0xFFFFFFFFu, -static_cast<int>(lane), 4));
    uint32_t sum = value;
#pragma unroll
    for (uint32_t step = 1; step < 32; step *= 2) {
        const uint32_t before = __shfl_up_sync(0xFFFFFFFFu, sum, step);
        if (lane >= step) sum += before;
    }
    row[11] = sum;
}

KERNEL self_votes(const uint32_t* in, uint32_t* out) {
    const uint32_t t = thread_of_grid();
    const uint32_t value = in[t];
    uint32_t* row = out + kVoteResults * t;
    row[0] = __ballot_sync(0xFFFFFFFFu, value & 4);
    row[1] = __any_sync(0xFFFFFFFFu, value % 61 == 0);
    row[2] = __all_sync(0xFFFFFFFFu, value % 61 != 0);
    row[3] = __match_any_sync(0xFFFFFFFFu, value & 3);
    row[4] = __syncthreads_count(value & 1);
    row[5] = __syncthreads_and(value != 77);
    row[6] = __syncthreads_or(value == 77);
}

KERNEL self_reductions(const uint32_t* in, uint32_t* out) {
    const uint32_t t = thread_of_grid();
    uint32_t* row = out + kReduceResults * t;
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 800
    const uint32_t value = in[t];
    row[0] = __reduce_add_sync(0xFFFFFFFFu, value);
    row[1] = __reduce_min_sync(0xFFFFFFFFu, value);
    row[2] = __reduce_max_sync(0xFFFFFFFFu, value);
    row[3] = __reduce_and_sync(0xFFFFFFFFu, value);
    row[4] = __reduce_or_sync(0xFFFFFFFFu, value);
    row[5] = __reduce_xor_sync(0xFFFFFFFFu, value);
    row[6] = static_cast<uint32_t>(__reduce_min_sync(0xFFFFFFFFu, static_cast<int>(value)));
    row[7] = static_cast<uint32_t>(__reduce_max_sync(0xFFFFFFFFu, static_cast<int>(value)));
#else
    row[0] = in[t];
#endif
}

// The lower and the upper half of a warp go different ways, and one lane goes its own.
KERNEL self_masks(const uint32_t* in, uint32_t* out) {
    const uint32_t t = thread_of_grid();
    const uint32_t lane = threadIdx.x & 31;
    uint32_t* row = out + kMaskResults * t;
    if (lane < 16) {
        uint32_t sum = in[t];
        for (int step = 8; step != 0; step /= 2) sum += __shfl_xor_sync(0x0000FFFFu, sum, step);
        row[0] = sum;
        row[1] = __ballot_sync(0x0000FFFFu, in[t] & 1);
    } else if (lane < 31) {
        row[0] = __shfl_sync(0x7FFF0000u, in[t], 16);
        __syncwarp(0x7FFF0000u);
        row[1] = __match_any_sync(0x7FFF0000u, in[t] & 1);
    } else {
        row[0] = __ballot_sync(0x80000000u, 1);
        row[1] = __shfl_up_sync(0x80000000u, 7u, 0);
    }
    __syncwarp();
    row[2] = __ballot_sync(0xFFFFFFFFu, lane < 16);
    row[3] = __popc(__match_any_sync(0xFFFFFFFFu, static_cast<uint64_t>(lane < 16) << 40));
}

// A sum over the block through static and dynamic shared memory.
KERNEL self_shared(const uint32_t* in, uint32_t* out, uint32_t* sums) {
    extern __shared__ __align__(16) uint8_t dynamic[];
    __shared__ uint32_t warps[32];
    uint32_t* values = reinterpret_cast<uint32_t*>(dynamic);
    values[threadIdx.x] = in[thread_of_grid()];
    __syncthreads();
    out[thread_of_grid()] = values[blockDim.x - 1 - threadIdx.x];
    uint32_t sum = values[threadIdx.x];
    for (int step = 16; step != 0; step /= 2) sum += __shfl_xor_sync(0xFFFFFFFFu, sum, step);
    if (threadIdx.x % 32 == 0) warps[threadIdx.x / 32] = sum;
    __syncthreads();
    if (threadIdx.x != 0) return;
    uint32_t total = 0;
    for (uint32_t w = 0; w < blockDim.x / 32; ++w) total += warps[w];
    sums[blockIdx.x] = total;
}

// Lanes pass words on in pairs, then in quads: barriers of parts of a warp carry what they saw before to others.
KERNEL self_partial_barriers(uint32_t* out) {
    __shared__ uint32_t words[32];
    const uint32_t lane = threadIdx.x;
    words[lane] = lane;
    __syncwarp(3u << (lane & ~1u));
    if (lane % 4 == 1) words[lane] += words[lane - 1];
    __syncwarp(15u << (lane & ~3u));
    out[lane] = lane % 4 == 3 ? words[lane - 2] + words[lane - 3] : words[lane];
}

// Instructions that kernels write themselves, or that the compiler may choose.
KERNEL self_instructions(const uint32_t* in, uint32_t* out) {
    __shared__ uint32_t word[32];
    const uint32_t a = in[3 * threadIdx.x];
    const uint32_t b = in[3 * threadIdx.x + 1];
    const uint32_t c = in[3 * threadIdx.x + 2];
    const uint64_t wide = static_cast<uint64_t>(b) << 32 | a;
    uint32_t* row = out + kInstructionResults * threadIdx.x;
    asm("prmt.b32 %0, %1, %2, %3;" : "=r"(row[0]) : "r"(a), "r"(b), "r"(c));
    asm("bfe.u32 %0, %1, %2, %3;" : "=r"(row[1]) : "r"(a), "r"(b & 31), "r"(c & 31));
    asm("bfe.s32 %0, %1, %2, %3;" : "=r"(row[2]) : "r"(a), "r"(b & 31), "r"(c & 31));
    asm("bfi.b32 %0, %1, %2, %3, %4;" : "=r"(row[3]) : "r"(a), "r"(b), "r"(c & 31), "r"(c >> 8 & 31));
    asm("lop3.b32 %0, %1, %2, %3, 0x96;" : "=r"(row[4]) : "r"(a), "r"(b), "r"(c));
    asm("mad.lo.u32 %0, %1, %2, %3;" : "=r"(row[5]) : "r"(a), "r"(b), "r"(c));
    asm("shr.s32 %0, %1, %2;" : "=r"(row[6]) : "r"(a), "r"(c & 63));
    asm("shl.b32 %0, %1, %2;" : "=r"(row[7]) : "r"(a), "r"(c & 63));
    uint64_t moved;
    asm("bfi.b64 %0, %1, %2, %3, %4;" : "=l"(moved) : "l"(wide), "l"(~wide), "r"(c & 63), "r"(c >> 8 & 63));
    row[8] = static_cast<uint32_t>(moved >> 32);
    row[9] = static_cast<uint32_t>(moved);
    asm("{ .reg .b16 h; cvt.u16.u32 h, %1; cvt.s32.s8 %0, h; }" : "=r"(row[10]) : "r"(a));
    asm("{ .reg .pred p; setp.lt.s16 p, %1, %2; selp.u32 %0, 7, 9, p; }"
        : "=r"(row[11])
        : "h"(static_cast<short>(a)), "h"(static_cast<short>(b)));
    const auto place = static_cast<uint32_t>(__cvta_generic_to_shared(word + threadIdx.x));
    asm volatile("st.shared.u32 [%0], %1;" ::"r"(place), "r"(c) : "memory");
    asm volatile("prefetch.global.L2 [%0];" ::"l"(in - 1000));
    asm volatile("{ .reg .pred p; setp.ne.u32 p, %2, 0; @p ld.shared.u32 %0, [%1]; @!p mov.u32 %0, 5; }"
                 : "=r"(row[12])
                 : "r"(place), "r"(a & 1)
                 : "memory");
    asm("red.shared.add.u32 [%0], 3;" ::"r"(place) : "memory");
    row[13] = word[threadIdx.x];
    asm("{ .reg .b16 l, h; mov.b32 {l, h}, %1; mov.b32 %0, {h, l}; }" : "=r"(row[14]) : "r"(a));
    asm("{ .reg .b32 l, h; mov.b64 {l, h}, %1; mov.b64 %0, {h, l}; }" : "=l"(moved) : "l"(wide));
    row[15] = static_cast<uint32_t>(moved >> 32);
    row[16] = static_cast<uint32_t>(moved);
}

// ---------------------------------------------------------------------------------------------------------------
// Mistakes. On a device these hang, trap or yield garbage; the machine reports each.

KERNEL wrong_divergent_barrier() {
    if (threadIdx.x < 16) __syncthreads();
    __syncwarp(threadIdx.x < 16 ? 0x0000FFFFu : 0xFFFF0000u);
    if (threadIdx.x >= 16) __ballot_sync(0xFFFFFFFFu, 1);
}

KERNEL wrong_barrier_after_return() {
    if (threadIdx.x == 40) return;
    __syncthreads();
}

KERNEL wrong_returned_lane() {
    if (threadIdx.x == 3) return;
    __ballot_sync(0xFFFFFFFFu, 1);
}

KERNEL wrong_mask_without_caller() {
    __ballot_sync(0x0000FFFFu, 1);
}

KERNEL wrong_masks_differ() {
    __ballot_sync(threadIdx.x == 0 ? 0xFFFFFFFFu : 0xFFFFFFFEu, 1);
    __syncwarp();
}

KERNEL wrong_shuffle_source(uint32_t* out) {
    if (threadIdx.x < 16) out[threadIdx.x] = __shfl_sync(0x0000FFFFu, threadIdx.x, 20);
}

KERNEL wrong_collectives_differ() {
    if (threadIdx.x < 16) {
        __syncwarp();
    } else {
        __ballot_sync(0xFFFFFFFFu, 1);
    }
}

KERNEL wrong_partial_warp(uint32_t* out) {
    out[threadIdx.x] = __ballot_sync(0xFFFFFFFFu, 1);
}

KERNEL wrong_alignment(const uint8_t* in, uint4* out) {
    out[threadIdx.x] = __ldg(reinterpret_cast<const uint4*>(in + 4));
}

KERNEL wrong_dynamic_shared_size() {
    extern __shared__ __align__(16) uint8_t dynamic[];
    dynamic[threadIdx.x] = 0;
}

KERNEL wrong_trap() {
    if (threadIdx.x == 2) __trap();
    __syncthreads();
}

KERNEL wrong_static_shared_index(uint32_t* out, uint32_t index) {
    __shared__ uint32_t words[32];
    words[threadIdx.x] = threadIdx.x;
    __syncthreads();
    const uint32_t* other = words + threadIdx.x / 2;
    out[threadIdx.x] = other[index];
}

KERNEL wrong_global_index(const uint32_t* in, uint32_t* out, uint32_t size) {
    out[threadIdx.x] = in[size - 31 + threadIdx.x];
}

KERNEL wrong_vector_address(const uint8_t* in, uint4* out) {
    out[threadIdx.x] = *reinterpret_cast<const uint4*>(in + 4);
}

KERNEL wrong_local_index(uint32_t* out, uint32_t index) {
    uint32_t words[4] = {1, 2, 3, 4};
    words[index & 1] = out[0];
    out[threadIdx.x] = words[index];
}

KERNEL wrong_generic_address(uint32_t* out) {
    __shared__ uint32_t words[32];
    uint32_t* place = out[0] == 0 ? words + 32 : out;
    *place = 1;
}

KERNEL wrong_unwritten_shared(uint32_t* out) {
    __shared__ uint8_t bytes[64];
    bytes[2 * threadIdx.x] = 1;
    __syncwarp();
    out[threadIdx.x] = *reinterpret_cast<uint16_t*>(bytes + 2 * threadIdx.x);
}

// The block before wrote it; its memory is another's.
KERNEL wrong_unwritten_in_second_block(uint32_t* out) {
    __shared__ volatile uint32_t word;
    if (blockIdx.x == 0) word = 1;
    out[blockIdx.x] = word;
}

KERNEL wrong_unwritten_global(const uint32_t* in, uint32_t* out) {
    out[threadIdx.x] = in[threadIdx.x] + 1;
}

KERNEL wrong_read_only(uint32_t* words, uint32_t* out) {
    words[threadIdx.x] = 1;
    asm volatile("ld.global.nc.u32 %0, [%1];" : "=r"(out[threadIdx.x]) : "l"(words + threadIdx.x) : "memory");
}

KERNEL wrong_race(uint32_t* out) {
    __shared__ volatile uint32_t word;  // or the compiler would leave it out
    if (threadIdx.x == 0) word = 42;
    out[threadIdx.x] = word;
}

// A shuffle waits, but orders no memory.
KERNEL wrong_race_at_shuffle(uint32_t* out) {
    __shared__ uint32_t words[32];
    words[threadIdx.x] = threadIdx.x;
    const uint32_t value = __shfl_xor_sync(0xFFFFFFFFu, threadIdx.x, 1);
    out[threadIdx.x] = value + words[threadIdx.x ^ 1];
}

KERNEL wrong_race_of_warps(uint32_t* out) {
    __shared__ uint32_t words[64];
    words[threadIdx.x ^ 32] = threadIdx.x;
    __syncthreads();
    words[threadIdx.x] += threadIdx.x;
    __syncwarp();
    out[threadIdx.x] = words[threadIdx.x ^ 32];
}

KERNEL wrong_race_of_lanes(uint32_t* out) {
    out[threadIdx.x / 2] = threadIdx.x;
}

// Read by all before the barrier, overwritten by one without a second.
KERNEL wrong_race_after_read(uint32_t* out) {
    __shared__ uint32_t word;
    if (threadIdx.x == 0) word = 1;
    __syncthreads();
    out[threadIdx.x] = word;
    if (threadIdx.x == 1) word = 2;
}

KERNEL wrong_race_with_atomic(uint32_t* out) {
    __shared__ uint32_t word;
    if (threadIdx.x == 0) word = 0;
    __syncthreads();
    atomicAdd(&word, 1u);
    out[threadIdx.x] = word;
}

KERNEL wrong_race_of_partial_barriers(uint32_t* out) {
    __shared__ uint32_t words[32];
    words[threadIdx.x] = threadIdx.x;
    __syncwarp(threadIdx.x < 16 ? 0x0000FFFFu : 0xFFFF0000u);
    out[threadIdx.x] = words[threadIdx.x ^ 16];
}

KERNEL wrong_race_of_blocks(uint32_t* out) {
    if (blockIdx.x == 0) out[threadIdx.x] = 1;
    if (blockIdx.x == 1) out[32 + threadIdx.x] = out[threadIdx.x];
}

KERNEL wrong_endless(const volatile uint32_t* in) {
    while (in[0] == 0) {
    }
}
