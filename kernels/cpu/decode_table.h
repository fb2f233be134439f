// Builds the multi-symbol decode table of a Huffman tree.
//
// Entry of a window of W bits: byte 0 the bits consumed, bytes 1 to 6 up to six symbols, byte 7 their number. One
// lookup thus yields every symbol that lies wholly inside the window, and one 8-byte store writes them all.
//
// With T_k the table for windows of k bits, a window that starts with the code of symbol s (l bits) continues with a
// window of k - l bits, so the cells of s in T_k are T_{k-l} with s prepended. Built from k = 0 upward, the work is
// one pass of 64-bit lane operations over contiguous memory. Windows that hold no whole code keep a count of 0.
//
// An 11-bit window holds more than six symbols only if some code has 1 bit. Then the tables are built in six rounds
// from k = W downward, where each round allows one symbol more: round r reads the shorter tables as round r-1 left
// them.
#pragma once

#include "path.h"

namespace dumont {
namespace DUMONT_PATH {

constexpr uint32_t kSymbolsPerEntry = 6;
constexpr uint64_t kOneSymbol = 1ull << 56;
constexpr uint64_t kKeptInPlace = 0xFF000000000000FFull;  // count and bits
constexpr uint64_t kShiftedSymbols = 0x0000FFFFFFFFFF00ull;

static inline uint32_t entry_count(uint64_t entry) {
    return static_cast<uint32_t>(entry >> 56);
}

static inline uint32_t entry_bits(uint64_t entry) {
    return static_cast<uint32_t>(entry & 0xFF);
}

static inline uint8_t entry_first_symbol(uint64_t entry) {
    return static_cast<uint8_t>(entry >> 8);
}

// T_k starts at tables + 2^k.
static inline uint64_t* window_table(uint64_t* tables, uint32_t window) {
    return tables + (size_t{1} << window);
}

// The symbols in table order: longest codes first, then by value.
struct CodeOrder {
    uint8_t symbol[256];
    uint16_t first[kMaxTableLog + 2];  // index of the first symbol whose code has at most this many bits
    uint32_t symbols;
    uint32_t shortest;
};

static inline void order_codes(const HuffmanTree& tree, CodeOrder& order) {
    uint16_t of_length[kMaxTableLog + 2] = {};
    for (uint32_t s = 0; s < 256; ++s) ++of_length[tree.length[s]];
    uint16_t index = 0;
    order.shortest = 0;
    for (uint32_t length = kMaxTableLog + 1; length > 0; --length) {
        order.first[length] = index;
        if (length > kMaxTableLog || of_length[length] == 0) continue;
        index = static_cast<uint16_t>(index + of_length[length]);
        order.shortest = length;
    }
    order.first[0] = index;
    order.symbols = index;
    uint16_t place[kMaxTableLog + 2];
    memcpy(place, order.first, sizeof place);
    for (uint32_t s = 0; s < 256; ++s) {
        if (tree.length[s] != 0) order.symbol[place[tree.length[s]]++] = static_cast<uint8_t>(s);
    }
}

static inline void build_window(const HuffmanTree& tree, const CodeOrder& order, uint64_t* tables, uint32_t window) {
    // Filled from the top: the shortest codes own the highest cells.
    uint64_t* cell = window_table(tables, window) + (size_t{1} << window);
    for (uint32_t i = order.symbols; i > order.first[window]; --i) {
        const uint32_t symbol = order.symbol[i - 1];
        const uint32_t length = tree.length[symbol];
        const size_t cells = size_t{1} << (window - length);
        const uint64_t* rest = window_table(tables, window - length);
        const uint64_t prefix = kOneSymbol | symbol << 8 | length;
        cell -= cells;
        for (size_t j = 0; j < cells; ++j) {
            cell[j] = ((rest[j] & kShiftedSymbols) << 8) + (rest[j] & kKeptInPlace) + prefix;
        }
    }
}

// Returns the table for windows of `window` bits; `window` is at least the longest code.
static inline const uint64_t* build_decode_table(const HuffmanTree& tree, uint64_t* tables, uint32_t window) {
    CodeOrder order;
    order_codes(tree, order);
    memset(tables, 0, sizeof(uint64_t) * (size_t{2} << window));
    if (order.shortest > 1) {
        for (uint32_t k = order.shortest; k <= window; ++k) build_window(tree, order, tables, k);
    } else {
        for (uint32_t round = 0; round < kSymbolsPerEntry; ++round) {
            for (uint32_t k = window; k >= 1; --k) build_window(tree, order, tables, k);
        }
    }
    return window_table(tables, window);
}

}  // namespace DUMONT_PATH
}  // namespace dumont
