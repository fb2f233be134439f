// What each instruction computes in one lane. The compiler is told that signed numbers wrap.
#pragma once

#include <algorithm>
#include <cstdint>
#include <type_traits>

namespace dumont::ptx::lane {

template <class T>
constexpr uint32_t kBits = 8 * sizeof(T);

struct Add { template <class T> static T of(T a, T b) { return static_cast<T>(a + b); } };
struct Sub { template <class T> static T of(T a, T b) { return static_cast<T>(a - b); } };
struct Mul { template <class T> static T of(T a, T b) { return static_cast<T>(a * b); } };
struct Min { template <class T> static T of(T a, T b) { return a < b ? a : b; } };
struct Max { template <class T> static T of(T a, T b) { return a > b ? a : b; } };
struct And { template <class T> static T of(T a, T b) { return a & b; } };
struct Or { template <class T> static T of(T a, T b) { return a | b; } };
struct Xor { template <class T> static T of(T a, T b) { return a ^ b; } };
struct Not { template <class T> static T of(T a) { return static_cast<T>(~a); } };
struct Neg { template <class T> static T of(T a) { return static_cast<T>(-a); } };
struct Abs { template <class T> static T of(T a) { return static_cast<T>(a < 0 ? -a : a); } };
struct Same { template <class T> static T of(T a) { return a; } };
// The halves of a register, which `mov` takes apart and puts together.
template <uint32_t half>
struct Half {
    template <class T>
    static uint32_t of(T a) {
        constexpr uint32_t kHalf = kBits<T> / 2;
        return static_cast<uint32_t>(a >> half * kHalf & ((T(1) << kHalf) - 1));
    }
};
template <class W>
struct Halves {
    template <class T>
    static W of(T low, T high) {
        return static_cast<W>(low | static_cast<W>(high) << kBits<T>);
    }
};
struct MulAdd { template <class T> static T of(T a, T b, T c) { return static_cast<T>(a * b + c); } };
// A device does not trap: all bits are set.
struct Div {
    template <class T>
    static T of(T a, T b) {
        return b == 0 || (b == T(-1) && T(-1) < 0) ? static_cast<T>(b == 0 ? -1 : -a) : static_cast<T>(a / b);
    }
};
struct Rem {
    template <class T>
    static T of(T a, T b) {
        return b == 0 ? a : b == T(-1) && T(-1) < 0 ? T(0) : static_cast<T>(a % b);
    }
};
struct Shl {
    template <class T>
    static T of(T a, uint32_t n) {
        return n >= kBits<T> ? T(0) : static_cast<T>(a << n);
    }
};
struct Shr {
    template <class T>
    static T of(T a, uint32_t n) {
        return static_cast<T>(n >= kBits<T> ? (a < 0 ? -1 : 0) : a >> n);
    }
};
template <class W>
struct MulWide {
    template <class T>
    static W of(T a, T b) {
        return static_cast<W>(a) * static_cast<W>(b);
    }
};
template <class W>
struct MadWide {
    template <class T>
    static W of(T a, T b, W c) {
        return static_cast<W>(a) * static_cast<W>(b) + c;
    }
};
template <class W>
struct MulHigh {
    template <class T>
    static T of(T a, T b) {
        return static_cast<T>(static_cast<W>(a) * static_cast<W>(b) >> kBits<T>);
    }
};
struct Popc { template <class T> static uint32_t of(T a) { return static_cast<uint32_t>(__builtin_popcountll(a)); } };
struct Clz {
    template <class T>
    static uint32_t of(T a) {
        return a == 0 ? kBits<T> : static_cast<uint32_t>(__builtin_clzll(a)) - (64 - kBits<T>);
    }
};
struct Bfind {
    template <class T>
    static uint32_t of(T a) {
        return a == 0 ? ~0u : 63 - static_cast<uint32_t>(__builtin_clzll(a));
    }
};
struct BfindShift { template <class T> static uint32_t of(T a) { return a == 0 ? ~0u : Clz::of(a); } };
struct Brev {
    template <class T> static T of(T a) {
        T reversed = 0;
        for (uint32_t i = 0; i < kBits<T>; ++i) reversed = static_cast<T>(reversed << 1 | (a >> i & 1));
        return reversed;
    }
};
template <bool left, bool clamp> struct Funnel {
    static uint32_t of(uint32_t low, uint32_t high, uint32_t n) {
        const uint64_t both = static_cast<uint64_t>(high) << 32 | low;
        const uint32_t shift = clamp ? std::min(n, 32u) : n & 31;
        return static_cast<uint32_t>(left ? both << shift >> 32 : both >> shift);
    }
};
struct Permute {
    static uint32_t of(uint32_t a, uint32_t b, uint32_t selector) {
        const uint64_t bytes = static_cast<uint64_t>(b) << 32 | a;
        uint32_t out = 0;
        for (uint32_t i = 0; i < 4; ++i) {
            const uint32_t nibble = selector >> (4 * i) & 15;
            const uint32_t byte = static_cast<uint32_t>(bytes >> (8 * (nibble & 7))) & 255;
            out |= (nibble & 8 ? (byte & 128 ? 255u : 0u) : byte) << (8 * i);
        }
        return out;
    }
};
struct Bfi {
    template <class T> static T of(T a, T b, uint32_t position, uint32_t length) {
        const T ones = length >= kBits<T> ? static_cast<T>(~T(0)) : static_cast<T>((T(1) << length) - 1);
        const T mask = (position & 255) >= kBits<T> ? T(0) : static_cast<T>(ones << (position & 255));
        return static_cast<T>((b & ~mask) |
                              ((position & 255) >= kBits<T> ? T(0) : static_cast<T>(a << (position & 255)) & mask));
    }
};
struct Bfe {
    template <class T> static T of(T a, uint32_t position, uint32_t length) {
        const T shifted = Shr::of(a, position & 255);
        const uint32_t unused = (length & 255) >= kBits<T> ? 0 : kBits<T> - (length & 255);
        return unused == kBits<T> ? T(0) : static_cast<T>(static_cast<T>(shifted << unused) >> unused);
    }
};
struct Lop3 {
    static uint32_t of(uint32_t a, uint32_t b, uint32_t c, uint32_t table) {
        uint32_t out = 0;
        for (uint32_t i = 0; i < 8; ++i) {
            if (table >> i & 1) out |= (i & 4 ? a : ~a) & (i & 2 ? b : ~b) & (i & 1 ? c : ~c);
        }
        return out;
    }
};
struct Equal { template <class T> static bool of(T a, T b) { return a == b; } };
struct Differs { template <class T> static bool of(T a, T b) { return a != b; } };
struct Less { template <class T> static bool of(T a, T b) { return a < b; } };
struct LessEqual { template <class T> static bool of(T a, T b) { return a <= b; } };
struct Greater { template <class T> static bool of(T a, T b) { return a > b; } };
struct GreaterEqual { template <class T> static bool of(T a, T b) { return a >= b; } };

}  // namespace dumont::ptx::lane
