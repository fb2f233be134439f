// Writes the tree description of a Huff0 block: weights as nibbles, or coded with FSE, whichever is smaller. On a device a warp
// writes the same bytes (cuda/plane_code.h), with what is short here.
#pragma once

#include "huffman_code.h"

namespace dumont {

constexpr uint32_t kMaxTreeSize = 129;  // a header byte and 128 bytes: 256 nibbles, or at most 127 bytes of FSE
constexpr uint32_t kWeightValues = kMaxWrittenLength + 1;
constexpr uint32_t kMaxFseSize = kFirstDirectHeader - 1;
constexpr uint32_t kMaxDirectWeights = 256 - kFirstDirectHeader;

// Scratch of write_tree.
struct TreeWorkspace {
    FseCounts counts;
    uint32_t occurrences[kWeightValues];
    uint8_t weights[256];
    uint8_t cells[1 << kMaxFseLog];
    uint8_t cell_of[kWeightValues][1 << kMaxFseLog];  // the i-th cell of each weight
};

// Appends bits upward from byte 0; notes an overflow instead of writing past the end.
struct BitWriter {
    uint8_t* out;
    uint32_t capacity;
    uint32_t bytes;    // whole ones so far
    uint32_t pending;  // the bits behind them, fewer than 8
    uint32_t used;     // bits of `pending`
};

// At most 24 bits.
DUMONT_HD void append(BitWriter& writer, uint32_t value, uint32_t bits) {
    writer.pending |= (value & ((1u << bits) - 1)) << writer.used;
    for (writer.used += bits; writer.used >= 8; writer.used -= 8) {
        if (writer.bytes < writer.capacity) writer.out[writer.bytes] = static_cast<uint8_t>(writer.pending);
        ++writer.bytes;
        writer.pending >>= 8;
    }
}

// Fills up the last byte with zeros; returns the size in bytes.
DUMONT_HD uint32_t close_byte(BitWriter& writer) {
    if (writer.used != 0) append(writer, 0, 8 - writer.used);
    return writer.bytes;
}

// The cells of a weight that occurs `occurrences` times among `count`: in proportion, but at least one if it occurs at all.
DUMONT_HD int32_t fse_share(uint32_t occurrences, uint32_t count) {
    const uint32_t share = ((occurrences << kMaxFseLog) + count / 2) / count;
    return occurrences != 0 && share == 0 ? 1 : static_cast<int32_t>(share);
}

// Shares the 2^log cells among the weights; what rounding leaves goes to the commonest.
DUMONT_HD void normalise(uint32_t count, TreeWorkspace& work) {
    FseCounts& counts = work.counts;
    uint32_t* occurrences = work.occurrences;
    for (uint32_t w = 0; w < kWeightValues; ++w) occurrences[w] = 0;
    for (uint32_t i = 0; i < count; ++i) ++occurrences[work.weights[i]];
    counts.log = kMaxFseLog;
    const int32_t cells = 1 << counts.log;
    int32_t left = cells;
    uint32_t commonest = 0;
    counts.symbols = 0;
    for (uint32_t w = 0; w < kWeightValues; ++w) {
        counts.count[w] = static_cast<int8_t>(fse_share(occurrences[w], count));
        left -= counts.count[w];
        if (occurrences[w] > occurrences[commonest]) commonest = w;
        if (occurrences[w] != 0) counts.symbols = w + 1;
    }
    counts.count[commonest] = static_cast<int8_t>(counts.count[commonest] + left);
    if (counts.count[commonest] == cells) {
        // One weight only: its states would carry no bits and the reader would find no end. Give one cell away.
        const uint32_t unused = commonest == 0 ? 1 : 0;
        counts.count[commonest] = static_cast<int8_t>(cells - 1);
        counts.count[unused] = 1;
        if (unused >= counts.symbols) counts.symbols = unused + 1;
    }
}

// The inverse of parse_fse_counts.
DUMONT_HD void append_counts(BitWriter& writer, const FseCounts& counts) {
    append(writer, counts.log - kMinFseLog, 4);
    int32_t remaining = (1 << counts.log) + 1;
    int32_t threshold = 1 << counts.log;
    uint32_t width = counts.log + 1;
    for (uint32_t w = 0; remaining > 1; ++w) {
        const int32_t shorter = 2 * threshold - 1 - remaining;
        const int32_t value = counts.count[w] + 1;
        if (value < shorter) {
            append(writer, static_cast<uint32_t>(value), width - 1);
        } else {
            append(writer, static_cast<uint32_t>(value < threshold ? value : value + shorter), width);
        }
        remaining -= counts.count[w];
        while (remaining < threshold) {
            --width;
            threshold >>= 1;
        }
        if (counts.count[w] != 0) continue;
        uint32_t absent = 0;
        while (counts.count[w + 1] == 0) {
            ++absent;
            ++w;
        }
        for (; absent >= 3; absent -= 3) append(writer, 3, 2);
        append(writer, absent, 2);
    }
}

// Encodes backward, so that the reader meets weight 0 first. The two states alternate, weight i using state i % 2.
DUMONT_HD void append_weights(BitWriter& writer, uint32_t count, TreeWorkspace& work) {
    const FseCounts& counts = work.counts;
    const uint8_t* weights = work.weights;
    uint32_t* found = work.occurrences;  // not needed any more
    for (uint32_t w = 0; w < kWeightValues; ++w) found[w] = 0;
    const uint32_t size = 1u << counts.log;
    spread_fse_symbols(counts, work.cells);
    for (uint32_t cell = 0; cell < size; ++cell) {
        const uint32_t weight = work.cells[cell];
        work.cell_of[weight][found[weight]++] = static_cast<uint8_t>(cell);
    }

    // The last two weights start in their first cell: the next update takes at least one bit, which the stream no
    // longer has. That tells the reader the end.
    uint32_t state[2];
    state[(count - 1) & 1] = work.cell_of[weights[count - 1]][0];
    state[(count - 2) & 1] = work.cell_of[weights[count - 2]][0];
    for (uint32_t i = count - 2; i-- > 0;) {
        const uint32_t occurrences = static_cast<uint32_t>(counts.count[weights[i]]);
        const uint32_t next = state[i & 1] + size;
        uint32_t bits = counts.log - highest_bit(occurrences);
        if (next >> bits < occurrences) --bits;
        append(writer, next, bits);
        state[i & 1] = work.cell_of[weights[i]][(next >> bits) - occurrences];
    }
    append(writer, state[1], counts.log);
    append(writer, state[0], counts.log);
    append(writer, 1, 1);
}

// Returns the size, or 0 if the weights are too few or do not fit.
DUMONT_HD uint32_t write_fse_weights(uint32_t count, uint8_t* out /* [kMaxFseSize] */, TreeWorkspace& work) {
    if (count < 2) return 0;
    for (uint32_t w = 0; w < 256; ++w) work.counts.count[w] = 0;
    normalise(count, work);
    BitWriter writer = {out, kMaxFseSize, 0, 0, 0};
    append_counts(writer, work.counts);
    close_byte(writer);
    append_weights(writer, count, work);
    const uint32_t size = close_byte(writer);
    return size <= kMaxFseSize ? size : 0;
}

DUMONT_HD uint32_t write_direct_weights(const uint8_t* weights, uint32_t count, uint8_t* out) {
    out[0] = static_cast<uint8_t>(kFirstDirectHeader + count - 1);
    for (uint32_t i = 0; i < count; i += 2) {
        const uint32_t second = i + 1 < count ? weights[i + 1] : 0;
        out[1 + i / 2] = static_cast<uint8_t>(weights[i] << 4 | second);
    }
    return 1 + (count + 1) / 2;
}

// Returns the description's size, or 0 if this code cannot be described.
DUMONT_HD uint32_t write_tree(const HuffmanCode& code, uint8_t* out /* [kMaxTreeSize] */, TreeWorkspace& work) {
    const uint32_t count = code.last_symbol;  // the last symbol's weight is implied
    for (uint32_t s = 0; s < count; ++s) {
        work.weights[s] = static_cast<uint8_t>(code.length[s] == 0 ? 0 : code.table_log + 1 - code.length[s]);
    }
    const uint32_t fse = write_fse_weights(count, out + 1, work);
    const uint32_t direct = (count + 1) / 2;
    if (fse != 0 && (fse < direct || count > kMaxDirectWeights)) {
        out[0] = static_cast<uint8_t>(fse);
        return 1 + fse;
    }
    return count <= kMaxDirectWeights ? write_direct_weights(work.weights, count, out) : 0;
}

}  // namespace dumont
