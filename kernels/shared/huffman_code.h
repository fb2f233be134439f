// Chooses a Huffman code for a block: lengths of at most 11 bits, canonical in Huff0's order. Huffman lengths by the two-queue
// method, shortened to the limit by Kraft repair. One thread of the host or the device builds a code; both choose the same.
#pragma once

#include "huff0.h"

namespace dumont {

// Longest code that the encoders write: on the CPU, five codes and a partial byte then fit a 64-bit accumulator.
constexpr uint32_t kMaxWrittenLength = 11;
constexpr uint32_t kMaxCodeNodes = 2 * 256;

struct HuffmanCode {
    uint8_t length[256];    // bits; 0: the symbol does not occur
    uint32_t table_log;     // longest length
    uint32_t last_symbol;   // the largest symbol that occurs
    uint64_t payload_bits;  // all symbols together
};

// Scratch of choose_lengths: on the device in shared memory, where a thread's stack would be reserved for all threads.
struct CodeWorkspace {
    uint32_t weight[kMaxCodeNodes];
    uint32_t start[257];  // of each digit's symbols
    uint16_t parent[kMaxCodeNodes];
    uint8_t depth[kMaxCodeNodes];
    uint8_t symbol[256];  // those that occur, rarest first
    uint8_t other[256];
    uint32_t of_length[kMaxWrittenLength + 1];
    uint32_t symbols;
};

// Radix sort by count, 8 bits a pass.
DUMONT_HD void rank_symbols(const uint32_t* counts, CodeWorkspace& work) {
    uint32_t largest = 0;
    work.symbols = 0;
    for (uint32_t s = 0; s < 256; ++s) {
        if (counts[s] == 0) continue;
        work.symbol[work.symbols++] = static_cast<uint8_t>(s);
        largest = counts[s] > largest ? counts[s] : largest;
    }
    for (uint32_t shift = 0; shift < 32 && largest >> shift != 0; shift += 8) {
        for (uint32_t digit = 0; digit <= 256; ++digit) work.start[digit] = 0;
        for (uint32_t i = 0; i < work.symbols; ++i) ++work.start[(counts[work.symbol[i]] >> shift & 0xFF) + 1];
        for (uint32_t digit = 0; digit < 256; ++digit) work.start[digit + 1] += work.start[digit];
        for (uint32_t i = 0; i < work.symbols; ++i) {
            const uint8_t symbol = work.symbol[i];
            work.other[work.start[counts[symbol] >> shift & 0xFF]++] = symbol;
        }
        for (uint32_t i = 0; i < work.symbols; ++i) work.symbol[i] = work.other[i];
    }
}

// Depth of each leaf of the Huffman tree, in the order of `work.symbol`. Leaves are nodes [0, symbols), inner nodes
// follow in the order of their creation, which is also the order of their weight: two queues replace a heap.
DUMONT_HD void measure_depths(const uint32_t* counts, CodeWorkspace& work) {
    const uint32_t leaves = work.symbols;
    for (uint32_t i = 0; i < leaves; ++i) work.weight[i] = counts[work.symbol[i]];
    uint32_t next_leaf = 0;
    uint32_t next_inner = leaves;
    const uint32_t root = 2 * leaves - 2;
    for (uint32_t node = leaves; node <= root; ++node) {
        work.weight[node] = 0;
        for (uint32_t child = 0; child < 2; ++child) {
            const bool leaf =
                next_leaf < leaves && (next_inner == node || work.weight[next_leaf] <= work.weight[next_inner]);
            const uint32_t lightest = leaf ? next_leaf++ : next_inner++;
            work.weight[node] += work.weight[lightest];
            work.parent[lightest] = static_cast<uint16_t>(node);
        }
    }
    work.depth[root] = 0;
    for (uint32_t node = root; node-- > 0;) work.depth[node] = static_cast<uint8_t>(work.depth[work.parent[node]] + 1);
}

// Number of codes of each length, none above the limit and the code complete.
DUMONT_HD void limit_lengths(CodeWorkspace& work) {
    for (uint32_t length = 0; length <= kMaxWrittenLength; ++length) work.of_length[length] = 0;
    uint32_t used = 0;  // in units of the longest code
    for (uint32_t i = 0; i < work.symbols; ++i) {
        const uint32_t length = work.depth[i] < kMaxWrittenLength ? work.depth[i] : kMaxWrittenLength;
        ++work.of_length[length];
        used += 1u << (kMaxWrittenLength - length);
    }
    // Cutting made the longest codes too many. Each step hangs one of them beside a shorter code, which moves one
    // level down with it: that frees exactly one unit.
    for (; used > 1u << kMaxWrittenLength; --used) {
        uint32_t length = kMaxWrittenLength - 1;
        while (work.of_length[length] == 0) --length;
        --work.of_length[length];
        work.of_length[length + 1] += 2;
        --work.of_length[kMaxWrittenLength];
    }
}

// The rest of choose_lengths, once the symbols are ranked.
DUMONT_HD void choose_ranked_lengths(const uint32_t* counts /* [256] */, HuffmanCode& code, CodeWorkspace& work) {
    measure_depths(counts, work);
    limit_lengths(work);

    for (uint32_t s = 0; s < 256; ++s) code.length[s] = 0;
    code.table_log = 0;
    code.last_symbol = 0;
    code.payload_bits = 0;
    uint32_t length = kMaxWrittenLength;
    for (uint32_t i = 0; i < work.symbols; ++i) {  // the rarest symbols take the longest codes
        while (work.of_length[length] == 0) --length;
        --work.of_length[length];
        const uint32_t symbol = work.symbol[i];
        code.length[symbol] = static_cast<uint8_t>(length);
        code.payload_bits += static_cast<uint64_t>(counts[symbol]) * length;
        if (length > code.table_log) code.table_log = length;
        if (symbol > code.last_symbol) code.last_symbol = symbol;
    }
}

// Builds a complete code for `counts`, of which at least two are not 0; their sum is at most 2^31.
DUMONT_HD void choose_lengths(const uint32_t* counts /* [256] */, HuffmanCode& code, CodeWorkspace& work) {
    rank_symbols(counts, work);
    choose_ranked_lengths(counts, code, work);
}

// Gives each symbol that occurs its code, in the low bits of `value`.
DUMONT_HD void assign_codes(const HuffmanCode& code, uint16_t* value /* [256] */) {
    // Huff0 gives the lowest table cells to the longest codes, in symbol order.
    uint32_t cells[kMaxWrittenLength + 1] = {};  // of all codes of a length
    for (uint32_t s = 0; s < 256; ++s) {
        if (code.length[s] != 0) cells[code.length[s]] += 1u << (code.table_log - code.length[s]);
    }
    uint32_t next[kMaxWrittenLength + 1] = {};
    uint32_t cell = 0;
    for (uint32_t length = code.table_log; length > 0; --length) {
        next[length] = cell;
        cell += cells[length];
    }
    for (uint32_t s = 0; s < 256; ++s) {
        const uint32_t length = code.length[s];
        if (length == 0) continue;
        value[s] = static_cast<uint16_t>(next[length] >> (code.table_log - length));
        next[length] += 1u << (code.table_log - length);
    }
}

}  // namespace dumont
