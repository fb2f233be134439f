// Writes the four bit streams of a Huff0 block.
//
// Work:   one thread per block; two streams at a time, five symbols of each between two stores.
// Bytes:  reads each symbol once, writes the stream once (8-byte stores overlap); the code table is 2 KiB.
// Bound:  about five instructions a symbol.
// Format: kernels/shared/huff0.h. Symbols are written last to first and bits upward: a reader that starts at the end
//         meets the symbols in order.
#include "path.h"

namespace dumont {
namespace DUMONT_PATH {

namespace {

// The newest code is at the top of `bits`; the low byte of `count` is the number of bits not yet written. Below
// them lie stale bits, and the length that came with the last code.
struct Writer {
    uint64_t bits;
    uint64_t count;
    uint8_t* out;
};

constexpr uint32_t kCodesPerStore = 5;  // 7 + 5 * 11 bits fit 64
constexpr uint64_t kLengthMask = 15;

inline void push(Writer& writer, uint64_t code) {
    writer.bits = writer.bits >> (code & 63) | code;
    writer.count += code;  // adds the length to the low byte; what lands above is never read
}

// As `push`, but for the last code: it must not leave its length as stale bits below.
inline void push_last(Writer& writer, uint64_t code) {
    writer.bits = writer.bits >> (code & 63) | (code & ~kLengthMask);
    writer.count += code;
}

// Stores the whole bytes. At least one bit is pending.
inline void store(Writer& writer) {
    const uint32_t count = static_cast<uint8_t>(writer.count);
    store_word(writer.out, writer.bits >> (64 - count));
    writer.out += count >> 3;
    writer.count = count & 7;
}

// Writes the end mark and returns the stream's size.
inline uint32_t finish(Writer& writer, const uint8_t* begin) {
    push_last(writer, 1ull << 63 | 1);
    const uint32_t count = static_cast<uint8_t>(writer.count);
    store_word(writer.out, writer.bits >> (64 - count));
    return static_cast<uint32_t>(writer.out - begin) + (count + 7) / 8;
}

// Writes a pair of streams: enough to hide the latency of the shifts, few enough to stay in registers.
void encode_pair(const uint8_t* const* first, const uint8_t* const* end, const CodeTable& codes, uint8_t* const* out,
                 uint32_t* sizes) {
    constexpr uint32_t kPair = 2;
    Writer writer[kPair] = {{0, 0, out[0]}, {0, 0, out[1]}};
    const uint8_t* next[kPair] = {end[0], end[1]};  // one past the symbol to write
    const ptrdiff_t shorter = end[1] - first[1];
    for (ptrdiff_t round = shorter / kCodesPerStore; round != 0; --round) {
#pragma GCC unroll 4
        for (uint32_t symbol = 1; symbol < kCodesPerStore; ++symbol) {
#pragma GCC unroll 2
            for (uint32_t i = 0; i < kPair; ++i) push(writer[i], codes[*(next[i] - symbol)]);
        }
#pragma GCC unroll 2
        for (uint32_t i = 0; i < kPair; ++i) {
            next[i] -= kCodesPerStore;
            push_last(writer[i], codes[*next[i]]);
            store(writer[i]);
        }
    }
    for (uint32_t i = 0; i < kPair; ++i) {
        while (next[i] != first[i]) {
            push_last(writer[i], codes[*--next[i]]);
            store(writer[i]);
        }
        sizes[i] = finish(writer[i], out[i]);
    }
}

}  // namespace

void encode_streams(const uint8_t* source, uint32_t symbols, const CodeTable& codes, uint8_t* out, uint32_t* sizes) {
    const uint32_t segment = (symbols + 3) / 4;
    const uint8_t* first[kStreams];
    const uint8_t* end[kStreams];
    uint8_t* begin[kStreams];
    for (uint32_t i = 0; i < kStreams; ++i) {
        first[i] = source + i * segment;
        end[i] = i < 3 ? first[i] + segment : source + symbols;  // the last segment may be shorter
        begin[i] = out + i * stream_room(segment);
    }
    encode_pair(first, end, codes, begin, sizes);
    encode_pair(first + 2, end + 2, codes, begin + 2, sizes + 2);
}

}  // namespace DUMONT_PATH
}  // namespace dumont
