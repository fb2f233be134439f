// Huffman lengths by the two-queue method, shortened to the limit by Kraft repair.
#include "huffman_code.h"

#include <string.h>

namespace dumont {
namespace {

constexpr uint32_t kMaxNodes = 2 * 256;

// The symbols that occur, rarest first.
struct Ranking {
    uint8_t symbol[256];
    uint32_t symbols;
};

// Radix sort by count, 8 bits a pass, skipping the passes in which all counts agree.
void rank_symbols(const uint32_t* counts, Ranking& ranking) {
    uint8_t other[256];
    uint32_t largest = 0;
    ranking.symbols = 0;
    for (uint32_t s = 0; s < 256; ++s) {
        if (counts[s] == 0) continue;
        ranking.symbol[ranking.symbols++] = static_cast<uint8_t>(s);
        largest = counts[s] > largest ? counts[s] : largest;
    }
    for (uint32_t shift = 0; shift < 32 && largest >> shift != 0; shift += 8) {
        uint32_t start[257] = {};
        for (uint32_t i = 0; i < ranking.symbols; ++i) ++start[(counts[ranking.symbol[i]] >> shift & 0xFF) + 1];
        for (uint32_t digit = 0; digit < 256; ++digit) start[digit + 1] += start[digit];
        for (uint32_t i = 0; i < ranking.symbols; ++i) {
            const uint8_t symbol = ranking.symbol[i];
            other[start[counts[symbol] >> shift & 0xFF]++] = symbol;
        }
        memcpy(ranking.symbol, other, ranking.symbols);
    }
}

// Depth of each leaf of the Huffman tree, in the order of `ranking`. Leaves are nodes [0, symbols), inner nodes
// follow in the order of their creation, which is also the order of their weight: two queues replace a heap.
void measure_depths(const uint32_t* counts, const Ranking& ranking, uint8_t* depth /* [kMaxNodes] */) {
    uint64_t weight[kMaxNodes];
    uint16_t parent[kMaxNodes];
    const uint32_t leaves = ranking.symbols;
    for (uint32_t i = 0; i < leaves; ++i) weight[i] = counts[ranking.symbol[i]];
    uint32_t next_leaf = 0;
    uint32_t next_inner = leaves;
    const uint32_t root = 2 * leaves - 2;
    for (uint32_t node = leaves; node <= root; ++node) {
        weight[node] = 0;
        for (uint32_t child = 0; child < 2; ++child) {
            const bool leaf = next_leaf < leaves && (next_inner == node || weight[next_leaf] <= weight[next_inner]);
            const uint32_t lightest = leaf ? next_leaf++ : next_inner++;
            weight[node] += weight[lightest];
            parent[lightest] = static_cast<uint16_t>(node);
        }
    }
    depth[root] = 0;
    for (uint32_t node = root; node-- > 0;) depth[node] = static_cast<uint8_t>(depth[parent[node]] + 1);
}

// Number of codes of each length, none above the limit and the code complete.
void limit_lengths(const uint8_t* depth, uint32_t leaves, uint32_t* of_length /* [kMaxWrittenLength + 1] */) {
    memset(of_length, 0, sizeof(uint32_t) * (kMaxWrittenLength + 1));
    uint32_t used = 0;  // in units of the longest code
    for (uint32_t i = 0; i < leaves; ++i) {
        const uint32_t length = depth[i] < kMaxWrittenLength ? depth[i] : kMaxWrittenLength;
        ++of_length[length];
        used += 1u << (kMaxWrittenLength - length);
    }
    // Cutting made the longest codes too many. Each step hangs one of them beside a shorter code, which moves one
    // level down with it: that frees exactly one unit.
    for (; used > 1u << kMaxWrittenLength; --used) {
        uint32_t length = kMaxWrittenLength - 1;
        while (of_length[length] == 0) --length;
        --of_length[length];
        of_length[length + 1] += 2;
        --of_length[kMaxWrittenLength];
    }
}

}  // namespace

void choose_lengths(const uint32_t* counts, HuffmanCode& code) {
    Ranking ranking;
    uint8_t depth[kMaxNodes];
    uint32_t of_length[kMaxWrittenLength + 1];
    rank_symbols(counts, ranking);
    measure_depths(counts, ranking, depth);
    limit_lengths(depth, ranking.symbols, of_length);

    memset(code.length, 0, sizeof code.length);
    code.table_log = 0;
    code.last_symbol = 0;
    code.payload_bits = 0;
    uint32_t length = kMaxWrittenLength;
    for (uint32_t i = 0; i < ranking.symbols; ++i) {  // the rarest symbols take the longest codes
        while (of_length[length] == 0) --length;
        --of_length[length];
        const uint32_t symbol = ranking.symbol[i];
        code.length[symbol] = static_cast<uint8_t>(length);
        code.payload_bits += static_cast<uint64_t>(counts[symbol]) * length;
        if (length > code.table_log) code.table_log = length;
        if (symbol > code.last_symbol) code.last_symbol = symbol;
    }
}

void assign_codes(const HuffmanCode& code, CodeTable& codes) {
    // Huff0 gives the lowest table cells to the longest codes, in symbol order.
    uint32_t first_cell[kMaxWrittenLength + 2] = {};
    for (uint32_t s = 0; s < 256; ++s) {
        const uint32_t length = code.length[s];
        if (length != 0) first_cell[length - 1] += 1u << (code.table_log - length);
    }
    uint32_t cell = 0;
    for (uint32_t length = code.table_log; length > 0; --length) {
        const uint32_t cells = first_cell[length - 1];
        first_cell[length] = cell;
        cell += cells;
    }
    for (uint32_t s = 0; s < 256; ++s) {
        const uint32_t length = code.length[s];
        codes[s] = 0;
        if (length == 0) continue;
        const uint64_t value = first_cell[length] >> (code.table_log - length);
        codes[s] = value << (64 - length) | length;
        first_cell[length] += 1u << (code.table_log - length);
    }
}

}  // namespace dumont
