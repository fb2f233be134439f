// Builds the multi-symbol decode table of a Huffman tree.
//
// Entry of a window of W bits: bytes 0 to 5 up to six symbols, byte 6 the bits consumed, byte 7 the number of symbols.
// One lookup thus yields every symbol that lies wholly inside the window, and one 8-byte store writes them all.
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
constexpr uint32_t kBitsByte = 6;
constexpr uint32_t kCountByte = 7;
constexpr uint64_t kOneBit = 1ull << (8 * kBitsByte);
constexpr uint64_t kOneSymbol = 1ull << (8 * kCountByte);
constexpr uint64_t kKeptInPlace = 0xFFFF000000000000ull;    // bits and count
constexpr uint64_t kShiftedSymbols = 0x000000FFFFFFFFFFull;  // all but the sixth, which falls out

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

static inline uint64_t prepend(uint64_t rest, uint64_t prefix) {
    return ((rest & kShiftedSymbols) << 8) + (rest & kKeptInPlace) + prefix;
}

// `cells` is a power of two.
static inline void prepend_all(uint64_t* __restrict out, const uint64_t* __restrict rest, size_t cells,
                               uint64_t prefix) {
    constexpr size_t kBatch = 8;  // one or two vectors, whatever the instruction set
    if (cells < kBatch) {
        for (size_t i = 0; i < cells; ++i) out[i] = prepend(rest[i], prefix);
        return;
    }
    for (size_t i = 0; i < cells; i += kBatch) {
        for (size_t j = i; j < i + kBatch; ++j) out[j] = prepend(rest[j], prefix);
    }
}

static inline void build_window(const HuffmanTree& tree, const CodeOrder& order, uint64_t* tables, uint32_t window) {
    // Filled from the top: the shortest codes own the highest cells.
    uint64_t* cell = window_table(tables, window) + (size_t{1} << window);
    for (uint32_t i = order.symbols; i > order.first[window]; --i) {
        const uint32_t symbol = order.symbol[i - 1];
        const uint32_t length = tree.length[symbol];
        const size_t cells = size_t{1} << (window - length);
        cell -= cells;
        prepend_all(cell, window_table(tables, window - length), cells, kOneSymbol + kOneBit * length + symbol);
    }
    uint64_t* begin = window_table(tables, window);
    memset(begin, 0, sizeof(uint64_t) * static_cast<size_t>(cell - begin));
}

// Returns the table for windows of `window` bits; `window` is at least the longest code.
static inline const uint64_t* build_decode_table(const HuffmanTree& tree, uint64_t* tables, uint32_t window) {
    CodeOrder order;
    order_codes(tree, order);
    const uint32_t empty = order.shortest > 1 ? order.shortest : window + 1;  // windows below hold no whole code yet
    memset(tables, 0, sizeof(uint64_t) << empty);
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
