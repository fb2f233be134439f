// Decodes a Huff0 block: four interleaved bit streams through a multi-symbol table.
//
// Work:   one thread per block; the four streams are independent and hide each other's load latency.
// Bytes:  reads the block once, writes each output byte once or twice (8-byte stores overlap); the table is 16 KiB
//         and stays in L1.
// Bound:  about seven instructions a lookup, 3 to 4 symbols a lookup on bf16 exponents.
// Format: kernels/shared/huff0.h.
#include "decode_table.h"

namespace dumont {
namespace DUMONT_PATH {

namespace {

// A stream in flight. The unread bits are left-aligned in `bits`; the lowest set bit is a sentinel, so that the
// number of trailing zeros is the number of bits consumed since `next` was loaded.
struct Lane {
    uint64_t bits;
    const uint8_t* next;   // the 8 bytes in `bits`
    const uint8_t* begin;  // of the stream
    uint8_t* out;
    uint8_t* end;          // of the stream's output segment
};

constexpr uint32_t kWindow = 11;
constexpr uint32_t kRefillBytes = 7;  // a refill moves `next` by at most this much

// A lane that has fewer than 8 bytes left is decoded symbol by symbol.
bool open_lane(const BlockStreams& streams, uint32_t i, Lane& lane) {
    if (streams.size[i] < sizeof(uint64_t)) return false;
    lane.begin = streams.data[i];
    lane.next = lane.begin + streams.size[i] - sizeof(uint64_t);
    const uint32_t last = lane.next[7];
    if (last == 0) return false;
    lane.bits = (load_word(lane.next) | 1) << (8 - highest_bit(last));
    return true;
}

// Rounds of `lookups` lookups and a refill that this lane can surely make: every 8-byte store stays inside its
// segment and every 8-byte load inside its stream.
template <uint32_t lookups>
size_t safe_rounds(const Lane& lane) {
    constexpr size_t kMostSymbols = lookups * kSymbolsPerEntry;
    const size_t room = static_cast<size_t>(lane.end - lane.out);
    const size_t by_output = room < 2 ? 0 : (room - 2) / kMostSymbols;  // the last store writes two bytes more
    const size_t by_input = static_cast<size_t>(lane.next - lane.begin) / kRefillBytes;
    return by_output < by_input ? by_output : by_input;
}

// After a refill at least 56 bits less the sentinel are unread: 5 lookups of 11 bits, or 4 of 12.
template <uint32_t window, uint32_t lookups, uint32_t lanes>
void decode_rounds(Lane* lane_array, const uint64_t* table) {
    static_assert(window * lookups <= 55);
    // Bits and count are loaded as bytes of their own: loads are cheaper here than shifts, which few ports can do.
    const auto* entries = reinterpret_cast<const uint8_t*>(table);
    Lane lane[lanes];
    for (uint32_t i = 0; i < lanes; ++i) lane[i] = lane_array[i];
    for (;;) {
        size_t rounds = safe_rounds<lookups>(lane[0]);
        for (uint32_t i = 1; i < lanes; ++i) {
            const size_t limit = safe_rounds<lookups>(lane[i]);
            if (limit < rounds) rounds = limit;
        }
        if (rounds == 0) break;
        do {
#pragma GCC unroll 5
            for (uint32_t lookup = 0; lookup < lookups; ++lookup) {
#pragma GCC unroll 4
                for (uint32_t i = 0; i < lanes; ++i) {
                    const uint8_t* entry = entries + sizeof(uint64_t) * (lane[i].bits >> (64 - window));
                    store_word(lane[i].out, load_word(entry));
                    lane[i].bits <<= entry[kBitsByte] & 63;
                    lane[i].out += entry[kCountByte];
                }
            }
#pragma GCC unroll 4
            for (uint32_t i = 0; i < lanes; ++i) {
                const uint32_t consumed = static_cast<uint32_t>(__builtin_ctzll(lane[i].bits));
                lane[i].next -= consumed >> 3;
                lane[i].bits = (load_word(lane[i].next) | 1) << (consumed & 7);
            }
        } while (--rounds != 0);
    }
    for (uint32_t i = 0; i < lanes; ++i) lane_array[i] = lane[i];
}

// Decodes to the exact end: `count` symbols that finish at bit 0 of the stream.
bool decode_exactly(BackwardBits bits, uint8_t* out, uint8_t* end, const uint64_t* table, uint32_t window,
                    const HuffmanTree& tree) {
    while (out != end) {
        const uint64_t entry = table[peek_bits(bits, window)];
        const uint8_t symbol = static_cast<uint8_t>(entry);
        bits.left -= tree.length[symbol];
        if (bits.left < 0) return false;
        *out++ = symbol;
    }
    return bits.left == 0;
}

template <uint32_t window, uint32_t lookups>
bool decode_streams(const BlockStreams& streams, uint8_t* out, const uint64_t* table, const HuffmanTree& tree) {
    Lane lane[kStreams];
    BackwardBits bits[kStreams];
    bool wide = true;
    for (uint32_t i = 0; i < kStreams; ++i) {
        if (!open_backward_bits(streams.data[i], streams.size[i], bits[i])) return false;
        lane[i].out = out;
        lane[i].end = out += streams.symbols[i];
        wide &= open_lane(streams, i, lane[i]);
    }
    if (wide) {
        decode_rounds<window, lookups, kStreams>(lane, table);
        // The lanes part by the time the first is nearly done; each then runs on alone.
        for (uint32_t i = 0; i < kStreams; ++i) {
            decode_rounds<window, lookups, 1>(&lane[i], table);
            bits[i].left = 8 * (lane[i].next - lane[i].begin) + 64 - __builtin_ctzll(lane[i].bits);
        }
    }
    for (uint32_t i = 0; i < kStreams; ++i) {
        if (!decode_exactly(bits[i], lane[i].out, lane[i].end, table, window, tree)) return false;
    }
    return true;
}

}  // namespace

bool decode_huff0(const uint8_t* block, uint32_t size, uint8_t* out, uint32_t symbols, uint64_t* tables) {
    HuffmanTree tree;
    BlockStreams streams;
    ParseWorkspace workspace;
    if (!parse_tree(block, size, tree, workspace)) return false;
    if (!parse_streams(block + tree.size, size - tree.size, symbols, streams)) return false;
    if (tree.table_log > kWindow) {
        const uint64_t* table = build_decode_table(tree, tables, kMaxTableLog);
        return decode_streams<kMaxTableLog, 4>(streams, out, table, tree);
    }
    const uint64_t* table = build_decode_table(tree, tables, kWindow);
    return decode_streams<kWindow, 5>(streams, out, table, tree);
}

}  // namespace DUMONT_PATH
}  // namespace dumont
