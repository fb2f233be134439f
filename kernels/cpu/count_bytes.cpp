// Counts the byte values of a plane.
//
// Work:   one thread per block. With AVX-512, if eight values make up nearly all bytes, 64 bytes at a time are compared
//         with each of the eight. If the values span a narrow range, as exponents do, neighbours are counted as pairs:
//         one increment for two bytes. Otherwise byte by byte.
// Bytes:  reads the plane once, or twice for its range.
// Bound:  eight comparisons for 64 bytes, or one increment in memory a pair or a byte.
#if defined(__AVX512VBMI2__)
#include <immintrin.h>
#endif

#include "path.h"

namespace dumont {
namespace DUMONT_PATH {

namespace {

constexpr uint32_t kWidestPairs = 128;     // values; for a wider range, summing up the pair tables costs more than pairs save

struct Range {
    uint32_t least;
    uint32_t most;
};

Range find_range(const uint8_t* bytes, size_t size) {
    uint8_t least = 255;
    uint8_t most = 0;
    for (size_t i = 0; i < size; ++i) {
        least = bytes[i] < least ? bytes[i] : least;
        most = bytes[i] > most ? bytes[i] : most;
    }
    return {least, most};
}

void count_singly(const uint8_t* bytes, size_t size, uint32_t* counts) {
    // Four tables: neighbouring equal bytes would otherwise wait for each other's increment.
    uint32_t partial[4][256];
    memset(partial, 0, sizeof partial);
    size_t i = 0;
    for (; i + 8 <= size; i += 8) {
        const uint64_t word = load_word(bytes + i);
#pragma GCC unroll 8
        for (uint32_t byte = 0; byte < 8; ++byte) ++partial[byte % 4][word >> (8 * byte) & 0xFF];
    }
    for (; i < size; ++i) ++partial[0][bytes[i]];
    for (size_t value = 0; value < 256; ++value) {
        counts[value] = partial[0][value] + partial[1][value] + partial[2][value] + partial[3][value];
    }
}

// The second table starts a few cache lines off a multiple of 4 KiB: its stores would otherwise seem, to the address
// check of a load, to be those of the first.
constexpr size_t kSecondTable = 65536 + 160;
static_assert(kSecondTable + 65536 <= kPairTableEntries);

// The plane is not constant and has at most 128 KiB, so that no pair occurs more than 65535 times.
void count_pairs(const uint8_t* bytes, size_t size, Range range, uint32_t* counts, uint16_t* pairs) {
    const uint32_t first = range.least & ~31u;  // whole vectors
    const uint32_t columns = (range.most | 31u) + 1 - first;
    uint16_t* second_pairs = pairs + kSecondTable;
    for (uint32_t row = range.least; row <= range.most; ++row) {
        memset(pairs + 256 * row + first, 0, sizeof(uint16_t) * columns);
        memset(second_pairs + 256 * row + first, 0, sizeof(uint16_t) * columns);
    }
    memset(counts, 0, sizeof(uint32_t) * 256);
    size_t i = 0;
    for (; i + 8 <= size; i += 8) {
        const uint64_t word = load_word(bytes + i);
        ++pairs[word & 0xFFFF];
        ++second_pairs[word >> 16 & 0xFFFF];
        ++pairs[word >> 32 & 0xFFFF];
        ++second_pairs[word >> 48];
    }
    for (; i < size; ++i) ++counts[bytes[i]];
    for (uint32_t row = range.least; row <= range.most; ++row) {
        const uint16_t* one = pairs + 256 * row + first;
        const uint16_t* other = second_pairs + 256 * row + first;
        uint32_t of_row = 0;
        for (uint32_t column = 0; column < columns; ++column) {
            const uint32_t count = static_cast<uint32_t>(one[column]) + other[column];
            counts[first + column] += count;
            of_row += count;
        }
        counts[row] += of_row;
    }
}

#if defined(__AVX512VBMI2__)

constexpr size_t kLookedAt = 512;  // bytes that tell which values are common
constexpr uint32_t kCommon = 8;
constexpr uint32_t kLeastCovered = kLookedAt * 3 / 4;

// Finds the values that occur most often in a sample; returns how many bytes of the sample have one of them.
uint32_t find_common(const uint8_t* bytes, size_t size, uint8_t* common /* [kCommon] */) {
    uint32_t counts[256];
    uint8_t sample[kLookedAt];
    for (size_t i = 0; i < kLookedAt; ++i) sample[i] = bytes[i * (size / kLookedAt)];
    count_singly(sample, kLookedAt, counts);
    uint32_t covered = 0;
    for (uint32_t k = 0; k < kCommon; ++k) {
        uint32_t most = 0;
        for (uint32_t value = 1; value < 256; ++value) most = counts[value] > counts[most] ? value : most;
        common[k] = static_cast<uint8_t>(most);
        covered += counts[most];
        counts[most] = 0;
    }
    return covered;
}

// Compares 64 bytes at a time with each common value. Bytes that equal none are gathered and counted singly.
bool count_common(const uint8_t* bytes, size_t size, uint32_t* counts, uint8_t* others /* [size + 64] */) {
    uint8_t common[kCommon];
    if (size < kFewestPairs || find_common(bytes, size, common) < kLeastCovered) return false;
    __m512i value[kCommon];
    uint64_t count[kCommon] = {};
    for (uint32_t k = 0; k < kCommon; ++k) value[k] = _mm512_set1_epi8(static_cast<char>(common[k]));
    uint8_t* next = others;
    size_t i = 0;
    for (; i + 64 <= size; i += 64) {
        const __m512i vector = _mm512_loadu_si512(bytes + i);
        uint64_t known = 0;
#pragma GCC unroll 8
        for (uint32_t k = 0; k < kCommon; ++k) {
            const uint64_t equal = _mm512_cmpeq_epi8_mask(vector, value[k]);
            known |= equal;
            count[k] += static_cast<uint64_t>(__builtin_popcountll(equal));
        }
        _mm512_storeu_si512(next, _mm512_maskz_compress_epi8(~known, vector));
        next += __builtin_popcountll(~known);
    }
    count_singly(others, static_cast<size_t>(next - others), counts);
    // Set, not added: a value that stands for a missing one is counted several times.
    for (uint32_t k = 0; k < kCommon; ++k) counts[common[k]] = static_cast<uint32_t>(count[k]);
    for (; i < size; ++i) ++counts[bytes[i]];
    return true;
}

#else

bool count_common(const uint8_t*, size_t, uint32_t*, uint8_t*) {
    return false;
}

#endif

}  // namespace

void count_bytes(const uint8_t* bytes, size_t size, uint32_t* counts, uint16_t* pairs) {
    if (count_common(bytes, size, counts, reinterpret_cast<uint8_t*>(pairs))) return;
    const Range range = find_range(bytes, size);
    const uint32_t width = range.most - range.least + 1;
    if (size >= kFewestPairs && width > 1 && width <= kWidestPairs) {
        count_pairs(bytes, size, range, counts, pairs);
    } else {
        count_singly(bytes, size, counts);
    }
}

}  // namespace DUMONT_PATH
}  // namespace dumont
