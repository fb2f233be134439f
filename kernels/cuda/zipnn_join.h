// Joins the planes of a stretch of elements to elements, with one warp. FORMAT.md, section 5.2; CPU reference:
// cpu/planes.cpp.
//
// One plane may lie decoded in shared memory (the tile). The others are raw in the encoded bytes, or constant, or were
// decoded before and lie in the output already, each byte in its element. A lane takes 16 bytes of output at a time, so
// that the warp's loads and stores are whole lines. For that the tile's first byte always belongs to an element whose
// address is a multiple of 16: before a stretch that starts elsewhere the tile has some bytes that stand for the
// elements before it, and mean nothing.
#pragma once

#include "huff0_table.h"

namespace dumont::decode {

constexpr uint32_t kVectorBytes = 16;    // of output that a lane stores at a time
constexpr uint32_t kNoPlane = kMaxPlanes;
constexpr uint32_t kSignBits = 0x80808080;

// Little of it takes registers of the decoder: the block is in shared memory, the memories are parameters of the
// kernel.
struct Join {
    const DeviceBlock* block;
    const uint8_t* source;
    uint8_t* output;
    const uint8_t* tile;
    uint32_t plane;    // that the tile holds, or kNoPlane
    int32_t element;   // that the tile starts with; less than 0 if it starts before the block
    uint32_t skipped;  // elements at the tile's start that are another's
};

__device__ __forceinline__ uint8_t* block_output(const Join& join) {
    return join.output + join.block->out;
}

__device__ __forceinline__ const uint8_t* plane_bytes(const Join& join, uint32_t plane) {
    return join.source + join.block->encoded + join.block->begin[plane];
}

// Elements below it are joined alike; the one that may follow keeps its sign.
template <uint32_t kPlanes>
__device__ __forceinline__ uint32_t alike_elements(const DeviceBlock& block) {
    return block.moves_sign ? block.size / 4 * 4 / kPlanes : block.size / kPlanes;
}

__device__ __forceinline__ bool is_rotated(const Join& join) {
    return join.block->moves_sign && join.plane + 1 == join.block->planes;
}

// Whether the elements' addresses are multiples of their size: if not, no 16 bytes of output are whole elements.
__device__ __forceinline__ bool fits_vectors(const Join& join) {
    return reinterpret_cast<uintptr_t>(block_output(join)) % join.block->planes == 0;
}

// Begins a stretch at `element`. Returns how many bytes the tile has before it.
__device__ __forceinline__ uint32_t begin_stretch(Join& join, uint32_t element) {
    const uint32_t planes = join.block->planes;
    const uintptr_t address = reinterpret_cast<uintptr_t>(block_output(join) + element * planes);
    join.skipped = fits_vectors(join) ? static_cast<uint32_t>(address % kVectorBytes) / planes : 0;
    join.element = static_cast<int32_t>(element - join.skipped);
    return join.skipped;
}

// ---------------------------------------------------------------------------------------------------------------
// Words of four bytes of one plane.

// Reads a raw plane from any address, out of the aligned words around it.
struct RawReader {
    const uint32_t* next;
    uint32_t shift;
};

__device__ __forceinline__ RawReader raw_reader(const uint8_t* bytes) {
    const uintptr_t address = reinterpret_cast<uintptr_t>(bytes);
    return {reinterpret_cast<const uint32_t*>(address & ~uintptr_t{3}), 8 * static_cast<uint32_t>(address & 3)};
}

template <uint32_t kWords>
__device__ __forceinline__ void read_raw(const RawReader& reader, uint32_t* words) {
    uint32_t low = __ldg(reader.next);
#pragma unroll
    for (uint32_t i = 0; i < kWords; ++i) {
        const uint32_t high = __ldg(reader.next + i + 1);
        words[i] = __funnelshift_r(low, high, reader.shift);
        low = high;
    }
}

template <uint32_t kWords>
__device__ __forceinline__ void read_tile(const uint8_t* tile, uint32_t* words) {
    if constexpr (kWords == 4) {
        const uint4 all = *reinterpret_cast<const uint4*>(tile);
        words[0] = all.x;
        words[1] = all.y;
        words[2] = all.z;
        words[3] = all.w;
    } else if constexpr (kWords == 2) {
        const uint2 all = *reinterpret_cast<const uint2*>(tile);
        words[0] = all.x;
        words[1] = all.y;
    } else {
        words[0] = *reinterpret_cast<const uint32_t*>(tile);
    }
}

// The bytes of one plane out of 16 bytes of elements.
template <uint32_t kPlanes>
__device__ __forceinline__ void take_plane(const uint4& elements, uint32_t plane, uint32_t* words) {
    if constexpr (kPlanes == 2) {
        const uint32_t odd_or_even = 0x6420 + 0x1111 * plane;
        words[0] = __byte_perm(elements.x, elements.y, odd_or_even);
        words[1] = __byte_perm(elements.z, elements.w, odd_or_even);
    } else if constexpr (kPlanes == 4) {
        const uint32_t of_two = 0x40 + 0x11 * plane;
        const uint32_t low = __byte_perm(elements.x, elements.y, of_two);
        const uint32_t high = __byte_perm(elements.z, elements.w, of_two);
        words[0] = __byte_perm(low, high, 0x5410);
    }
}

// ---------------------------------------------------------------------------------------------------------------
// Sixteen bytes of output.

// `word`: [plane][word of four bytes], signs restored.
template <uint32_t kPlanes, uint32_t kWords>
__device__ __forceinline__ uint4 interleave(const uint32_t (&word)[kPlanes][kWords]) {
    if constexpr (kPlanes == 1) {
        return make_uint4(word[0][0], word[0][1], word[0][2], word[0][3]);
    } else if constexpr (kPlanes == 2) {
        return make_uint4(__byte_perm(word[0][0], word[1][0], 0x5140), __byte_perm(word[0][0], word[1][0], 0x7362),
                          __byte_perm(word[0][1], word[1][1], 0x5140), __byte_perm(word[0][1], word[1][1], 0x7362));
    } else {
        const uint32_t low01 = __byte_perm(word[0][0], word[1][0], 0x5140);  // of elements 0 and 1
        const uint32_t low23 = __byte_perm(word[0][0], word[1][0], 0x7362);
        const uint32_t high01 = __byte_perm(word[2][0], word[3][0], 0x5140);
        const uint32_t high23 = __byte_perm(word[2][0], word[3][0], 0x7362);
        return make_uint4(__byte_perm(low01, high01, 0x5410), __byte_perm(low01, high01, 0x7632),
                          __byte_perm(low23, high23, 0x5410), __byte_perm(low23, high23, 0x7632));
    }
}

// The last plane, rotated, and the one below it exchange the highest bit of each byte, if `signs` selects them.
template <uint32_t kPlanes, uint32_t kWords>
__device__ __forceinline__ void restore_signs(uint32_t (&word)[kPlanes][kWords], uint32_t signs) {
    if constexpr (kPlanes > 1) {
#pragma unroll
        for (uint32_t i = 0; i < kWords; ++i) {
            const uint32_t low = word[kPlanes - 2][i];
            const uint32_t high = word[kPlanes - 1][i];
            word[kPlanes - 2][i] = (high & signs) | (low & ~signs);
            word[kPlanes - 1][i] = (high & ~signs) | (low & signs);
        }
    }
}

// Joins vectors [first, end), where vector 0 starts with the tile. `kPlain`: the tile has the last plane, and all
// others are raw, which is what weights are; without a branch in it the loop asks for the bytes of several vectors
// before it waits.
template <uint32_t kPlanes, bool kPlain>
__device__ __forceinline__ void join_vectors(const Join& join, uint32_t first, uint32_t end, uint32_t lane) {
    constexpr uint32_t kElements = kVectorBytes / kPlanes;
    constexpr uint32_t kWords = kElements / 4;
    const DeviceBlock& block = *join.block;
    const uint32_t signs = block.moves_sign ? kSignBits : 0;
    const uint32_t unrotated = is_rotated(join) ? 0 : signs;
    const int32_t element = join.element + static_cast<int32_t>((first + lane) * kElements);  // the lane's first
    RawReader reader[kPlanes];
    bool raw[kPlanes];
    uint32_t repeated[kPlanes];
#pragma unroll
    for (uint32_t plane = 0; plane < kPlanes; ++plane) {
        const uint8_t* bytes = plane_bytes(join, plane);
        reader[plane] = raw_reader(bytes + element);
        raw[plane] = kPlain ? plane != kPlanes - 1 : !((block.coded | block.constant) >> plane & 1);
        repeated[plane] = !kPlain && block.constant >> plane & 1 ? bytes[0] * 0x01010101u : 0;
    }
    const uint8_t* tile = join.tile + (first + lane) * kElements;
    uint4* to = reinterpret_cast<uint4*>(block_output(join) + static_cast<int64_t>(element) * kPlanes);
#pragma unroll(kPlain ? 4 : 1)
    for (uint32_t vector = first + lane; vector < end; vector += kWarp) {
        uint32_t word[kPlanes][kWords];
#pragma unroll
        for (uint32_t plane = 0; plane < kPlanes; ++plane) {
            if (kPlain ? plane == kPlanes - 1 : plane == join.plane) {
                read_tile<kWords>(tile, word[plane]);
            } else if (raw[plane]) {
                read_raw<kWords>(reader[plane], word[plane]);
            } else if (kPlanes > 1 && block.coded >> plane & 1) {
                take_plane<kPlanes>(*to, plane, word[plane]);
            } else {
#pragma unroll
                for (uint32_t i = 0; i < kWords; ++i) word[plane][i] = repeated[plane];
            }
            reader[plane].next += kWarp * kWords;
        }
        if (!kPlain && unrotated) {
#pragma unroll
            for (uint32_t i = 0; i < kWords; ++i) {
                const uint32_t high = word[kPlanes - 1][i];
                word[kPlanes - 1][i] = (high >> 1 & ~kSignBits) | (high << 7 & kSignBits);
            }
        }
        restore_signs(word, signs);
        __stcs(to, interleave(word));  // not read again by this kernel
        tile += kWarp * kElements;
        to += kWarp;
    }
}

// ---------------------------------------------------------------------------------------------------------------
// Single elements: where the output is not aligned, before the first whole vector and after the last.

template <uint32_t kPlanes>
__device__ __forceinline__ void join_element(const Join& join, uint32_t in_tile) {
    const DeviceBlock& block = *join.block;
    const uint32_t element = static_cast<uint32_t>(join.element) + in_tile;
    uint8_t* out = block_output(join) + element * kPlanes;
    uint32_t value = 0;
#pragma unroll
    for (uint32_t plane = 0; plane < kPlanes; ++plane) {
        const uint8_t* bytes = plane_bytes(join, plane);
        uint32_t byte;
        if (plane == join.plane) {
            byte = symbol_named(join.tile[in_tile], is_rotated(join));
        } else if (block.coded >> plane & 1) {
            byte = out[plane];
        } else {
            byte = bytes[block.constant >> plane & 1 ? 0 : element];
        }
        value |= byte << (8 * plane);
    }
    if (block.moves_sign && element < alike_elements<kPlanes>(block)) {
        value = kPlanes == 2 ? restore_sign16(static_cast<uint16_t>(value)) : restore_sign32(value);
    }
#pragma unroll
    for (uint32_t plane = 0; plane < kPlanes; ++plane) out[plane] = static_cast<uint8_t>(value >> (8 * plane));
}

// ---------------------------------------------------------------------------------------------------------------
// A stretch.

// Joins the `count` elements at the tile, of which the first may be another's: whole vectors, and if `all` the rest as
// well. Returns how many of them are done.
template <uint32_t kPlanes>
__device__ __forceinline__ uint32_t join_elements(Join& join, uint32_t count, bool all, uint32_t lane) {
    constexpr uint32_t kElements = kVectorBytes / kPlanes;
    const DeviceBlock& block = *join.block;
    const bool vectors = fits_vectors(join);
    const uint32_t alike = min(count, alike_elements<kPlanes>(block) - static_cast<uint32_t>(join.element));
    const uint32_t end = vectors ? alike / kElements : 0;
    const uint32_t first = min(end, join.skipped > 0 ? 1u : 0u);
    const bool plain = join.plane == kPlanes - 1 && block.coded == 1u << join.plane && block.constant == 0;
    if (plain) {
        join_vectors<kPlanes, true>(join, first, end, lane);
    } else {
        join_vectors<kPlanes, false>(join, first, end, lane);
    }
    const uint32_t done = all || !vectors ? count : kElements * end;
    const uint32_t head = first > 0 ? kElements - join.skipped : 0;  // elements before the first whole vector
    const uint32_t tail = max(kElements * end, join.skipped);
    const uint32_t loose = head + (max(done, tail) - tail);
    for (uint32_t i = lane; i < loose; i += kWarp) {
        join_element<kPlanes>(join, i < head ? join.skipped + i : tail + i - head);
    }
    join.element += static_cast<int32_t>(done);
    if (done > 0) join.skipped = 0;
    return done;
}

__device__ __forceinline__ uint32_t join_elements(Join& join, uint32_t count, bool all, uint32_t lane) {
    switch (join.block->planes) {
        case 1: return join_elements<1>(join, count, all, lane);
        case 2: return join_elements<2>(join, count, all, lane);
        default: return join_elements<4>(join, count, all, lane);
    }
}

// Moves the `rest` bytes behind the `done` ones to the tile's start: less than a vector's, so that a lane moves one.
__device__ __forceinline__ void keep_rest(uint8_t* tile, uint32_t done, uint32_t rest, uint32_t lane) {
    const uint8_t stays = lane < rest ? tile[done + lane] : 0;
    __syncwarp();
    if (lane < rest) tile[lane] = stays;
}

// Puts the tile's bytes where they belong in their elements, for the join of a later plane.
__device__ __forceinline__ void leave_plane(Join& join, uint32_t count, uint32_t lane) {
    const uint32_t planes = join.block->planes;
    uint8_t* out = block_output(join) + static_cast<uint32_t>(join.element) * planes + join.plane;
    for (uint32_t i = lane; i < count; i += kWarp) out[i * planes] = join.tile[i];
    join.element += static_cast<int32_t>(count);
}

// Asks for the raw bytes that the next round is joined with: 128 a lane.
__device__ __forceinline__ void prefetch_raw(const Join& join, uint32_t lane) {
    const DeviceBlock& block = *join.block;
#pragma unroll
    for (uint32_t plane = 0; plane < kMaxPlanes; ++plane) {
        const bool raw = plane < block.planes && !((block.coded | block.constant) >> plane & 1);
        if (raw) prefetch_far(plane_bytes(join, plane) + join.element + 128 * static_cast<int32_t>(lane));
    }
}

}  // namespace dumont::decode
