// Splits elements into byte planes and joins them again, moving the sign on the way.
//
// Work:   one thread per block; plain loops over whole elements that the compiler vectorises.
// Bytes:  each is read once and written once.
// Bound:  cache bandwidth.
// Format: "The sign move" in kernels/zipnn.h, whose functions these loops apply to each element.
#include "../zipnn.h"
#include "path.h"

namespace dumont {
namespace DUMONT_PATH {

namespace {

template <bool moves_sign>
void join16(const uint8_t* low, const uint8_t* high, uint8_t* __restrict out, size_t elements) {
    for (size_t i = 0; i < elements; ++i) {
        const uint16_t stored = static_cast<uint16_t>(low[i] | high[i] << 8);
        const uint16_t element = moves_sign ? restore_sign16(stored) : stored;
        memcpy(out + 2 * i, &element, sizeof element);
    }
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

template <uint32_t plane, bool moves_sign>
void split16(const uint8_t* source, size_t elements, uint8_t* __restrict out) {
    for (size_t i = 0; i < elements; ++i) {
        uint16_t element;
        memcpy(&element, source + 2 * i, sizeof element);
        if (moves_sign) element = move_sign16(element);
        out[i] = static_cast<uint8_t>(element >> (8 * plane));
    }
}

template <uint32_t plane>
void split32(const uint8_t* source, size_t elements, uint8_t* __restrict out) {
    for (size_t i = 0; i < elements; ++i) {
        uint32_t element;
        memcpy(&element, source + 4 * i, sizeof element);
        out[i] = static_cast<uint8_t>(move_sign32(element) >> (8 * plane));
    }
}

}  // namespace

void join_planes(const uint8_t* const* planes, uint32_t plane_count, bool moves_sign, uint8_t* out, size_t elements) {
    if (plane_count == 1) {
        memcpy(out, planes[0], elements);
    } else if (plane_count == 4) {
        join32(planes, out, elements);
    } else if (moves_sign) {
        join16<true>(planes[0], planes[1], out, elements);
    } else {
        join16<false>(planes[0], planes[1], out, elements);
    }
}

void split_plane(const uint8_t* source, size_t elements, uint32_t plane_count, uint32_t plane, bool moves_sign,
                 uint8_t* out) {
    using Split = void (*)(const uint8_t*, size_t, uint8_t*);
    constexpr Split kSplit16[2][2] = {{split16<0, false>, split16<1, false>}, {split16<0, true>, split16<1, true>}};
    constexpr Split kSplit32[4] = {split32<0>, split32<1>, split32<2>, split32<3>};
    if (plane_count == 1) {
        memcpy(out, source, elements);
    } else if (plane_count == 2) {
        kSplit16[moves_sign][plane](source, elements, out);
    } else {
        kSplit32[plane](source, elements, out);
    }
}

}  // namespace DUMONT_PATH
}  // namespace dumont
