// Writes the four bit streams of a Huff0 block with AVX-512 VBMI: 64 symbols at a time.
//
// Work:   one thread per block. Byte permutes look 64 codes up at once; neighbouring codes are joined in vector lanes
//         until a lane holds eight of them (four, where eight need too many bits); the lanes are then appended one
//         by one, the four streams taking turns.
// Bytes:  reads each symbol once, writes the stream once (8-byte stores overlap); 512 bytes of tables in registers.
// Bound:  about twelve instructions for each appended lane of eight symbols.
// Format: kernels/shared/huff0.h. Same stream as encode_huff0.cpp, which is its reference.
#include <immintrin.h>

#include "path.h"

namespace dumont {
namespace DUMONT_PATH {

namespace {

constexpr uint32_t kSymbolsPerRound = 64;
constexpr uint64_t kMostAppendedBits = 56;  // beside the 7 that may be pending

// `count` pending bits, fewer than 8 between two calls, in the low end of `bits`.
struct Writer {
    uint64_t bits;
    uint64_t count;
    uint8_t* out;
};

inline void append(Writer& writer, uint64_t value, uint64_t length) {
    writer.bits |= value << writer.count;
    writer.count += length;
    store_word(writer.out, writer.bits);
    writer.out += writer.count >> 3;
    writer.bits >>= writer.count & 56;
    writer.count &= 7;
}

inline void append_symbol(Writer& writer, uint64_t code) {
    const uint64_t length = code & 15;
    if (length != 0) append(writer, code >> (64 - length), length);
}

// A byte of each code: its low 8 bits, or its high 3 bits below its length. The index's top bit picks the half.
struct ByteTable {
    __m512i quarter[4];
};

inline __m512i look_up(const ByteTable& table, __m512i index) {
    const __m512i low = _mm512_permutex2var_epi8(table.quarter[0], index, table.quarter[1]);
    const __m512i high = _mm512_permutex2var_epi8(table.quarter[2], index, table.quarter[3]);
    return _mm512_mask_blend_epi8(_mm512_movepi8_mask(index), low, high);
}

struct Lookup {
    ByteTable low;
    ByteTable high;
};

void build_lookup(const CodeTable& codes, Lookup& lookup) {
    uint8_t low[256];
    uint8_t high[256];
    for (uint32_t s = 0; s < 256; ++s) {
        const uint64_t length = codes[s] & 15;
        const uint64_t code = codes[s] >> 8 >> ((56 - length) & 63);
        low[s] = static_cast<uint8_t>(code);
        high[s] = static_cast<uint8_t>(length << 4 | code >> 8);
    }
    for (uint32_t quarter = 0; quarter < 4; ++quarter) {
        lookup.low.quarter[quarter] = _mm512_loadu_si512(low + 64 * quarter);
        lookup.high.quarter[quarter] = _mm512_loadu_si512(high + 64 * quarter);
    }
}

// Codes joined in 64-bit lanes, and how many bits each lane holds.
struct Joined {
    __m512i value;
    __m512i length;
};

// Joins neighbours: the later symbol, which is written first, goes into the lower bits.
inline Joined join64(Joined earlier, Joined later) {
    return {_mm512_or_si512(later.value, _mm512_sllv_epi64(earlier.value, later.length)),
            _mm512_add_epi64(earlier.length, later.length)};
}

// Four codes in each lane, from 16-bit lanes of length << 12 | code.
inline Joined join_four(__m512i codes) {
    const __m512i low16 = _mm512_set1_epi32(0xFFFF);
    const __m512i low32 = _mm512_set1_epi64(0xFFFFFFFF);
    const __m512i code = _mm512_and_si512(codes, _mm512_set1_epi16(0x07FF));
    const __m512i length = _mm512_srli_epi16(codes, 12);
    const __m512i later = _mm512_srli_epi32(length, 16);
    const __m512i code2 = _mm512_or_si512(_mm512_srli_epi32(code, 16),
                                          _mm512_sllv_epi32(_mm512_and_si512(code, low16), later));
    const __m512i length2 = _mm512_add_epi32(_mm512_and_si512(length, low16), later);
    return join64({_mm512_and_si512(code2, low32), _mm512_and_si512(length2, low32)},
                  {_mm512_srli_epi64(code2, 32), _mm512_srli_epi64(length2, 32)});
}

// The lanes of one round of one stream, in symbol order.
struct Lanes {
    uint64_t value[kSymbolsPerRound / 4];
    uint64_t length[kSymbolsPerRound / 4];
};

inline void store_lanes(Joined joined, Lanes& lanes, uint32_t first) {
    _mm512_storeu_si512(lanes.value + first, joined.value);
    _mm512_storeu_si512(lanes.length + first, joined.length);
}

// 16 lanes of four symbols.
inline void gather_fours(const Lookup& lookup, const uint8_t* symbols, Lanes& lanes) {
    // Unpacking works within 128-bit lanes; this order of 8-byte groups makes its results come out in sequence.
    const __m512i order = _mm512_setr_epi64(0, 4, 1, 5, 2, 6, 3, 7);
    const __m512i index = _mm512_permutexvar_epi64(order, _mm512_loadu_si512(symbols));
    const __m512i low = look_up(lookup.low, index);
    const __m512i high = look_up(lookup.high, index);
    store_lanes(join_four(_mm512_unpacklo_epi8(low, high)), lanes, 0);
    store_lanes(join_four(_mm512_unpackhi_epi8(low, high)), lanes, 8);
}

// 8 lanes of eight symbols; false if one of them has more bits than an append can take.
inline bool gather_eights(const Lookup& lookup, const uint8_t* symbols, Lanes& lanes) {
    const __m512i index = _mm512_loadu_si512(symbols);
    const __m512i low = look_up(lookup.low, index);
    const __m512i high = look_up(lookup.high, index);
    const Joined a = join_four(_mm512_unpacklo_epi8(low, high));
    const Joined b = join_four(_mm512_unpackhi_epi8(low, high));
    const Joined eights = join64(
        {_mm512_unpacklo_epi64(a.value, b.value), _mm512_unpacklo_epi64(a.length, b.length)},
        {_mm512_unpackhi_epi64(a.value, b.value), _mm512_unpackhi_epi64(a.length, b.length)});
    store_lanes(eights, lanes, 0);
    return _mm512_cmpgt_epu64_mask(eights.length, _mm512_set1_epi64(kMostAppendedBits)) == 0;
}

template <uint32_t count>
inline void append_lanes(Writer* writer, const Lanes* lanes) {
    for (uint32_t lane = count; lane-- > 0;) {
#pragma GCC unroll 4
        for (uint32_t i = 0; i < kStreams; ++i) append(writer[i], lanes[i].value[lane], lanes[i].length[lane]);
    }
}

}  // namespace

void encode_streams(const uint8_t* source, uint32_t symbols, const CodeTable& codes, uint8_t* out, uint32_t* sizes) {
    const uint32_t segment = (symbols + 3) / 4;
    const uint32_t last_segment = symbols - 3 * segment;
    const uint32_t rounds = last_segment / kSymbolsPerRound;
    Lookup lookup;
    build_lookup(codes, lookup);
    Writer writer[kStreams];
    const uint8_t* next[kStreams];  // one past the symbol to write
    for (uint32_t i = 0; i < kStreams; ++i) {
        const uint8_t* first = source + i * segment;
        next[i] = first + (i < 3 ? segment : last_segment);
        writer[i] = {0, 0, out + i * stream_room(segment)};
        while (next[i] != first + rounds * kSymbolsPerRound) append_symbol(writer[i], codes[*--next[i]]);
    }
    for (uint32_t round = 0; round < rounds; ++round) {
        Lanes lanes[kStreams];
        bool fits = true;
#pragma GCC unroll 4
        for (uint32_t i = 0; i < kStreams; ++i) {
            next[i] -= kSymbolsPerRound;
            fits &= gather_eights(lookup, next[i], lanes[i]);
        }
        if (fits) {
            append_lanes<kSymbolsPerRound / 8>(writer, lanes);
        } else {
            for (uint32_t i = 0; i < kStreams; ++i) gather_fours(lookup, next[i], lanes[i]);
            append_lanes<kSymbolsPerRound / 4>(writer, lanes);
        }
    }
    for (uint32_t i = 0; i < kStreams; ++i) {
        append(writer[i], 1, 1);  // the end mark
        sizes[i] = static_cast<uint32_t>(writer[i].out - (out + i * stream_room(segment))) + (writer[i].count != 0);
    }
}

}  // namespace DUMONT_PATH
}  // namespace dumont
