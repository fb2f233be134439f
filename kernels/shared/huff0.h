// The layout of a Huff0 block: tree description, jump table and four bit streams that are read backward.
//
//   tree description | u16 size of streams 1, 2, 3 | stream 1 | stream 2 | stream 3 | stream 4
//
// These parsers are the only place where a block's bounds are checked, for the CPU codec and the device kernels
// alike. Every one of them accepts arbitrary bytes and reads nothing outside `[block, block + size)`.
#pragma once

#include "portable.h"

namespace dumont {

constexpr uint32_t kMaxHuff0Symbols = 128 * 1024;  // the largest block that Huff0 accepts
constexpr uint32_t kMaxTableLog = 12;              // longest code a reader meets
constexpr uint32_t kStreams = 4;
constexpr uint32_t kJumpTableSize = 6;

constexpr uint32_t kMaxExplicitWeights = 255;  // the last of 256 weights is implied
constexpr uint32_t kFirstDirectHeader = 128;   // tree header byte: below it, the size of FSE-coded weights
constexpr uint32_t kMinFseLog = 5;
constexpr uint32_t kMaxFseLog = 6;

struct HuffmanTree {
    uint8_t length[256];  // code length in bits of each symbol; 0: the symbol does not occur
    uint32_t table_log;   // the longest code length
    uint32_t size;        // bytes of the description
};

// ---------------------------------------------------------------------------------------------------------------
// A bit stream read from its end: the highest set bit of the last byte is the end mark, the first code lies below.

struct BackwardBits {
    const uint8_t* data;
    int64_t left;  // bits not yet read; negative after reading past the start
};

DUMONT_HD bool open_backward_bits(const uint8_t* data, uint32_t size, BackwardBits& bits) {
    if (size == 0 || data[size - 1] == 0) return false;
    bits.data = data;
    bits.left = 8 * (static_cast<int64_t>(size) - 1) + highest_bit(data[size - 1]);
    return true;
}

// The next `count` (at most 16) bits without consuming them; zeros stand for bits before the start of the stream.
DUMONT_HD uint32_t peek_bits(const BackwardBits& bits, uint32_t count) {
    const int64_t first = bits.left - count;
    if (bits.left <= 0) return 0;
    const int64_t from = first < 0 ? 0 : first;
    const int64_t last_byte = (bits.left - 1) >> 3;
    uint32_t value = 0;
    for (int64_t byte = last_byte; byte >= from >> 3; --byte) value = value << 8 | bits.data[byte];
    value >>= from & 7;
    value &= (1u << (bits.left - from)) - 1;
    return value << (from - first);
}

DUMONT_HD uint32_t read_bits(BackwardBits& bits, uint32_t count) {
    const uint32_t value = peek_bits(bits, count);
    bits.left -= count;
    return value;
}

// ---------------------------------------------------------------------------------------------------------------
// FSE-coded weights.

// Reads bits upward from byte 0. Past the end it yields zeros; the caller compares `position` with the size.
struct ForwardBits {
    const uint8_t* data;
    uint32_t size;
    uint32_t position;
};

DUMONT_HD uint32_t peek_forward(const ForwardBits& bits, uint32_t count) {
    uint32_t value = 0;
    for (uint32_t i = 0; i < 3; ++i) {
        const uint32_t byte = (bits.position >> 3) + i;
        if (byte < bits.size) value |= static_cast<uint32_t>(bits.data[byte]) << (8 * i);
    }
    return (value >> (bits.position & 7)) & ((1u << count) - 1);
}

struct FseCounts {
    int8_t count[256];  // cells of each weight; -1: one cell at the end of the table
    uint32_t symbols;
    uint32_t log;
    uint32_t size;  // bytes of the description
};

DUMONT_HD bool parse_fse_counts(const uint8_t* data, uint32_t size, FseCounts& counts) {
    ForwardBits bits = {data, size, 4};
    if (size == 0) return false;
    counts.log = (data[0] & 15u) + kMinFseLog;
    if (counts.log > kMaxFseLog) return false;
    counts.symbols = 0;
    int32_t remaining = (1 << counts.log) + 1;
    int32_t threshold = 1 << counts.log;
    uint32_t width = counts.log + 1;
    while (remaining > 1) {
        // Values below `shorter` take one bit less: fewer than `remaining` + 1 values are possible.
        const int32_t shorter = 2 * threshold - 1 - remaining;
        int32_t value = static_cast<int32_t>(peek_forward(bits, width - 1));
        if (value < shorter) {
            bits.position += width - 1;
        } else {
            value = static_cast<int32_t>(peek_forward(bits, width));
            if (value >= threshold) value -= shorter;
            bits.position += width;
        }
        const int32_t count = value - 1;
        remaining -= count < 0 ? 1 : count;
        if (remaining < 1 || counts.symbols >= 256) return false;
        counts.count[counts.symbols++] = static_cast<int8_t>(count);
        while (remaining < threshold) {
            --width;
            threshold >>= 1;
        }
        if (count != 0 || remaining <= 1) continue;
        for (uint32_t repeat = 3; repeat == 3;) {  // further absent weights follow as 2-bit run lengths
            repeat = peek_forward(bits, 2);
            bits.position += 2;
            if (counts.symbols + repeat > 256 || bits.position > 8 * size) return false;
            for (uint32_t i = 0; i < repeat; ++i) counts.count[counts.symbols++] = 0;
        }
    }
    counts.size = (bits.position + 7) / 8;
    return counts.size <= size;
}

struct FseCell {
    uint8_t symbol;
    uint8_t bits;   // to read for the next state
    uint8_t base;   // the next state is base + those bits
};

// Gives each weight its cells in the order that encoder and decoder share; returns false if the counts cannot fill it.
DUMONT_HD bool spread_fse_symbols(const FseCounts& counts, uint8_t* cells /* [1 << log] */) {
    const uint32_t size = 1u << counts.log;
    uint32_t high = size;
    for (uint32_t s = 0; s < counts.symbols; ++s) {
        if (counts.count[s] == -1) cells[--high] = static_cast<uint8_t>(s);
    }
    const uint32_t step = (size >> 1) + (size >> 3) + 3;
    uint32_t position = 0;
    for (uint32_t s = 0; s < counts.symbols; ++s) {
        for (int32_t i = 0; i < counts.count[s]; ++i) {
            cells[position] = static_cast<uint8_t>(s);
            do position = (position + step) & (size - 1);
            while (position >= high);
        }
    }
    return position == 0;
}

// Scratch of parse_tree: on the device in shared memory, where a thread's stack would be reserved for all threads.
struct ParseWorkspace {
    uint8_t weights[kMaxExplicitWeights + 1];
    FseCounts counts;
    FseCell table[1 << kMaxFseLog];
    uint8_t cells[1 << kMaxFseLog];
    uint8_t next[256];
};

DUMONT_HD bool build_fse_table(ParseWorkspace& work) {
    const FseCounts& counts = work.counts;
    FseCell* table = work.table;
    uint8_t* cells = work.cells;
    uint8_t* next = work.next;
    if (!spread_fse_symbols(counts, cells)) return false;
    for (uint32_t s = 0; s < counts.symbols; ++s) {
        next[s] = static_cast<uint8_t>(counts.count[s] < 0 ? 1 : counts.count[s]);
    }
    for (uint32_t cell = 0; cell < 1u << counts.log; ++cell) {
        const uint32_t occurrence = next[cells[cell]]++;
        const uint32_t bits = counts.log - highest_bit(occurrence);
        table[cell].symbol = cells[cell];
        table[cell].bits = static_cast<uint8_t>(bits);
        table[cell].base = static_cast<uint8_t>((occurrence << bits) - (1u << counts.log));
    }
    return true;
}

// Decodes the weights with two interleaved states until the stream runs dry; returns their number, 0 if damaged.
DUMONT_HD uint32_t parse_fse_weights(const uint8_t* data, uint32_t size, ParseWorkspace& work) {
    const FseCounts& counts = work.counts;
    const FseCell* table = work.table;
    uint8_t* weights = work.weights;
    BackwardBits bits;
    if (!parse_fse_counts(data, size, work.counts) || !build_fse_table(work)) return 0;
    if (!open_backward_bits(data + counts.size, size - counts.size, bits)) return 0;
    uint32_t state[2];
    state[0] = read_bits(bits, counts.log);
    state[1] = read_bits(bits, counts.log);
    if (bits.left < 0) return 0;
    for (uint32_t n = 0; n + 2 <= kMaxExplicitWeights;) {
        const FseCell cell = table[state[n & 1]];
        state[n & 1] = cell.base + read_bits(bits, cell.bits);
        weights[n++] = cell.symbol;
        if (bits.left < 0) {
            weights[n] = table[state[n & 1]].symbol;
            return n + 1;
        }
    }
    return 0;
}

// ---------------------------------------------------------------------------------------------------------------
// Tree description.

DUMONT_HD uint32_t parse_direct_weights(const uint8_t* data, uint32_t count, uint8_t* weights) {
    for (uint32_t i = 0; i < count; ++i) {
        weights[i] = i % 2 == 0 ? data[i / 2] >> 4 : data[i / 2] & 15;
    }
    return count;
}

// Derives the implied last weight and checks that the code is complete.
DUMONT_HD bool complete_tree(const uint8_t* weights, uint32_t count, HuffmanTree& tree) {
    uint32_t total = 0;
    uint32_t longest_codes = 0;
    for (uint32_t s = 0; s < count; ++s) {
        if (weights[s] >= kMaxTableLog) return false;
        total += (1u << weights[s]) >> 1;
        longest_codes += weights[s] == 1;
    }
    if (total == 0) return false;
    tree.table_log = highest_bit(total) + 1;
    if (tree.table_log > kMaxTableLog) return false;
    const uint32_t rest = (1u << tree.table_log) - total;
    if (!is_power_of_two(rest)) return false;
    const uint32_t last = highest_bit(rest) + 1;
    longest_codes += last == 1;
    if (longest_codes < 2 || longest_codes % 2 != 0) return false;
    for (uint32_t s = 0; s < 256; ++s) {
        const uint32_t weight = s < count ? weights[s] : s == count ? last : 0;
        tree.length[s] = static_cast<uint8_t>(weight == 0 ? 0 : tree.table_log + 1 - weight);
    }
    return true;
}

DUMONT_HD bool parse_tree(const uint8_t* block, uint32_t size, HuffmanTree& tree, ParseWorkspace& work) {
    if (size == 0) return false;
    const uint32_t header = block[0];
    uint32_t count = 0;
    if (header >= kFirstDirectHeader) {
        count = header - kFirstDirectHeader + 1;
        tree.size = 1 + (count + 1) / 2;
        if (tree.size > size) return false;
        parse_direct_weights(block + 1, count, work.weights);
    } else {
        tree.size = 1 + header;
        if (tree.size > size) return false;
        count = parse_fse_weights(block + 1, header, work);
    }
    return count != 0 && complete_tree(work.weights, count, tree);
}

// ---------------------------------------------------------------------------------------------------------------
// Jump table.

struct BlockStreams {
    const uint8_t* data[kStreams];
    uint32_t size[kStreams];
    uint32_t symbols[kStreams];
};

// `payload` starts after the tree description; `symbols` is the number of raw bytes of the block.
DUMONT_HD bool parse_streams(const uint8_t* payload, uint32_t size, uint32_t symbols, BlockStreams& streams) {
    if (size < kJumpTableSize + kStreams) return false;
    const uint32_t segment = (symbols + 3) / 4;
    if (3 * segment > symbols) return false;
    uint32_t left = size - kJumpTableSize;
    const uint8_t* data = payload + kJumpTableSize;
    for (uint32_t i = 0; i < kStreams; ++i) {
        const uint32_t stream_size = i < 3 ? load_u16(payload + 2 * i) : left;
        if (stream_size > left) return false;
        streams.data[i] = data;
        streams.size[i] = stream_size;
        streams.symbols[i] = i < 3 ? segment : symbols - 3 * segment;
        data += stream_size;
        left -= stream_size;
    }
    return true;
}

}  // namespace dumont
