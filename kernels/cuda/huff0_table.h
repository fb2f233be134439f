// Builds the table that decodes up to four symbols at a lookup, with all threads of a CTA. CPU reference:
// cpu/decode_table.h.
//
// An entry of 8 bytes for each window of 11 bits: the symbols that lie wholly inside the window, and what `y` makes of
// the state of a decoder (zipnn_decode.cu, `advance`). Four because they are what a word holds: with bf16 exponents an
// entry has 3.7.
#pragma once

#include "huff0_tree.h"

namespace dumont::decode {

constexpr uint32_t kCells = 1u << kWindow;
constexpr uint32_t kEntrySymbols = 4;
constexpr uint32_t kCountAt = 29;  // bit of a decoder's state from which on symbols are counted
constexpr uint32_t kLengths = 16;  // more than kWindow: a lane for each length
constexpr uint32_t kCellsPerThread = kCells / kDecodeThreads;
constexpr uint32_t kLongestWholeRun = 7;  // bits: codes no longer than that own all cells of a thread, if any
static_assert(1u << (kWindow - kLongestWholeRun) == kCellsPerThread, "a thread's cells are those of one code");
constexpr uint32_t kBatch = 8;  // entries that a thread makes at a time, so that its loads overlap
static_assert(kCells % (kBatch * kDecodeThreads) == 0, "all threads have as many entries");

struct TableMemory {
    union {
        TreeMemory tree;     // what the table is made from
        uint2 entry[kCells];  // x: the symbols, the first lowest; y: bits of all | (8 - their number) << kCountAt
    };
    uint8_t length[256];        // code length of each symbol
    uint8_t named_length[256];  // the same, by what the table calls the symbol
    uint8_t order[256];         // names by place in the table: longest codes first, then by symbol
    uint16_t before[kGroups][kLengths];  // symbols of each length in the groups before
    uint16_t first_cell[kLengths];       // of each length
    uint16_t first_symbol[kLengths];     // likewise: in `order`
};

// What the table calls a symbol: where the sign moves, the symbols of the last plane rotated by a bit. Then the bit
// that belongs to the plane below lies where that plane keeps the sign, and joining swaps the two.
__device__ __forceinline__ uint32_t table_name(uint32_t symbol, bool rotated) {
    return rotated ? (symbol >> 1 | symbol << 7) & 255 : symbol;
}

__device__ __forceinline__ uint32_t symbol_named(uint32_t name, bool rotated) {
    return rotated ? (name << 1 | name >> 7) & 255 : name;
}

// Sorts the symbols by code length into `order`, and finds where each length begins in it and among the cells.
__device__ __forceinline__ void sort_symbols(TableMemory& memory, bool rotated) {
    const uint32_t lane = threadIdx.x % kWarp;
    const uint32_t warp = threadIdx.x / kWarp;
    constexpr uint32_t kOwn = kGroups / kStreams;  // groups of a warp
    uint32_t length[kOwn];
    uint32_t rank[kOwn];  // among the symbols of that length in the group
#pragma unroll
    for (uint32_t i = 0; i < kOwn; ++i) {
        const uint32_t group = kOwn * warp + i;
        uint32_t like = 0;     // lanes with a code as long as this lane's
        uint32_t of_lane = 0;  // lanes with a code of `lane` bits
        length[i] = memory.length[group * kWarp + lane];
        if (__any_sync(kAllLanes, length[i] != 0)) {
#pragma unroll
            for (uint32_t bits = 1; bits <= kWindow; ++bits) {
                const uint32_t owners = __ballot_sync(kAllLanes, length[i] == bits);
                if (length[i] == bits) like = owners;
                if (lane == bits) of_lane = owners;
            }
        }
        rank[i] = __popc(like & ((1u << lane) - 1));
        if (lane < kLengths) memory.before[group][lane] = static_cast<uint16_t>(__popc(of_lane));
    }
    __syncthreads();
    if (warp == 0) {  // a lane a length
        uint32_t symbols = 0;
#pragma unroll
        for (uint32_t group = 0; group < kGroups; ++group) {
            const uint32_t count = lane < kLengths ? memory.before[group][lane] : 0;
            if (lane < kLengths) memory.before[group][lane] = static_cast<uint16_t>(symbols);
            symbols += count;
        }
        // Of this length: symbols, and cells in the lower half.
        const uint32_t own = lane >= 1 && lane <= kWindow ? symbols << 16 | symbols << (kWindow - lane) : 0;
        uint32_t sum = own;
#pragma unroll
        for (uint32_t step = 1; step < kLengths; step *= 2) {
            const uint32_t other = __shfl_down_sync(kAllLanes, sum, step);
            if (lane + step < kWarp) sum += other;
        }
        if (lane < kLengths) memory.first_cell[lane] = static_cast<uint16_t>(sum - own);
        if (lane < kLengths) memory.first_symbol[lane] = static_cast<uint16_t>((sum - own) >> 16);
    }
    __syncthreads();
#pragma unroll
    for (uint32_t i = 0; i < kOwn; ++i) {
        const uint32_t group = kOwn * warp + i;
        const uint32_t name = table_name(group * kWarp + lane, rotated);
        memory.named_length[name] = static_cast<uint8_t>(length[i]);
        if (length[i] == 0) continue;
        const uint32_t place = memory.first_symbol[length[i]] + memory.before[group][length[i]] + rank[i];
        memory.order[place] = static_cast<uint8_t>(name);
    }
    __syncthreads();
}

// The first symbol of each window | its bits << 8.
__device__ __forceinline__ void fill_cells(const TableMemory& memory, uint16_t* cells) {
    const uint32_t first = kCellsPerThread * threadIdx.x;
    uint32_t bits = kWindow;
#pragma unroll
    for (uint32_t shorter = kWindow - 1; shorter > 0; --shorter) {
        if (first >= memory.first_cell[shorter]) bits = shorter;
    }
    uint32_t begin = memory.first_cell[bits];
    uint32_t place = memory.first_symbol[bits];
    if (bits <= kLongestWholeRun) {
        const uint32_t two = (memory.order[place + ((first - begin) >> (kWindow - bits))] | bits << 8) * 0x10001u;
        uint4* all = reinterpret_cast<uint4*>(cells + first);
        all[0] = all[1] = make_uint4(two, two, two, two);
    } else {
        uint32_t next = memory.first_cell[bits - 1];
        for (uint32_t cell = first; cell < first + kCellsPerThread; ++cell) {
            for (; cell >= next && bits > 1; place = memory.first_symbol[bits]) {
                begin = next;
                next = memory.first_cell[--bits - 1];
            }
            cells[cell] = static_cast<uint16_t>(memory.order[place + ((cell - begin) >> (kWindow - bits))] | bits << 8);
        }
    }
    __syncthreads();
}

__device__ __forceinline__ void fill_entries(TableMemory& memory, const uint16_t* cells) {
#pragma unroll 1
    for (uint32_t from = threadIdx.x; from < kCells; from += kBatch * kDecodeThreads) {
        uint32_t symbols[kBatch] = {};
        uint32_t used[kBatch] = {};  // the entry's y
        uint32_t cell[kBatch];
#pragma unroll
        for (uint32_t step = 0; step < kEntrySymbols; ++step) {
#pragma unroll
            for (uint32_t i = 0; i < kBatch; ++i) {
                cell[i] = cells[(from + i * kDecodeThreads) << (used[i] & 31) & (kCells - 1)];
            }
#pragma unroll
            for (uint32_t i = 0; i < kBatch; ++i) {
                // A symbol that does not fit ends the entry, for each further step meets it again.
                const bool fits = (used[i] & 31) + (cell[i] >> 8) <= kWindow;
                symbols[i] |= fits ? (cell[i] & 255) << 8 * step : 0;
                used[i] += fits ? (cell[i] >> 8) - (1u << kCountAt) : 0;
            }
        }
#pragma unroll
        for (uint32_t i = 0; i < kBatch; ++i) memory.entry[from + i * kDecodeThreads] = make_uint2(symbols[i], used[i]);
    }
    __syncthreads();
}

// Called by all threads after a barrier behind which memory.length is filled. `cells`: 4 KiB of scratch.
__device__ __forceinline__ void build_table(TableMemory& memory, uint16_t* cells, bool rotated) {
    sort_symbols(memory, rotated);
    fill_cells(memory, cells);
    fill_entries(memory, cells);
}

}  // namespace dumont::decode
