// Reads the description of a Huffman code, with one warp. FORMAT: huff0.h, whose parse_tree is the reference: what that
// refuses is refused here, for the same reasons.
//
// What is serial (the counts of the FSE table, the weights) is lane 0's; the others take part in all that comes before
// and after. A lane that read a byte of global memory for each weight would take longer than the whole block's symbols:
// so the description is staged in shared memory, and lane 0 reads bits from there by word.
#pragma once

#include "device.h"
#include "zipnn_blocks.h"

namespace dumont::decode {

constexpr uint32_t kGroups = 256 / kWarp;       // of symbols, one to a lane
constexpr uint32_t kDescriptionWords = 34;      // 128 bytes, and what a window may read after them
constexpr uint32_t kWindow = 11;                // bits that select a table entry: the longest code that packers write

struct TreeMemory {
    uint32_t description[kDescriptionWords];  // zeros after its end
    uint32_t fse[1u << kMaxFseLog];           // weight | bits << 8 | base << 16
    uint8_t owner[1u << kMaxFseLog];          // weight of the n-th cell that the spread visits
    uint8_t cells[1u << kMaxFseLog];
    uint8_t weights[kMaxExplicitWeights + 1];
};

struct FseHeader {
    uint32_t log;
    uint32_t size;  // bytes
    uint32_t high;  // cells below it are spread, the others have one weight each
    bool good;
};

// Bytes of the description that starts with `header`.
__device__ __forceinline__ uint32_t tree_size(uint32_t header) {
    return header < kFirstDirectHeader ? 1 + header : 1 + (header - kFirstDirectHeader + 2) / 2;
}

// The `count` bits from `position` on, counted from the start of the description, whose first byte is the header.
__device__ __forceinline__ uint32_t peek_description(const TreeMemory& memory, uint32_t position, uint32_t count) {
    const uint32_t word = min(position >> 5, kDescriptionWords - 2);
    return __funnelshift_r(memory.description[word], memory.description[word + 1], position) & ((1u << count) - 1);
}

// As parse_fse_counts, but the cells of a weight are listed instead of counted. Called by lane 0; `size`: bytes after
// the header byte.
__device__ __forceinline__ FseHeader read_fse_header(TreeMemory& memory, uint32_t size) {
    FseHeader header = {};
    header.log = (memory.description[0] >> 8 & 15u) + kMinFseLog;
    if (size == 0 || header.log > kMaxFseLog) return header;
    uint32_t position = 12;
    uint32_t symbols = 0;
    uint32_t owned = 0;
    uint32_t width = header.log + 1;
    int32_t threshold = 1 << header.log;
    int32_t remaining = threshold + 1;
    header.high = 1u << header.log;
    while (remaining > 1) {
        const int32_t shorter = 2 * threshold - 1 - remaining;
        const uint32_t wide = peek_description(memory, position, width);
        int32_t value = static_cast<int32_t>(wide & ((1u << (width - 1)) - 1));
        position += width - 1;
        if (value >= shorter) {
            value = static_cast<int32_t>(wide);
            if (value >= threshold) value -= shorter;
            ++position;
        }
        const int32_t count = value - 1;
        remaining -= count < 0 ? 1 : count;
        if (remaining < 1 || symbols >= 256) return header;
        if (count < 0) memory.cells[--header.high] = static_cast<uint8_t>(symbols);
        for (int32_t i = 0; i < count; ++i) memory.owner[owned++] = static_cast<uint8_t>(symbols);
        ++symbols;
        for (; remaining < threshold; threshold >>= 1) --width;
        if (count != 0 || remaining <= 1) continue;
        for (uint32_t repeat = 3; repeat == 3; symbols += repeat) {  // 2-bit run lengths of further absent weights
            repeat = peek_description(memory, position, 2);
            position += 2;
            if (symbols + repeat > 256 || position > 8 * (1 + size)) return header;
        }
    }
    header.size = (position + 7) / 8 - 1;
    header.good = header.size <= size;
    return header;
}

// As build_fse_table, by the whole warp: a lane has cells `lane` and `lane` + 32. The spread always visits every cell,
// so that there is nothing to refuse.
__device__ __forceinline__ void build_fse(TreeMemory& memory, uint32_t log, uint32_t high, uint32_t lane) {
    const uint32_t size = 1u << log;
    const uint32_t step = (size >> 1) + (size >> 3) + 3;
    const uint32_t below = (1u << lane) - 1;
    uint32_t visited = 0;
    for (uint32_t turn = lane; turn < 2 * kWarp; turn += kWarp) {
        const uint32_t cell = turn * step & (size - 1);
        const bool taken = turn < size && cell < high;
        const uint32_t takers = __ballot_sync(kAllLanes, taken);
        if (taken) memory.cells[cell] = memory.owner[visited + __popc(takers & below)];
        visited += __popc(takers);
    }
    __syncwarp();
    const bool two = size > kWarp;
    const uint32_t weight0 = memory.cells[lane];
    const uint32_t weight1 = two ? memory.cells[kWarp + lane] : 256u;
    uint32_t number0 = 0;  // the count of the weight's cells + how many of them lie before
    uint32_t number1 = 0;
    uint32_t open0 = kAllLanes;
    uint32_t open1 = two ? kAllLanes : 0;
    while ((open0 | open1) != 0) {  // a turn for each weight that occurs
        const int owner = __ffs(static_cast<int>(open0 != 0 ? open0 : open1)) - 1;
        const uint32_t weight = __shfl_sync(kAllLanes, open0 != 0 ? weight0 : weight1, owner);
        const uint32_t same0 = __ballot_sync(kAllLanes, weight0 == weight);
        const uint32_t same1 = __ballot_sync(kAllLanes, weight1 == weight);
        const uint32_t all = __popc(same0) + __popc(same1);
        if (weight0 == weight) number0 = all + __popc(same0 & below);
        if (weight1 == weight) number1 = all + __popc(same0) + __popc(same1 & below);
        open0 &= ~same0;
        open1 &= ~same1;
    }
    const uint32_t bits0 = log - highest_bit(number0);
    memory.fse[lane] = weight0 | bits0 << 8 | ((number0 << bits0) - size) << 16;
    if (two) {
        const uint32_t bits1 = log - highest_bit(number1);
        memory.fse[kWarp + lane] = weight1 | bits1 << 8 | ((number1 << bits1) - size) << 16;
    }
    __syncwarp();
}

// As the end of parse_fse_weights: two interleaved states, until the bits run out. Called by lane 0. Returns the number
// of weights, 0 if they are damaged.
__device__ __forceinline__ uint32_t read_fse_weights(TreeMemory& memory, const FseHeader& header, uint32_t size) {
    const uint32_t last = reinterpret_cast<const uint8_t*>(memory.description)[size];
    if (header.size >= size || last == 0) return 0;
    uint32_t position = 8 * size + highest_bit(last) - header.log;  // the bit above the next one
    uint32_t state0 = peek_description(memory, position, header.log);
    position -= header.log;
    uint32_t state1 = peek_description(memory, position, header.log);
    int32_t left = static_cast<int32_t>(position - 8 * (1 + header.size));
    if (left < 0) return 0;
    for (uint32_t n = 0; n + 2 <= kMaxExplicitWeights; n += 2) {
        const uint32_t cell0 = memory.fse[state0];
        const uint32_t cell1 = memory.fse[state1];
        // Two states take 12 bits at most; the two headers, which lie below, have 16.
        const uint32_t from = position - 16;
        const uint32_t word = from >> 5;
        const uint32_t window = __funnelshift_r(memory.description[word], memory.description[word + 1], from) << 16;
        const uint32_t bits0 = cell0 >> 8 & 255;
        const uint32_t bits1 = cell1 >> 8 & 255;
        memory.weights[n] = static_cast<uint8_t>(cell0);
        memory.weights[n + 1] = static_cast<uint8_t>(cell1);
        left -= static_cast<int32_t>(bits0);
        if (left < 0) return n + 2;
        state0 = (cell0 >> 16) + __funnelshift_l(window, 0, bits0);
        left -= static_cast<int32_t>(bits1);
        if (left < 0) {
            memory.weights[n + 2] = static_cast<uint8_t>(memory.fse[state0]);
            return n + 3;
        }
        state1 = (cell1 >> 16) + __funnelshift_l(window << bits0, 0, bits1);
        position -= bits0 + bits1;
    }
    return 0;
}

// Copies the description into shared memory, with zeros after it. `size` bytes of it lie in the block.
__device__ __forceinline__ void stage_description(TreeMemory& memory, const uint8_t* description, uint32_t size,
                                                  uint32_t lane) {
    const uint32_t rest = size - min(size, 4 * lane);
    uint32_t word = rest > 0 ? load_unaligned(description + 4 * lane) : 0;
    if (rest < 4) word &= (1u << 8 * rest) - 1;
    memory.description[lane] = word;
    if (lane < kDescriptionWords - kWarp) memory.description[kWarp + lane] = 0;
    __syncwarp();
}

// Fills memory.weights, of which each lane may read every 32nd from its own on; returns their number in each lane, 0 if
// they are damaged.
__device__ __forceinline__ uint32_t read_weights(TreeMemory& memory, uint32_t lane) {
    const uint8_t* bytes = reinterpret_cast<const uint8_t*>(memory.description);
    const uint32_t header = bytes[0];
    if (header >= kFirstDirectHeader) {
        const uint32_t count = header - kFirstDirectHeader + 1;
        for (uint32_t i = lane; i < count; i += kWarp) {
            memory.weights[i] = bytes[1 + i / 2] >> (i % 2 == 0 ? 4 : 0) & 15;
        }
        return count;
    }
    FseHeader fse = {};
    if (lane == 0) fse = read_fse_header(memory, header);
    __syncwarp();
    const uint32_t found = __shfl_sync(kAllLanes, fse.good ? fse.log | fse.high << 8 : 0, 0);
    if (found == 0) return 0;
    build_fse(memory, found & 255, found >> 8, lane);
    uint32_t count = 0;
    if (lane == 0) count = read_fse_weights(memory, fse, header);
    count = __shfl_sync(kAllLanes, count, 0);
    __syncwarp();
    return count;
}

// As complete_tree: derives the implied last weight, checks that the code is complete, and writes the 256 code lengths.
// Returns a BlockStatus.
__device__ __forceinline__ uint32_t complete_lengths(const TreeMemory& memory, uint32_t count, uint8_t* length,
                                                     uint32_t lane) {
    uint32_t weight[kGroups];
    uint32_t total = 0;  // of cells | longest codes << 20
    bool good = count != 0;
#pragma unroll
    for (uint32_t group = 0; group < kGroups; ++group) {
        const uint32_t symbol = group * kWarp + lane;
        weight[group] = symbol < count ? memory.weights[symbol] : 0;
        good = good && weight[group] < kMaxTableLog;
        total += ((1u << min(weight[group], kMaxTableLog)) >> 1) + (weight[group] == 1 ? 1u << 20 : 0);
    }
#pragma unroll
    for (int step = kWarp / 2; step > 0; step /= 2) total += __shfl_xor_sync(kAllLanes, total, step);
    uint32_t longest_codes = total >> 20;
    total &= (1u << 20) - 1;
    if (!__all_sync(kAllLanes, good) || total == 0) return kBadTree;
    const uint32_t table_log = highest_bit(total) + 1;
    if (table_log > kMaxTableLog) return kBadTree;
    const uint32_t missing = (1u << table_log) - total;
    if (!is_power_of_two(missing)) return kBadTree;
    const uint32_t implied = highest_bit(missing) + 1;
    longest_codes += implied == 1;
    if (longest_codes < 2 || longest_codes % 2 != 0) return kBadTree;
#pragma unroll
    for (uint32_t group = 0; group < kGroups; ++group) {
        const uint32_t symbol = group * kWarp + lane;
        const uint32_t value = symbol == count ? implied : weight[group];
        length[symbol] = static_cast<uint8_t>(value == 0 ? 0 : table_log + 1 - value);
    }
    return table_log > kWindow ? kLongCodes : kBlockGood;
}

// Called by a whole warp. `size`: bytes of the description, all of them in the block. Writes the 256 code lengths;
// returns a BlockStatus, the same in each lane.
__device__ __forceinline__ uint32_t read_tree(const uint8_t* description, uint32_t size, TreeMemory& memory,
                                              uint8_t* length, uint32_t lane) {
    stage_description(memory, description, size, lane);
    const uint32_t count = read_weights(memory, lane);
    return complete_lengths(memory, count, length, lane);
}

}  // namespace dumont::decode
