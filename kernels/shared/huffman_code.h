// Chooses a Huffman code for a block: lengths of at most 11 bits, canonical in Huff0's order. Huffman lengths by the two-queue
// method, shortened to the limit by Kraft repair. Host and device choose the same; a device's warp shares all but the merging.
#pragma once

#include "huff0.h"

namespace dumont {

// Longest code that the encoders write: on the CPU, five codes and a partial byte then fit a 64-bit accumulator.
constexpr uint32_t kMaxWrittenLength = 11;

struct HuffmanCode {
    uint8_t length[256];    // bits; 0: the symbol does not occur
    uint32_t table_log;     // longest length
    uint32_t last_symbol;   // the largest symbol that occurs
    uint64_t payload_bits;  // all symbols together
};

// What choose_lengths merges: on the device in shared memory, where a thread's stack would be reserved for all threads.
struct MergeWorkspace {
    uint32_t leaf[256 + 2];   // counts of the symbols that occur, ascending; two of kNoNode behind them
    uint32_t inner[256 + 2];  // weights of the nodes made, which ascend too; kNoNode where there is none yet
    uint8_t taken[256];       // nodes of `inner` that had got a parent before each was made
    uint32_t of_length[kMaxWrittenLength + 1];  // result: the number of codes of each length
};
constexpr uint32_t kNoNode = 0xFFFFFFFF;

// Builds the Huffman tree of at least two leaves; two queues replace a heap. In both, the two lightest nodes are kept at
// hand, so that a device waits once for shared memory for each node made.
DUMONT_HD void merge_nodes(uint32_t leaves, MergeWorkspace& work) {
    uint32_t next_leaf = 0;
    uint32_t next_inner = 0;
    for (uint32_t made = 0; made + 1 < leaves; ++made) {
        const uint32_t leaf[2] = {work.leaf[next_leaf], work.leaf[next_leaf + 1]};
        const uint32_t inner[2] = {work.inner[next_inner], work.inner[next_inner + 1]};
        const bool two_leaves = leaf[1] <= inner[0];
        const bool two_inner = inner[1] < leaf[0];
        const uint32_t from_leaves = two_leaves ? 2 : two_inner ? 0 : 1;
        const uint32_t first = two_inner ? inner[1] : leaf[0];
        const uint32_t second = two_leaves ? leaf[1] : inner[0];
        work.taken[made] = static_cast<uint8_t>(next_inner);
        work.inner[made] = first + second;
        next_leaf += from_leaves;
        next_inner += 2 - from_leaves;
    }
}

// Counts the leaves at each depth from the root down, those below the limit as at the limit. In the order in which they
// were made, nodes never get deeper: those of a level lie side by side, and those of the next level before them.
DUMONT_HD void count_lengths(uint32_t leaves, MergeWorkspace& work) {
    for (uint32_t length = 0; length <= kMaxWrittenLength; ++length) work.of_length[length] = 0;
    uint32_t end = leaves - 1;
    uint32_t begin = end - 1;
    for (uint32_t depth = 1; begin != end; ++depth) {
        const uint32_t next = work.taken[begin];
        work.of_length[depth < kMaxWrittenLength ? depth : kMaxWrittenLength] += 2 * (end - begin) - (begin - next);
        end = begin;
        begin = next;
    }
}

// Makes the code complete again: cutting made the longest codes too many. Each step hangs one of them beside a shorter code,
// which moves one level down with it: that frees exactly one unit.
DUMONT_HD void repair_lengths(MergeWorkspace& work) {
    uint32_t used = 0;  // in units of the longest code
    for (uint32_t length = 1; length <= kMaxWrittenLength; ++length) {
        used += work.of_length[length] << (kMaxWrittenLength - length);
    }
    for (; used > 1u << kMaxWrittenLength; --used) {
        uint32_t length = kMaxWrittenLength - 1;
        while (work.of_length[length] == 0) --length;
        --work.of_length[length];
        work.of_length[length + 1] += 2;
        --work.of_length[kMaxWrittenLength];
    }
}

// Sorts the symbols that occur by count, 8 bits a pass, then by value; returns their number.
DUMONT_HD uint32_t rank_symbols(const uint32_t* counts, uint8_t* ranked /* [256] */) {
    uint8_t other[256];
    uint32_t start[257];  // of each digit's symbols
    uint32_t largest = 0;
    uint32_t symbols = 0;
    for (uint32_t s = 0; s < 256; ++s) {
        if (counts[s] == 0) continue;
        ranked[symbols++] = static_cast<uint8_t>(s);
        largest = counts[s] > largest ? counts[s] : largest;
    }
    for (uint32_t shift = 0; shift < 32 && largest >> shift != 0; shift += 8) {
        for (uint32_t digit = 0; digit <= 256; ++digit) start[digit] = 0;
        for (uint32_t i = 0; i < symbols; ++i) ++start[(counts[ranked[i]] >> shift & 0xFF) + 1];
        for (uint32_t digit = 0; digit < 256; ++digit) start[digit + 1] += start[digit];
        for (uint32_t i = 0; i < symbols; ++i) other[start[counts[ranked[i]] >> shift & 0xFF]++] = ranked[i];
        for (uint32_t i = 0; i < symbols; ++i) ranked[i] = other[i];
    }
    return symbols;
}

// Builds a complete code for `counts`, of which at least two are not 0; their sum is at most 2^31.
DUMONT_HD void choose_lengths(const uint32_t* counts /* [256] */, HuffmanCode& code, MergeWorkspace& work) {
    uint8_t ranked[256];
    const uint32_t symbols = rank_symbols(counts, ranked);
    for (uint32_t i = 0; i < symbols; ++i) work.leaf[i] = counts[ranked[i]];
    work.leaf[symbols] = work.leaf[symbols + 1] = kNoNode;
    for (uint32_t i = 0; i <= symbols; ++i) work.inner[i] = kNoNode;
    merge_nodes(symbols, work);
    count_lengths(symbols, work);
    repair_lengths(work);

    for (uint32_t s = 0; s < 256; ++s) code.length[s] = 0;
    code.table_log = 0;
    code.last_symbol = 0;
    code.payload_bits = 0;
    uint32_t length = kMaxWrittenLength;
    for (uint32_t i = 0; i < symbols; ++i) {  // the rarest symbols take the longest codes
        while (work.of_length[length] == 0) --length;
        --work.of_length[length];
        const uint32_t symbol = ranked[i];
        code.length[symbol] = static_cast<uint8_t>(length);
        code.payload_bits += static_cast<uint64_t>(counts[symbol]) * length;
        if (length > code.table_log) code.table_log = length;
        if (symbol > code.last_symbol) code.last_symbol = symbol;
    }
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
