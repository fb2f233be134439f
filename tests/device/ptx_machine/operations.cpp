// Instructions that compute lane by lane: arithmetic, comparisons, moves, conversions, predicates.
#include <tuple>
#include <utility>

#if defined(__AVX2__)
#include <immintrin.h>
#endif

#include "arithmetic.h"
#include "machine.h"

namespace dumont::ptx {
namespace {

using namespace lane;

template <class T>
using Slot = std::conditional_t<sizeof(T) == 8, uint64_t, uint32_t>;

template <class T>
constexpr RegisterClass class_of() {
    return sizeof(T) == 8 ? RegisterClass::kLong : RegisterClass::kWord;
}

// ---------------------------------------------------------------------------------------------------------------
// All lanes of a warp. Lanes are independent, so a target that is a source too is no obstacle to vectors.

// What bits of a result depend on undefined bits of its sources: those that change with them, in a few trials. Trials may
// miss some.
constexpr uint32_t kTrials = 6;

template <class T>
T trial(uint32_t number, size_t source, T value, T undefined) {
    const uint64_t fills[kTrials] = {
        0, ~0ull, source % 2 ? 0 : ~0ull, source % 2 ? ~0ull : 0, 0x5555555555555555, 0xAAAAAAAAAAAAAAAA};
    return static_cast<T>((value & ~undefined) | (static_cast<T>(fills[number]) & undefined));
}

template <class F, class D, class... A, size_t... n>
Slot<D> undefined_result(Warp& warp, const Instruction& i, uint32_t lane, std::index_sequence<n...>) {
    const auto value = static_cast<Slot<D>>(F::of(static_cast<A>(warp.slot<Slot<A>>(i.from[n])[lane])...));
    Slot<D> changes = 0;
    for (uint32_t number = 0; number < kTrials; ++number) {
        const auto other = static_cast<Slot<D>>(F::of(static_cast<A>(
            trial(number, n, warp.slot<Slot<A>>(i.from[n])[lane], warp.undefined_in<Slot<A>>(i.from[n], lane)))...));
        changes |= value ^ other;
    }
    return changes;
}

template <class F, class D, class... A, size_t... n>
void lanewise(Warp& warp, const Instruction& i, std::index_sequence<n...> sources) {
    const uint32_t doubtful = (warp.lanes_undefined(i.from[n]) | ...) & warp.active;
    Slot<D> undefined[kLanes];
    for (uint32_t rest = doubtful; rest != 0; rest &= rest - 1) {
        const auto lane = static_cast<uint32_t>(__builtin_ctz(rest));
        undefined[lane] = undefined_result<F, D, A...>(warp, i, lane, sources);
    }
    Slot<D>* const to = warp.slot<Slot<D>>(i.to);
    const std::tuple<const Slot<A>*...> from(warp.slot<const Slot<A>>(i.from[n])...);
    const uint32_t* const lanes = warp.lanes;
#pragma GCC ivdep
    for (uint32_t lane = 0; lane < kLanes; ++lane) {
        const auto result = static_cast<Slot<D>>(F::of(static_cast<A>(std::get<n>(from)[lane])...));
        to[lane] = lanes[lane] ? result : to[lane];
    }
    warp.lanes_undefined(i.to) &= ~warp.active;
    for (uint32_t rest = doubtful; rest != 0; rest &= rest - 1) {
        const auto lane = static_cast<uint32_t>(__builtin_ctz(rest));
        warp.set_undefined(i.to, lane, undefined[lane]);
    }
}

template <class F, class D, class... A>
void lanewise(Machine&, Warp& warp, const Instruction& i) {
    lanewise<F, D, A...>(warp, i, std::index_sequence_for<A...>());
}

uint32_t bits_of(const uint32_t* lanes) {
    uint32_t bits = 0;
#if defined(__AVX2__)
    for (uint32_t i = 0; i < kLanes; i += 8) {
        const __m256i eight = _mm256_load_si256(reinterpret_cast<const __m256i*>(lanes + i));
        bits |= static_cast<uint32_t>(_mm256_movemask_ps(_mm256_castsi256_ps(eight))) << i;
    }
#else
    for (uint32_t i = 0; i < kLanes; ++i) bits |= (lanes[i] & 1) << i;
#endif
    return bits;
}

void set_predicate(Warp& warp, uint32_t predicate, uint32_t bits, uint32_t undefined) {
    warp.predicates[predicate] = (warp.predicates[predicate] & ~warp.active) | (bits & warp.active);
    warp.undefined_predicates[predicate] =
        (warp.undefined_predicates[predicate] & ~warp.active) | (undefined & warp.active);
}

// A comparison's outcome as a number, for undefined_result.
template <class F>
struct Outcome {
    template <class T>
    static uint32_t of(T a, T b) {
        return F::of(a, b);
    }
};

template <class F, class T>
void compare(Machine&, Warp& warp, const Instruction& i) {
    const auto* a = warp.slot<const Slot<T>>(i.from[0]);
    const auto* b = warp.slot<const Slot<T>>(i.from[1]);
    alignas(32) uint32_t results[kLanes];
    for (uint32_t lane = 0; lane < kLanes; ++lane) {
        results[lane] = F::of(static_cast<T>(a[lane]), static_cast<T>(b[lane])) ? ~0u : 0;
    }
    uint32_t undefined = 0;
    for (uint32_t rest = (warp.lanes_undefined(i.from[0]) | warp.lanes_undefined(i.from[1])) & warp.active; rest != 0;
         rest &= rest - 1) {
        const auto lane = static_cast<uint32_t>(__builtin_ctz(rest));
        undefined |= undefined_result<Outcome<F>, uint32_t, T, T>(warp, i, lane, std::index_sequence<0, 1>()) << lane;
    }
    set_predicate(warp, i.to_predicate, bits_of(results), undefined);
}

// The undefined bits of `choose(a, b)`, where `doubt` says in which lanes the choice itself is not defined.
template <class T>
void select_undefined(Warp& warp, const Instruction& i, T* undefined) {
    const uint32_t predicate = warp.predicates[i.from[2]], doubt = warp.undefined_predicates[i.from[2]];
    for (uint32_t lane = 0; lane < kLanes; ++lane) {
        const T a = warp.undefined_in<T>(i.from[0], lane), b = warp.undefined_in<T>(i.from[1], lane);
        const T differs = warp.slot<T>(i.from[0])[lane] ^ warp.slot<T>(i.from[1])[lane];
        undefined[lane] = doubt >> lane & 1 ? a | b | differs : predicate >> lane & 1 ? a : b;
    }
}

template <class T>
void select(Machine&, Warp& warp, const Instruction& i) {
    const uint32_t doubtful =
        (warp.lanes_undefined(i.from[0]) | warp.lanes_undefined(i.from[1]) | warp.undefined_predicates[i.from[2]]) &
        warp.active;
    T undefined[kLanes];
    if (doubtful != 0) select_undefined(warp, i, undefined);
    T* const to = warp.slot<T>(i.to);
    const T* const a = warp.slot<const T>(i.from[0]);
    const T* const b = warp.slot<const T>(i.from[1]);
    const uint32_t predicate = warp.predicates[i.from[2]];
#pragma GCC ivdep
    for (uint32_t lane = 0; lane < kLanes; ++lane) {
        const T result = predicate >> lane & 1 ? a[lane] : b[lane];
        to[lane] = warp.lanes[lane] ? result : to[lane];
    }
    warp.lanes_undefined(i.to) &= ~warp.active;
    for (uint32_t rest = doubtful; rest != 0; rest &= rest - 1) {
        const auto lane = static_cast<uint32_t>(__builtin_ctz(rest));
        warp.set_undefined(i.to, lane, undefined[lane]);
    }
}

// By shifting up and down: the source's bits fill the register, and then the target's. Undefined bits go the same way.
struct Conversion {
    uint32_t up, up_again;
    bool is_signed, to_signed;

    uint64_t operator()(uint64_t value) const {
        const uint64_t high = value << up;
        const uint64_t narrow = is_signed ? static_cast<uint64_t>(static_cast<int64_t>(high) >> up) : high >> up;
        const uint64_t again = narrow << up_again;
        return to_signed ? static_cast<uint64_t>(static_cast<int64_t>(again) >> up_again) : again >> up_again;
    }
};

template <class To, class From>
void convert(Machine&, Warp& warp, const Instruction& i) {
    To* const to = warp.slot<To>(i.to);
    const From* const from = warp.slot<const From>(i.from[0]);
    const Conversion conversion = {64u - i.bits[1], 64u - i.bits[0], i.is_signed, i.predicate_negated};
    const uint32_t doubtful = warp.lanes_undefined(i.from[0]) & warp.active;
#pragma GCC ivdep
    for (uint32_t lane = 0; lane < kLanes; ++lane) {
        const auto result = static_cast<To>(conversion(from[lane]));
        to[lane] = warp.lanes[lane] ? result : to[lane];
    }
    warp.lanes_undefined(i.to) &= ~warp.active;
    for (uint32_t rest = doubtful; rest != 0; rest &= rest - 1) {
        const auto lane = static_cast<uint32_t>(__builtin_ctz(rest));
        warp.set_undefined(i.to, lane, static_cast<To>(conversion(warp.undefined_bits<From>(i.from[0])[lane])));
    }
}

template <class F>
void combine(Machine&, Warp& warp, const Instruction& i) {
    const uint32_t a = warp.predicates[i.from[0]], b = warp.predicates[i.from[1]];
    const uint32_t ua = warp.undefined_predicates[i.from[0]], ub = warp.undefined_predicates[i.from[1]];
    const uint32_t value = F::of(a, b);
    const uint32_t changes = (F::of(a ^ ua, b) ^ value) | (F::of(a, b ^ ub) ^ value) | (F::of(a ^ ua, b ^ ub) ^ value);
    set_predicate(warp, i.to_predicate, value, changes);
}

// ---------------------------------------------------------------------------------------------------------------
// By opcode.

struct Table {
    std::map<std::string, Operation> operations;

    template <class F, class D, class... A>
    void add(const std::string& opcode, CountClass count = CountClass::kInteger) {
        operations[opcode] = {&lanewise<F, D, A...>, class_of<D>(), {class_of<A>()...}, count};
    }

    template <class F, class T>
    void compare_as(const std::string& opcode) {
        operations[opcode + " "] = {
            &compare<F, T>, RegisterClass::kPredicate, {class_of<T>(), class_of<T>()}, CountClass::kCompare};
    }

    template <class T>
    void of_type(const std::string& type, bool arithmetic) {
        add<Same, T, T>("mov." + type, CountClass::kMove);
        compare_as<Equal, T>("setp.eq." + type);
        compare_as<Differs, T>("setp.ne." + type);
        add<Shr, T, T, uint32_t>("shr." + type);
        if (!arithmetic) {
            add<And, T, T, T>("and." + type);
            add<Or, T, T, T>("or." + type);
            add<Xor, T, T, T>("xor." + type);
            add<Not, T, T>("not." + type);
            add<Shl, T, T, uint32_t>("shl." + type);
            return;
        }
        add<Add, T, T, T>("add." + type);
        add<Sub, T, T, T>("sub." + type);
        add<Mul, T, T, T>("mul.lo." + type);
        add<MulAdd, T, T, T, T>("mad.lo." + type);
        add<Div, T, T, T>("div." + type);
        add<Rem, T, T, T>("rem." + type);
        add<Min, T, T, T>("min." + type);
        add<Max, T, T, T>("max." + type);
        add<Neg, T, T>("neg." + type);
        add<Abs, T, T>("abs." + type);
        compare_as<Less, T>("setp.lt." + type);
        compare_as<LessEqual, T>("setp.le." + type);
        compare_as<Greater, T>("setp.gt." + type);
        compare_as<GreaterEqual, T>("setp.ge." + type);
    }

    template <class T, class W>
    void widening(const std::string& type) {
        add<MulHigh<W>, T, T, T>("mul.hi." + type);
        if constexpr (sizeof(W) <= 8) {
            add<MulWide<W>, W, T, T>("mul.wide." + type);
            add<MadWide<W>, W, T, T, W>("mad.wide." + type);
        }
    }

    template <class T>
    void bits(const std::string& width) {
        add<Popc, uint32_t, T>("popc.b" + width);
        add<Clz, uint32_t, T>("clz.b" + width);
        add<Brev, T, T>("brev.b" + width);
        add<Bfind, uint32_t, T>("bfind.u" + width);
        add<BfindShift, uint32_t, T>("bfind.shiftamt.u" + width);
        add<Bfi, T, T, T, uint32_t, uint32_t>("bfi.b" + width);
        add<Bfe, T, T, uint32_t, uint32_t>("bfe.u" + width);
        add<Bfe, std::make_signed_t<T>, std::make_signed_t<T>, uint32_t, uint32_t>("bfe.s" + width);
    }

    Table() {
        of_type<uint16_t>("b16", false);
        of_type<uint32_t>("b32", false);
        of_type<uint64_t>("b64", false);
        of_type<uint16_t>("u16", true);
        of_type<uint32_t>("u32", true);
        of_type<uint64_t>("u64", true);
        of_type<int16_t>("s16", true);
        of_type<int32_t>("s32", true);
        of_type<int64_t>("s64", true);
        widening<uint16_t, uint32_t>("u16");
        widening<int16_t, int32_t>("s16");
        widening<uint32_t, uint64_t>("u32");
        widening<int32_t, int64_t>("s32");
        widening<uint64_t, unsigned __int128>("u64");
        widening<int64_t, __int128>("s64");
        bits<uint32_t>("32");
        bits<uint64_t>("64");
        add<Funnel<true, false>, uint32_t, uint32_t, uint32_t, uint32_t>("shf.l.wrap.b32");
        add<Funnel<true, true>, uint32_t, uint32_t, uint32_t, uint32_t>("shf.l.clamp.b32");
        add<Funnel<false, false>, uint32_t, uint32_t, uint32_t, uint32_t>("shf.r.wrap.b32");
        add<Funnel<false, true>, uint32_t, uint32_t, uint32_t, uint32_t>("shf.r.clamp.b32");
        add<Permute, uint32_t, uint32_t, uint32_t, uint32_t>("prmt.b32");
        add<Lop3, uint32_t, uint32_t, uint32_t, uint32_t, uint32_t>("lop3.b32");
        add<Half<0>, uint32_t, uint32_t>("mov.b32 low", CountClass::kMove);
        add<Half<1>, uint32_t, uint32_t>("mov.b32 high", CountClass::kMove);
        add<Halves<uint32_t>, uint32_t, uint16_t, uint16_t>("mov.b32 both", CountClass::kMove);
        add<Half<0>, uint32_t, uint64_t>("mov.b64 low", CountClass::kMove);
        add<Half<1>, uint32_t, uint64_t>("mov.b64 high", CountClass::kMove);
        add<Halves<uint64_t>, uint64_t, uint32_t, uint32_t>("mov.b64 both", CountClass::kMove);
        operations["selp 32"] = {&select<uint32_t>, RegisterClass::kWord, {}, CountClass::kMove};
        operations["selp 64"] = {&select<uint64_t>, RegisterClass::kLong, {}, CountClass::kMove};
    }
};

}  // namespace

const std::map<std::string, Operation>& operations() {
    static const Table table;
    return table.operations;
}

Handler conversion(RegisterClass to, RegisterClass from) {
    const bool wide = from == RegisterClass::kLong;
    if (to == RegisterClass::kLong) return wide ? &convert<uint64_t, uint64_t> : &convert<uint64_t, uint32_t>;
    return wide ? &convert<uint32_t, uint64_t> : &convert<uint32_t, uint32_t>;
}

Handler predicate_handler(const std::string& opcode) {
    if (opcode == "and.pred") return &combine<And>;
    if (opcode == "or.pred") return &combine<Or>;
    if (opcode == "xor.pred") return &combine<Xor>;
    if (opcode == "not.pred") {
        return [](Machine&, Warp& warp, const Instruction& i) {
            set_predicate(warp, i.to_predicate, ~warp.predicates[i.from[0]], warp.undefined_predicates[i.from[0]]);
        };
    }
    if (opcode != "mov.pred") return nullptr;
    return [](Machine&, Warp& warp, const Instruction& i) {
        const uint32_t from = i.from[0];
        if (from == kNone) return set_predicate(warp, i.to_predicate, static_cast<uint32_t>(i.displacement), 0);
        set_predicate(warp, i.to_predicate, warp.predicates[from], warp.undefined_predicates[from]);
    };
}

}  // namespace dumont::ptx
