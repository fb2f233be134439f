// Splits elements into byte planes and joins them again, moving the sign on the way.
//
// Work:   one thread per block; plain loops over whole elements that the compiler vectorises. A 16-bit join into a
//         large output has AVX-512 code of its own, for its stores.
// Bytes:  reads and writes each byte once.
// Bound:  cache bandwidth.
// Format: "The sign move" in kernels/shared/zipnn.h, whose functions these loops apply to each element.
#if defined(__AVX512BW__)
#include <immintrin.h>
#endif

#include "../shared/zipnn.h"
#include "path.h"

namespace dumont {
namespace DUMONT_PATH {

namespace {

constexpr size_t kLine = 64;  // bytes of a cache line, and of a vector

template <bool moves_sign>
void interleave16(const uint8_t* low, const uint8_t* high, uint8_t* __restrict out, size_t elements) {
    for (size_t i = 0; i < elements; ++i) {
        const uint16_t joined = static_cast<uint16_t>(low[i] | high[i] << 8);
        const uint16_t element = moves_sign ? restore_sign16(joined) : joined;
        memcpy(out + 2 * i, &element, sizeof element);
    }
}

#if defined(__AVX512BW__)

// The same for 64 elements at a time, with stores that do not first read the line that they overwrite. Returns how
// many elements are done: all but the rest of the last vector.
template <bool moves_sign>
size_t stream16(const uint8_t* low, const uint8_t* high, uint8_t* out /* aligned */, size_t elements) {
    // Unpacking works within 128-bit lanes; this order of 8-byte groups makes its results come out in sequence.
    const __m512i order = _mm512_setr_epi64(0, 4, 1, 5, 2, 6, 3, 7);
    size_t i = 0;
    for (; i + 64 <= elements; i += 64) {
        const __m512i lows = _mm512_permutexvar_epi64(order, _mm512_loadu_si512(low + i));
        const __m512i highs = _mm512_permutexvar_epi64(order, _mm512_loadu_si512(high + i));
        __m512i half[2] = {_mm512_unpacklo_epi8(lows, highs), _mm512_unpackhi_epi8(lows, highs)};
        for (uint32_t h = 0; h < 2; ++h) {
            if (moves_sign) {
                const __m512i exponent = _mm512_and_si512(half[h], _mm512_set1_epi16(static_cast<int16_t>(0xFF00)));
                const __m512i sign = _mm512_and_si512(half[h], _mm512_set1_epi16(0x0080));
                const __m512i mantissa = _mm512_and_si512(half[h], _mm512_set1_epi16(0x007F));
                half[h] = _mm512_or_si512(_mm512_or_si512(_mm512_srli_epi16(exponent, 1), _mm512_slli_epi16(sign, 8)),
                                          mantissa);
            }
            _mm512_stream_si512(reinterpret_cast<__m512i*>(out + 2 * i) + h, half[h]);
        }
    }
    return i;
}

#else

template <bool moves_sign>
size_t stream16(const uint8_t*, const uint8_t*, uint8_t*, size_t) {
    return 0;
}

#endif

template <bool moves_sign>
void join16(const uint8_t* low, const uint8_t* high, bool past_caches, uint8_t* out, size_t elements) {
    size_t done = 0;
    const size_t before_line = -reinterpret_cast<uintptr_t>(out) % kLine;
    if (past_caches && before_line % 2 == 0 && before_line / 2 <= elements) {
        done = before_line / 2;
        interleave16<moves_sign>(low, high, out, done);
        done += stream16<moves_sign>(low + done, high + done, out + 2 * done, elements - done);
    }
    interleave16<moves_sign>(low + done, high + done, out + 2 * done, elements - done);
}

void join32(const uint8_t* const* planes, uint8_t* __restrict out, size_t elements) {
    const uint8_t* p0 = planes[0];
    const uint8_t* p1 = planes[1];
    const uint8_t* p2 = planes[2];
    const uint8_t* p3 = planes[3];
    for (size_t i = 0; i < elements; ++i) {
        const uint32_t low = static_cast<uint32_t>(p0[i] | p1[i] << 8);
        const uint32_t high = static_cast<uint32_t>(p2[i] | p3[i] << 8);
        const uint32_t element = restore_sign32(low | high << 16);
        memcpy(out + 4 * i, &element, sizeof element);
    }
}

template <bool moves_sign>
void split16(const uint8_t* source, size_t elements, uint8_t* __restrict low, uint8_t* __restrict high) {
    for (size_t i = 0; i < elements; ++i) {
        uint16_t element;
        memcpy(&element, source + 2 * i, sizeof element);
        if (moves_sign) element = move_sign16(element);
        low[i] = static_cast<uint8_t>(element);
        high[i] = static_cast<uint8_t>(element >> 8);
    }
}

void split32(const uint8_t* source, size_t elements, uint8_t* __restrict p0, uint8_t* __restrict p1,
             uint8_t* __restrict p2, uint8_t* __restrict p3) {
    for (size_t i = 0; i < elements; ++i) {
        uint32_t element;
        memcpy(&element, source + 4 * i, sizeof element);
        element = move_sign32(element);
        p0[i] = static_cast<uint8_t>(element);
        p1[i] = static_cast<uint8_t>(element >> 8);
        p2[i] = static_cast<uint8_t>(element >> 16);
        p3[i] = static_cast<uint8_t>(element >> 24);
    }
}

}  // namespace

void join_planes(const uint8_t* const* planes, uint32_t plane_count, bool moves_sign, bool past_caches, uint8_t* out,
                 size_t elements) {
    if (plane_count == 1) {
        memcpy(out, planes[0], elements);
    } else if (plane_count == 4) {
        join32(planes, out, elements);
    } else if (moves_sign) {
        join16<true>(planes[0], planes[1], past_caches, out, elements);
    } else {
        join16<false>(planes[0], planes[1], past_caches, out, elements);
    }
}

void split_planes(const uint8_t* source, size_t elements, uint32_t plane_count, bool moves_sign,
                  uint8_t* const* planes) {
    if (plane_count == 1) {
        memcpy(planes[0], source, elements);
    } else if (plane_count == 4) {
        split32(source, elements, planes[0], planes[1], planes[2], planes[3]);
    } else if (moves_sign) {
        split16<true>(source, elements, planes[0], planes[1]);
    } else {
        split16<false>(source, elements, planes[0], planes[1]);
    }
}

}  // namespace DUMONT_PATH
}  // namespace dumont
