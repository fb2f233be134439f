// Kernels: BLAKE3 digests of regions of device memory. FORMAT.md, section 3, says what a digest covers.
//
//   blake3_groups  A CTA of 128 threads takes a group of 128 chunks of 1 KiB, 128 KiB of a region, and leaves one chaining
//                  value. A thread compresses the 16 blocks of its chunk; message and state stay in registers.
//   blake3_roots   A CTA takes a region of several groups, and pairs up their values to the digest.
//
// Loads: the blocks of a warp's 32 chunks lie 1 KiB apart, so 4 lanes fetch one of them, 16 bytes each: every sector of 32
// bytes is asked for once. The vectors pass through shared memory to the lane that compresses them; both sides of the passage
// use every bank once. A warp asks for the next blocks before it compresses these. All of that is for a region that starts at
// a multiple of 16; at other addresses, and in a warp that holds the end of its region, vectors are put together from words or
// bytes, and nothing is asked for ahead. No byte outside the region is read.
//
// Tree: pairing neighbours level by level, where an odd last value moves up as it is, builds the tree that BLAKE3 defines; and
// since a group is a power of two of chunks, the value of a group stands where the level of its size has it.
//
// Bytes moved: 1 read per byte of a region. Bound by arithmetic: 680 operations of 32 bits for 64 bytes, a sixteenth more
// for parents, and another sixteenth for lanes that idle on the upper levels of a group.
// CPU reference: kernels/cpu/blake3.cpp; the same compression function, kernels/shared/blake3.h.
#include "device.h"
#include "blake3_batch.h"

namespace dumont {
namespace {

constexpr uint32_t kValueWords = kBlake3Value / 4;
constexpr uint32_t kBlockVectors = kBlake3Block / 16;
constexpr uint32_t kBlocks = kBlake3Chunk / kBlake3Block;  // of a chunk
constexpr uint32_t kWarpVectors = kWarp * kBlockVectors;   // a block of each of a warp's chunks

struct ChunkRegion {
    const uint8_t* data;
    uint64_t size;
};

// Where vector `vector` of lane `row`'s block lies in the tile of its warp: eight lanes that each read a whole block, and eight
// lanes that write two blocks together, meet every bank once.
__device__ __forceinline__ uint32_t tile_place(uint32_t row, uint32_t vector) {
    return row * kBlockVectors + (vector ^ (row >> 1 & 3));
}

// The row whose block a lane fetches a vector of in turn `turn`.
__device__ __forceinline__ uint32_t fetched_row(uint32_t lane, uint32_t turn) {
    return turn * (kWarp / kBlockVectors) + lane / kBlockVectors;
}

// 16 bytes at `offset` of a region at any address; zeros after its end.
__device__ __forceinline__ uint4 load_vector(const ChunkRegion& region, uint64_t offset) {
    const uint8_t* at = region.data + offset;
    uint32_t words[4] = {};
    // load_unaligned reads whole aligned words: up to 3 bytes before `at`, and up to 20 bytes from there.
    if (offset != 0 && offset + 20 <= region.size) {
#pragma unroll
        for (uint32_t i = 0; i < 4; ++i) words[i] = load_unaligned(at + 4 * i);
    } else if (offset < region.size) {
        const uint64_t left = region.size - offset;
        const uint32_t bytes = left < 16 ? static_cast<uint32_t>(left) : 16;
        // From the last byte to the first, because a shift needs no index of a word: that would take local memory.
#pragma unroll 1
        for (uint32_t i = 16; i-- > 0;) {
            const uint32_t byte = i < bytes ? at[i] : 0;
            words[3] = __funnelshift_l(words[2], words[3], 8);
            words[2] = __funnelshift_l(words[1], words[2], 8);
            words[1] = __funnelshift_l(words[0], words[1], 8);
            words[0] = words[0] << 8 | byte;
        }
    }
    return {words[0], words[1], words[2], words[3]};
}

__device__ __forceinline__ void load_message(uint32_t* message, const uint4* tile, uint32_t lane) {
#pragma unroll
    for (uint32_t i = 0; i < kBlockVectors; ++i) {
        const uint4 vector = tile[tile_place(lane, i)];
        message[4 * i] = vector.x;
        message[4 * i + 1] = vector.y;
        message[4 * i + 2] = vector.z;
        message[4 * i + 3] = vector.w;
    }
}

// Bytes of the chunk of a lane where `left` bytes of the region lie before the end.
__device__ __forceinline__ uint32_t bytes_of_chunk(uint64_t left, uint32_t lane) {
    const uint64_t before = uint64_t{lane} * kBlake3Chunk;
    return before < left ? static_cast<uint32_t>(min(left - before, uint64_t{kBlake3Chunk})) : 0;
}

// Blocks of a chunk. If the first chunk of a warp has no bytes, it is that of an empty region, and has one block all the same.
__device__ __forceinline__ uint32_t blocks_of(uint32_t size, bool is_first) {
    return size == 0 ? is_first : (size + kBlake3Block - 1) / kBlake3Block;
}

// The number of the region that the CTA's group belongs to.
__device__ __forceinline__ uint64_t find_region(const Blake3Region* regions, uint64_t count, uint64_t group) {
    uint64_t low = 0;
    uint64_t high = count;
    while (high - low > 1) {
        const uint64_t middle = low + (high - low) / 2;
        if (regions[middle].first <= group) low = middle;
        else high = middle;
    }
    return low;
}

__device__ __forceinline__ void store_value(uint32_t* out, const uint32_t* value) {
    uint4* vectors = reinterpret_cast<uint4*>(out);
    vectors[0] = {value[0], value[1], value[2], value[3]};
    vectors[1] = {value[4], value[5], value[6], value[7]};
}

__device__ __forceinline__ void load_value(uint32_t* value, const uint32_t* from) {
    const uint4* vectors = reinterpret_cast<const uint4*>(from);
#pragma unroll
    for (uint32_t i = 0; i < 2; ++i) {
        const uint4 vector = vectors[i];
        value[4 * i] = vector.x;
        value[4 * i + 1] = vector.y;
        value[4 * i + 2] = vector.z;
        value[4 * i + 3] = vector.w;
    }
}

__device__ __forceinline__ void start_value(uint32_t* value) {
#pragma unroll
    for (uint32_t i = 0; i < kValueWords; ++i) value[i] = blake3_start(i);
}

// Replaces `count` values by the value over all of them, at `values`. For all threads of a CTA; the values are visible to them.
__device__ __forceinline__ void climb(uint32_t* values, uint32_t count, bool root) {
    while (count > 1) {
        const uint32_t pairs = count / 2;
        const uint32_t flags = root && count == 2 ? kParent | kRoot : kParent;
        for (uint32_t first = 0; first < pairs; first += blockDim.x) {
            const uint32_t pair = first + threadIdx.x;
            uint32_t value[kValueWords];
            if (pair < pairs) {
                uint32_t message[2 * kValueWords];
                load_value(message, values + 2 * kValueWords * pair);
                load_value(message + kValueWords, values + 2 * kValueWords * pair + kValueWords);
                start_value(value);
                blake3_compress<uint32_t>(value, message, {0, 0, kBlake3Block, flags});
            }
            __syncthreads();  // the parents take the places of values that others read
            if (pair < pairs) store_value(values + kValueWords * pair, value);
        }
        if (count % 2 != 0 && threadIdx.x == 0) {
            uint32_t value[kValueWords];
            load_value(value, values + kValueWords * (count - 1));
            store_value(values + kValueWords * pairs, value);
        }
        __syncthreads();
        count -= pairs;
    }
}

// Compresses the chunk of every lane, for all lanes of a warp whose first chunk is `chunk`.
__device__ __forceinline__ void compress_chunks(uint32_t* value, uint4* tile, const ChunkRegion& region, uint64_t chunk) {
    const uint32_t lane = threadIdx.x % kWarp;
    const uint64_t begin = chunk * kBlake3Chunk;
    const uint64_t warp_left = region.size - begin;
    const uint32_t size = bytes_of_chunk(warp_left, lane);
    const bool root = region.size <= kBlake3Chunk;
    const uint32_t first_blocks = blocks_of(bytes_of_chunk(warp_left, 0), true);  // the other chunks have no more
    const uint32_t blocks = blocks_of(size, lane == 0);
    const bool whole = warp_left >= kWarp * kBlake3Chunk && reinterpret_cast<uintptr_t>(region.data) % 16 == 0;
    const uint64_t number = chunk + lane;
    const uint64_t offset = begin + fetched_row(lane, 0) * kBlake3Chunk + lane % kBlockVectors * 16;
    constexpr uint32_t kTurn = kWarp / kBlockVectors * kBlake3Chunk;  // bytes between the vectors of two turns
    const uint4* next_at = reinterpret_cast<const uint4*>(region.data + offset);
    uint4 next[kBlockVectors] = {};
    if (whole) {
#pragma unroll
        for (uint32_t turn = 0; turn < kBlockVectors; ++turn) next[turn] = __ldg(next_at + turn * kTurn / 16);
    }
    start_value(value);
#pragma unroll 1
    for (uint32_t block = 0; block < first_blocks; ++block) {
        if (whole) {
#pragma unroll
            for (uint32_t turn = 0; turn < kBlockVectors; ++turn) {
                tile[tile_place(fetched_row(lane, turn), lane % kBlockVectors)] = next[turn];
            }
        } else {
#pragma unroll 1
            for (uint32_t turn = 0; turn < kBlockVectors; ++turn) {
                tile[tile_place(fetched_row(lane, turn), lane % kBlockVectors)] =
                    load_vector(region, offset + block * kBlake3Block + turn * kTurn);
            }
        }
        __syncwarp();
        uint32_t message[4 * kBlockVectors];
        load_message(message, tile, lane);
        __syncwarp();
        if (whole && block + 1 < kBlocks) {
            next_at += kBlockVectors;
#pragma unroll
            for (uint32_t turn = 0; turn < kBlockVectors; ++turn) next[turn] = __ldg(next_at + turn * kTurn / 16);
        }
        if (block < blocks) {
            const bool last = block + 1 == blocks;
            const uint32_t bytes = last ? size - block * kBlake3Block : kBlake3Block;
            const uint32_t flags = (block == 0 ? kChunkStart : 0u) | (last ? kChunkEnd : 0u) | (last && root ? kRoot : 0u);
            const Blake3Block<uint32_t> what = {static_cast<uint32_t>(number), static_cast<uint32_t>(number >> 32), bytes, flags};
            blake3_compress<uint32_t>(value, message, what);
        }
    }
}

}  // namespace
}  // namespace dumont

// grid: a CTA of 128 threads for each group of all regions
extern "C" __global__ void blake3_groups(const dumont::Blake3Batch* batches) {
    using namespace dumont;
    __shared__ uint4 tiles[kBlake3Group / kWarp * kWarpVectors];
    __shared__ uint4 shared_values[kBlake3Group * kBlake3Value / 16];
    uint32_t* values = reinterpret_cast<uint32_t*>(shared_values);
    const Blake3Batch batch = batches[0];
    const Blake3Region* regions = reinterpret_cast<const Blake3Region*>(static_cast<uintptr_t>(batch.regions));
    const Blake3Region region = regions[find_region(regions, batch.count, blockIdx.x)];
    const ChunkRegion chunks = {reinterpret_cast<const uint8_t*>(static_cast<uintptr_t>(region.data)), region.size};
    const uint64_t region_chunks = blake3_chunk_count(region.size);
    const uint64_t first = (blockIdx.x - region.first) * kBlake3Group;
    const uint32_t count = static_cast<uint32_t>(min(region_chunks - first, uint64_t{kBlake3Group}));
    const uint32_t warp = threadIdx.x / kWarp;
    if (warp * kWarp < count) {
        uint32_t value[kValueWords];
        compress_chunks(value, tiles + warp * kWarpVectors, chunks, first + warp * kWarp);
        store_value(values + kValueWords * threadIdx.x, value);
    }
    __syncthreads();
    const bool alone = region_chunks <= kBlake3Group;
    climb(values, count, alone);
    uint32_t* group_values = reinterpret_cast<uint32_t*>(static_cast<uintptr_t>(batch.values));
    uint32_t* digest = reinterpret_cast<uint32_t*>(static_cast<uintptr_t>(region.digest));
    uint32_t* out = alone ? digest : group_values + uint64_t{kValueWords} * blockIdx.x;
    if (threadIdx.x < kValueWords) out[threadIdx.x] = values[threadIdx.x];
}

// grid: a CTA of 256 threads for each region
extern "C" __global__ void blake3_roots(const dumont::Blake3Batch* batches) {
    using namespace dumont;
    const Blake3Batch batch = batches[0];
    const Blake3Region region = reinterpret_cast<const Blake3Region*>(static_cast<uintptr_t>(batch.regions))[blockIdx.x];
    const uint32_t groups = static_cast<uint32_t>(blake3_group_count(region.size));
    if (groups == 1) return;  // blake3_groups has written the digest
    uint32_t* values = reinterpret_cast<uint32_t*>(static_cast<uintptr_t>(batch.values)) + kValueWords * region.first;
    climb(values, groups, true);
    uint32_t* digest = reinterpret_cast<uint32_t*>(static_cast<uintptr_t>(region.digest));
    if (threadIdx.x < kValueWords) digest[threadIdx.x] = values[threadIdx.x];
}
