// The code of a plane and its description, by a warp: to the byte what huffman_code.h and tree_description.h choose and write
// on the host. FORMAT.md, section 5.2; CPU reference: choose_lengths, assign_codes, write_tree.
//
// A lane has symbols lane, lane + 32, ... in its registers. Ranking is counting: a symbol's rank is how many keys are smaller.
// Single lanes do three things only: merge the nodes (some 66 cycles of latency for each symbol that occurs), write the counts
// of the description (12 at most), and follow the two chains of FSE states (a lane each, some 75 cycles for two weights).
#pragma once

#include "tree_description.h"
#include "warp.h"

namespace dumont {

constexpr uint32_t kGroups = 256 / kWarp;  // of symbols, one to a lane
constexpr uint32_t kTreeWords = 56;        // 12 bytes of counts, 255 weights of 6 bits, the two states

// Scratch in shared memory, first of choose_code, then of describe_code.
struct ChoiceMemory {
    alignas(16) uint32_t keys[256 + 4];  // count << 8 | symbol, of those that occur; kNoNode behind them
    MergeWorkspace merge;
    uint8_t rank[256];
};

// How a weight changes an FSE state: it takes (state + bits) >> 16 bits, and the next is next[first + (state >> those bits)].
struct FseStep {
    uint32_t bits;
    uint32_t first;
};

struct DescriptionMemory {
    alignas(16) uint16_t pieces[256];  // of the bit stream: value | bits << 8
    uint32_t words[kTreeWords];        // result: the bytes of the description
    FseStep steps[kWeightValues];
    FseCounts counts;
    uint8_t weights[256];
    uint8_t cells[1 << kMaxFseLog];  // the weight of each
    uint8_t next[1 << kMaxFseLog];   // states, by weight
};

union CodeMemory {
    ChoiceMemory choice;
    DescriptionMemory description;
};

// A code as a warp knows it.
struct WarpCode {
    uint32_t length[kGroups];  // of this lane's symbols; 0: does not occur
    uint32_t of_length;        // how many codes have as many bits as the lane's number
    uint32_t table_log;
    uint32_t symbols;      // that occur
    uint32_t last_symbol;  // the largest of them
    uint32_t payload_bits;
};

__device__ __forceinline__ uint32_t lanes_before(uint32_t lane) {
    return (1u << lane) - 1;
}

// Sorts the symbols that occur by count, then by value, into the leaves of the tree; returns their number.
__device__ __forceinline__ uint32_t rank_together(const uint32_t* counts, ChoiceMemory& memory, uint32_t lane) {
    uint32_t symbols = 0;
#pragma unroll
    for (uint32_t group = 0; group < kGroups; ++group) {
        const uint32_t symbol = group * kWarp + lane;
        const uint32_t count = counts[symbol];
        const uint32_t occur = __ballot_sync(kAllLanes, count != 0);
        if (count != 0) memory.keys[symbols + __popc(occur & lanes_before(lane))] = count << 8 | symbol;
        symbols += __popc(occur);
    }
    if (lane < 4) memory.keys[symbols + lane] = kNoNode;
    __syncwarp();
#pragma unroll 1
    for (uint32_t base = 0; base < symbols; base += kWarp) {
        const uint32_t mine = base + lane < symbols ? memory.keys[base + lane] : kNoNode;
        uint32_t rank = 0;
        for (uint32_t i = 0; i < symbols; i += 4) {
            const uint4 other = *reinterpret_cast<const uint4*>(memory.keys + i);
            rank += (other.x < mine) + (other.y < mine) + (other.z < mine) + (other.w < mine);
        }
        if (mine != kNoNode) {
            memory.merge.leaf[rank] = mine >> 8;
            memory.rank[mine & 255] = static_cast<uint8_t>(rank);
        }
    }
    if (lane < 2) memory.merge.leaf[symbols + lane] = kNoNode;
#pragma unroll 1
    for (uint32_t i = lane; i <= symbols; i += kWarp) memory.merge.inner[i] = kNoNode;
    __syncwarp();
    return symbols;
}

// The counterpart of choose_lengths.
__device__ __forceinline__ void choose_code(const uint32_t* counts, ChoiceMemory& memory, WarpCode& code, uint32_t lane) {
    code.symbols = rank_together(counts, memory, lane);
    if (lane == 0) {
        merge_nodes(code.symbols, memory.merge);
        count_lengths(code.symbols, memory.merge);
        repair_lengths(memory.merge);
    }
    __syncwarp();
    code.of_length = lane <= kMaxWrittenLength ? memory.merge.of_length[lane] : 0;
    code.table_log = highest_bit(__ballot_sync(kAllLanes, code.of_length != 0));
    uint32_t rank[kGroups];
#pragma unroll
    for (uint32_t group = 0; group < kGroups; ++group) {
        const uint32_t symbol = group * kWarp + lane;
        rank[group] = counts[symbol] != 0 ? memory.rank[symbol] : kNoNode;
        code.length[group] = 0;
    }
    uint32_t as_long = 0;  // codes of at least `length` bits: the rarest symbols have them
#pragma unroll 1
    for (uint32_t length = kMaxWrittenLength; length > 0; --length) {
        as_long += __shfl_sync(kAllLanes, code.of_length, static_cast<int>(length));
#pragma unroll
        for (uint32_t group = 0; group < kGroups; ++group) code.length[group] += rank[group] < as_long;
    }
    uint32_t bits = 0;
    code.last_symbol = 0;
#pragma unroll
    for (uint32_t group = 0; group < kGroups; ++group) {
        bits += counts[group * kWarp + lane] * code.length[group];
        const uint32_t occur = __ballot_sync(kAllLanes, code.length[group] != 0);
        if (occur != 0) code.last_symbol = group * kWarp + highest_bit(occur);
    }
    code.payload_bits = warp_sum(bits);
}

// The counterpart of assign_codes: a code in the highest bits, its length in the lowest, as zipnn_write joins them.
__device__ __forceinline__ void assign_codes(const WarpCode& code, uint32_t* codes, uint32_t lane) {
    uint32_t mine[kGroups] = {};
    uint32_t cell = 0;
#pragma unroll 1
    for (uint32_t bits = code.table_log; bits > 0; --bits) {
        uint32_t next = cell >> (code.table_log - bits);
#pragma unroll
        for (uint32_t group = 0; group < kGroups; ++group) {
            const bool has = code.length[group] == bits;
            const uint32_t owners = __ballot_sync(kAllLanes, has);
            if (has) mine[group] = (next + __popc(owners & lanes_before(lane))) << (32 - bits) | bits;
            next += __popc(owners);
        }
        cell = next << (code.table_log - bits);
    }
#pragma unroll
    for (uint32_t group = 0; group < kGroups; ++group) codes[group * kWarp + lane] = mine[group];
}

// ---------------------------------------------------------------------------------------------------------------
// The description.

// The counterpart of normalise: the cells of the weight that is the lane's number, 0 in lanes that are no weight.
__device__ __forceinline__ uint32_t share_cells(uint32_t occurrences, uint32_t count, DescriptionMemory& memory,
                                                uint32_t lane) {
    constexpr uint32_t kCells = 1u << kMaxFseLog;
    uint32_t cells = lane < kWeightValues ? static_cast<uint32_t>(fse_share(occurrences, count)) : 0;
    const uint32_t left = kCells - warp_sum(cells);
    const uint32_t most = warp_max(lane < kWeightValues ? occurrences << 4 | (15 - lane) : 0);  // the first of those alike
    const uint32_t commonest = 15 - (most & 15);
    if (lane == commonest) cells += left;
    if (__any_sync(kAllLanes, cells == kCells)) {  // one weight only: gives one cell away, as normalise says
        if (lane == commonest) cells = kCells - 1;
        if (lane == (commonest == 0 ? 1u : 0u)) cells = 1;
    }
    if (lane <= kWeightValues) memory.counts.count[lane] = static_cast<int8_t>(cells);
    if (lane == 0) memory.counts.log = kMaxFseLog;
    return cells;
}

// The counterpart of spread_fse_symbols and of append_weights's table: the states of each weight, ascending, side by side.
__device__ __forceinline__ void build_steps(uint32_t cells, DescriptionMemory& memory, uint32_t lane) {
    constexpr uint32_t kCells = 1u << kMaxFseLog;
    constexpr uint32_t kStep = (kCells >> 1) + (kCells >> 3) + 3;
    static_assert(kCells == 2 * kWarp, "a lane has two cells");
    const uint32_t end = warp_prefix_sum(cells, lane);
    uint32_t weight[2] = {0, 0};  // of the cells that are numbers lane and lane + 32 to be given away
#pragma unroll 1
    for (uint32_t w = 0; w + 1 < kWeightValues; ++w) {
        const uint32_t end_of_weight = __shfl_sync(kAllLanes, end, static_cast<int>(w));
        weight[0] += lane >= end_of_weight;
        weight[1] += lane + kWarp >= end_of_weight;
    }
    memory.cells[lane * kStep % kCells] = static_cast<uint8_t>(weight[0]);
    memory.cells[(lane + kWarp) * kStep % kCells] = static_cast<uint8_t>(weight[1]);
    if (cells != 0) {
        const uint32_t most = kMaxFseLog - highest_bit(cells);  // bits that it takes, or one less
        memory.steps[lane] = {(most << 16) - (cells << most), end - 2 * cells};
    }
    __syncwarp();
    weight[0] = memory.cells[lane];
    weight[1] = memory.cells[lane + kWarp];
    uint32_t given = 0;
#pragma unroll 1
    for (uint32_t w = 0; w < kWeightValues; ++w) {
        const uint32_t first = __ballot_sync(kAllLanes, weight[0] == w);
        const uint32_t second = __ballot_sync(kAllLanes, weight[1] == w);
        if (weight[0] == w) {
            memory.next[given + __popc(first & lanes_before(lane))] = static_cast<uint8_t>(kCells + lane);
        }
        given += __popc(first);
        if (weight[1] == w) {
            memory.next[given + __popc(second & lanes_before(lane))] = static_cast<uint8_t>(kCells + kWarp + lane);
        }
        given += __popc(second);
    }
    __syncwarp();
}

// The counterpart of append_weights: the pieces of the bit stream in their order. Lanes 0 and 1 have a state each.
__device__ __forceinline__ void encode_weights(uint32_t count, DescriptionMemory& memory, uint32_t lane) {
#pragma unroll 1
    for (uint32_t i = count + 1 + lane; i < 256; i += kWarp) memory.pieces[i] = 0;
    if (lane < 2) {
        const uint32_t last = count - 1 - ((count - 1 - lane) & 1);  // its last weight starts in that weight's first cell
        const uint32_t last_weight = memory.weights[last];
        uint32_t state = memory.next[memory.steps[last_weight].first + static_cast<uint32_t>(memory.counts.count[last_weight])];
        FseStep ahead = last >= 2 ? memory.steps[memory.weights[last - 2]] : FseStep{};  // does not wait for the state
#pragma unroll 1
        for (uint32_t i = last; i >= 2; i -= 2) {
            const FseStep step = ahead;
            if (i >= 4) ahead = memory.steps[memory.weights[i - 4]];
            const uint32_t bits = (state + step.bits) >> 16;
            memory.pieces[count - 1 - i] = static_cast<uint16_t>((state & ((1u << bits) - 1)) | bits << 8);
            state = memory.next[step.first + (state >> bits)];
        }
        constexpr uint32_t kMask = (1u << kMaxFseLog) - 1;
        memory.pieces[count - 1 - lane] = static_cast<uint16_t>((state & kMask) | kMaxFseLog << 8);
        if (lane == 0) memory.pieces[count] = 1 | 1 << 8;  // the end mark
    }
    __syncwarp();
}

// Puts the pieces behind `bytes` bytes of the description; returns its size.
__device__ __forceinline__ uint32_t join_pieces(uint32_t bytes, DescriptionMemory& memory, uint32_t lane) {
    const uint4 loaded = reinterpret_cast<const uint4*>(memory.pieces)[lane];
    const uint32_t pairs[4] = {loaded.x, loaded.y, loaded.z, loaded.w};
    uint64_t joined = 0;
    uint32_t bits = 0;
#pragma unroll
    for (uint32_t i = 0; i < 8; ++i) {
        const uint32_t piece = pairs[i / 2] >> (16 * (i % 2));
        joined |= static_cast<uint64_t>(piece & 255) << bits;
        bits += piece >> 8 & 255;
    }
    const uint32_t end = warp_prefix_sum(bits, lane);
    const uint32_t position = 8 * bytes + end - bits;
    const uint32_t shift = position & 31;
    const uint32_t low = static_cast<uint32_t>(joined);
    const uint32_t high = static_cast<uint32_t>(joined >> 32);
    uint32_t* word = memory.words + position / 32;
    if (bits != 0) {
        atomicOr(word, low << shift);
        atomicOr(word + 1, __funnelshift_l(low, high, shift));
        atomicOr(word + 2, __funnelshift_l(high, 0, shift));
    }
    __syncwarp();
    return bytes + (__shfl_sync(kAllLanes, end, kWarp - 1) + 7) / 8;
}

// The counterpart of write_fse_weights, header byte included; 0 if the weights do not fit.
__device__ __forceinline__ uint32_t describe_with_fse(uint32_t occurrences, uint32_t count, DescriptionMemory& memory,
                                                      uint32_t lane) {
    const uint32_t cells = share_cells(occurrences, count, memory, lane);
#pragma unroll 1
    for (uint32_t i = lane; i < kTreeWords; i += kWarp) memory.words[i] = 0;
    __syncwarp();
    uint32_t bytes = 1;
    if (lane == 0) {
        BitWriter writer = {reinterpret_cast<uint8_t*>(memory.words) + 1, kMaxFseSize, 0, 0, 0};
        append_counts(writer, memory.counts);
        bytes += close_byte(writer);
    }
    bytes = __shfl_sync(kAllLanes, bytes, 0);
    build_steps(cells, memory, lane);
    encode_weights(count, memory, lane);
    const uint32_t size = join_pieces(bytes, memory, lane);
    if (lane == 0) *reinterpret_cast<uint8_t*>(memory.words) = static_cast<uint8_t>(size - 1);
    return size - 1 <= kMaxFseSize ? size : 0;
}

// The counterpart of write_tree: the description in `memory.words`; returns its size, or 0 if this code cannot be described.
__device__ __forceinline__ uint32_t describe_code(const WarpCode& code, DescriptionMemory& memory, uint32_t lane) {
    const uint32_t count = code.last_symbol;  // the last symbol's weight is implied
#pragma unroll
    for (uint32_t group = 0; group < kGroups; ++group) {
        const uint32_t length = code.length[group];
        memory.weights[group * kWarp + lane] = static_cast<uint8_t>(length == 0 ? 0 : code.table_log + 1 - length);
    }
    __syncwarp();
    const int length = static_cast<int>(code.table_log + 1 - lane);  // of the codes whose weight is the lane's number
    uint32_t occurrences = __shfl_sync(kAllLanes, code.of_length, length);
    if (lane > code.table_log) occurrences = 0;
    if (lane == 0) occurrences = count + 1 - code.symbols;
    if (lane == memory.weights[count]) --occurrences;
    const uint32_t fse = count >= 2 ? describe_with_fse(occurrences, count, memory, lane) : 0;
    const uint32_t direct = 1 + (count + 1) / 2;
    __syncwarp();
    if (fse != 0 && (fse < direct || count > kMaxDirectWeights)) return fse;
    if (count > kMaxDirectWeights) return 0;
    uint8_t* out = reinterpret_cast<uint8_t*>(memory.words);
#pragma unroll 1
    for (uint32_t i = lane; i < direct - 1; i += kWarp) {
        const uint32_t second = 2 * i + 1 < count ? memory.weights[2 * i + 1] : 0;
        out[1 + i] = static_cast<uint8_t>(memory.weights[2 * i] << 4 | second);
    }
    if (lane == 0) out[0] = static_cast<uint8_t>(kFirstDirectHeader + count - 1);
    __syncwarp();
    return direct;
}

}  // namespace dumont
