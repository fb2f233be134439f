// Loads, stores and atomic operations, each access checked: where it lies, its alignment, what it holds, who else
// touches it.
#include <algorithm>
#include <cstring>

#include "machine.h"

namespace dumont::ptx {
namespace {

enum class Use : uint8_t { kLoad, kStore, kAtomic };

std::string hex(uint64_t value) {
    char text[20];
    std::snprintf(text, sizeof text, "0x%llx", static_cast<unsigned long long>(value));
    return text;
}

const char* name_of(Space space) {
    static const char* const kNames[] = {"", "generic", "global", "shared", "local", "parameter"};
    return kNames[static_cast<size_t>(space)];
}

std::string describe(Use use, Space space, uint64_t address, uint32_t size) {
    static const char* const kVerbs[] = {"reads ", "writes ", "changes "};
    return kVerbs[static_cast<size_t>(use)] + std::to_string(size) + " bytes at " + hex(address) + " of " +
           name_of(space) + " memory";
}

[[noreturn]] void report(Machine& machine, const Warp& warp, uint32_t lane, const Races::Finding& finding,
                         const std::string& what) {
    using Found = Races::Found;
    if (finding.found == Found::kUnwritten) machine.fail(warp, lane, what + ", which nothing has written");
    const std::string other = machine.place(instruction_of(finding.other));
    const std::string who =
        finding.other_block ? "another block" : "thread " + std::to_string(thread_of(finding.other));
    if (finding.found == Found::kReadOnlyWritten) {
        machine.fail(warp, lane, what + " as read-only, but " + who + " writes it (" + other + ")");
    }
    machine.fail(warp, lane, "a race: " + what + ", which " + who + (finding.other_wrote ? " writes" : " reads") +
                                 " with no barrier between (" + other + ")");
}

// Where an access goes. `space` and `address` become those of the memory itself if the address is generic.
uint8_t* locate(Machine& machine, Warp& warp, uint32_t lane, Space& space, uint64_t& address, uint32_t size, Use use) {
    if (space == Space::kGeneric) {
        space = address - kSharedWindow < kWindowSize  ? Space::kShared
                : address - kLocalWindow < kWindowSize ? Space::kLocal
                                                       : Space::kGlobal;
        if (space == Space::kShared) address -= kSharedWindow;
        if (space == Space::kLocal) address -= kLocalWindow;
    }
    if (address % size != 0)
        machine.fail(
            warp, lane,
            describe(use, space, address, size) + ": " + std::to_string(size) + " bytes at a misaligned address");
    uint8_t* memory = nullptr;
    uint64_t end = 0;
    switch (space) {
        case Space::kGlobal:
            if (!machine.global.holds(address, size))
                machine.fail(warp, lane, describe(use, space, address, size) + ", outside the memory of the launch");
            return reinterpret_cast<uint8_t*>(address);
        case Space::kShared:
            memory = machine.shared.data();
            end = machine.shared_size;
            break;
        case Space::kLocal:
            end = machine.kernel->function->local_size;
            memory = warp.local + lane * end;
            break;
        default:
            memory = machine.parameters.data();
            end = machine.parameters.size();
    }
    if (address >= end || size > end - address) {
        machine.fail(warp, lane, describe(use, space, address, size) + ", past its " + std::to_string(end) + " bytes");
    }
    return memory + address;
}

// Where shared memory keeps which bits of it are undefined.
uint8_t* undefined_of(Machine& machine, const uint8_t* bytes) {
    return machine.shared_undefined.data() + (bytes - machine.shared.data());
}

// Calls `act(lane, bytes, their undefined bits, space)` for each active lane, in the launch's order of lanes.
template <Use use, class Act>
void for_lanes(Machine& machine, Warp& warp, const Instruction& i, uint32_t size, Act act) {
    const auto* narrow = i.from[0] == kNone || i.wide_address ? nullptr : warp.slot<const uint32_t>(i.from[0]);
    const auto* wide = i.wide_address ? warp.slot<const uint64_t>(i.from[0]) : nullptr;
    const auto instruction = static_cast<uint32_t>(&i - machine.kernel->code.data());
    const uint32_t doubtful = i.from[0] == kNone ? 0 : warp.lanes_undefined(i.from[0]) & warp.active;
    if (doubtful != 0) machine.fail_undefined(warp, doubtful, "an address depends on memory");
    uint64_t addresses[kLanes];
    uint32_t count = 0;
    Space space = i.space;
    for (uint32_t rest = warp.active; rest != 0;) {
        const uint32_t lane = machine.lanes_reversed() ? 31 - static_cast<uint32_t>(__builtin_clz(rest))
                                                       : static_cast<uint32_t>(__builtin_ctz(rest));
        rest &= ~(1u << lane);
        const uint64_t given = (wide ? wide[lane] : narrow ? narrow[lane] : 0) + static_cast<uint64_t>(i.displacement);
        uint64_t address = narrow ? static_cast<uint32_t>(given) : given;
        space = i.space;
        uint8_t* const bytes = locate(machine, warp, lane, space, address, size, use);
        uint8_t marks[16] = {};  // what of global memory is undefined
        if (space == Space::kGlobal || space == Space::kShared) {
            const Access access = {warp.number * kLanes + lane, warp.clocks.own[lane], instruction,
                                   warp.clocks.known[lane], space == Space::kGlobal};
            const Races::Finding finding = use == Use::kLoad
                                               ? machine.races.read(access, address, size, i.read_only, marks)
                                               : machine.races.write(access, address, size, use == Use::kAtomic);
            if (finding.found != Races::Found::kNothing)
                report(machine, warp, lane, finding, describe(use, space, address, size));
        }
        addresses[count++] = address;
        act(lane, bytes, space == Space::kShared ? undefined_of(machine, bytes) : marks, space);
    }
    if (!machine.counting || count == 0) return;
    if (space == Space::kShared) machine.kernel->counts.shared_access(addresses, count, size);
    if (space == Space::kGlobal) machine.kernel->counts.global_access(addresses, count, size);
}

// T: what lies in memory; R: the register.
template <class T, class R>
void load(Machine& machine, Warp& warp, const Instruction& i) {
    const auto act = [&](uint32_t lane, const uint8_t* bytes, const uint8_t* undefined_bytes, Space) {
        for (uint32_t n = 0; n < i.elements; ++n) {
            T value, undefined;
            std::memcpy(&value, bytes + n * sizeof(T), sizeof(T));
            std::memcpy(&undefined, undefined_bytes + n * sizeof(T), sizeof(T));
            warp.slot<R>(i.vector[n])[lane] = static_cast<R>(value);
            if (undefined != 0) warp.undefined_since = warp.current;
            warp.set_undefined(i.vector[n], lane, static_cast<R>(undefined));
        }
    };
    for_lanes<Use::kLoad>(machine, warp, i, sizeof(T) * i.elements, act);
}

template <class T, class R>
void store(Machine& machine, Warp& warp, const Instruction& i) {
    const auto act = [&](uint32_t lane, uint8_t* bytes, uint8_t* undefined_bytes, Space space) {
        for (uint32_t n = 0; n < i.elements; ++n) {
            const auto value = static_cast<T>(warp.slot<R>(i.vector[n])[lane]);
            const auto undefined = static_cast<T>(warp.undefined_in<R>(i.vector[n], lane));
            std::memcpy(bytes + n * sizeof(T), &value, sizeof(T));
            std::memcpy(undefined_bytes + n * sizeof(T), &undefined, sizeof(T));
            if (space != Space::kGlobal || undefined == 0) continue;
            machine.fail_undefined(warp, 1u << lane, "writes to global memory what depends on memory");
        }
    };
    for_lanes<Use::kStore>(machine, warp, i, sizeof(T) * i.elements, act);
}

struct Add { template <class T> static T of(T old, T b, T) { return static_cast<T>(old + b); } };
struct Min { template <class T> static T of(T old, T b, T) { return std::min(old, b); } };
struct Max { template <class T> static T of(T old, T b, T) { return std::max(old, b); } };
struct And { template <class T> static T of(T old, T b, T) { return old & b; } };
struct Or { template <class T> static T of(T old, T b, T) { return old | b; } };
struct Xor { template <class T> static T of(T old, T b, T) { return old ^ b; } };
struct Exchange { template <class T> static T of(T, T b, T) { return b; } };
struct CompareAndSwap { template <class T> static T of(T old, T b, T c) { return old == b ? c : old; } };

// atom has its target in vector[0] and its operands from from[1] on; red has its operand in vector[0].
template <class F, class T, bool returns>
void atomic(Machine& machine, Warp& warp, const Instruction& i) {
    for_lanes<Use::kAtomic>(
        machine, warp, i, sizeof(T), [&](uint32_t lane, uint8_t* bytes, const uint8_t* undefined_bytes, Space) {
            using R = std::make_unsigned_t<T>;
            T old, undefined;
            std::memcpy(&old, bytes, sizeof(T));
            std::memcpy(&undefined, undefined_bytes, sizeof(T));
            if (undefined != 0) machine.fail(warp, lane, "changes shared memory that nothing has written");
            for (const uint32_t operand : {returns ? i.from[1] : i.vector[0], i.from[2]}) {
                if (operand != kNone && warp.lanes_undefined(operand) >> lane & 1)
                    machine.fail_undefined(warp, 1u << lane, "an atomic operation depends on memory");
            }
            const T b = static_cast<T>(warp.slot<R>(returns ? i.from[1] : i.vector[0])[lane]);
            const T c = i.from[2] == kNone ? T(0) : static_cast<T>(warp.slot<R>(i.from[2])[lane]);
            const T value = F::of(old, b, c);
            std::memcpy(bytes, &value, sizeof(T));
            if (!returns) return;
            warp.slot<R>(i.vector[0])[lane] = static_cast<R>(old);
            warp.set_undefined(i.vector[0], lane, R(0));
        });
}

template <class T>
Handler plain_handler(bool loads, bool wide) {
    if (wide) return loads ? &load<T, uint64_t> : &store<T, uint64_t>;
    return loads ? &load<T, uint32_t> : &store<T, uint32_t>;
}

template <class T>
Handler atomic_handler(const std::string& operation, bool returns) {
    static const std::map<std::string, std::pair<Handler, Handler>> kHandlers = {
        {"add", {&atomic<Add, T, true>, &atomic<Add, T, false>}},
        {"min", {&atomic<Min, T, true>, &atomic<Min, T, false>}},
        {"max", {&atomic<Max, T, true>, &atomic<Max, T, false>}},
        {"and", {&atomic<And, T, true>, &atomic<And, T, false>}},
        {"or", {&atomic<Or, T, true>, &atomic<Or, T, false>}},
        {"xor", {&atomic<Xor, T, true>, &atomic<Xor, T, false>}},
        {"exch", {&atomic<Exchange, T, true>, nullptr}},
        {"cas", {&atomic<CompareAndSwap, T, true>, nullptr}},
    };
    const auto found = kHandlers.find(operation);
    if (found == kHandlers.end()) return nullptr;
    return returns ? found->second.first : found->second.second;
}

bool is_one_of(const std::string& word, std::initializer_list<const char*> words) {
    return std::find(words.begin(), words.end(), word) != words.end();
}

}  // namespace

MemoryOperation memory_operation(const std::vector<std::string>& opcode, RegisterClass data) {
    MemoryOperation operation;
    std::string act;
    for (size_t n = 1; n + 1 < opcode.size(); ++n) {
        const std::string& word = opcode[n];
        if (word == "global") operation.space = Space::kGlobal;
        else if (word == "shared") operation.space = Space::kShared;
        else if (word == "local") operation.space = Space::kLocal;
        else if (word == "param") operation.space = Space::kParam;
        else if (word == "v2" || word == "v4") operation.elements = word[1] == '2' ? 2 : 4;
        else if (word == "nc") operation.read_only = true;
        else if (is_one_of(word, {"add", "min", "max", "and", "or", "xor", "exch", "cas"})) act = word;
        else if (!is_one_of(word, {"ca", "cg", "cs", "lu", "cv", "wb", "wt", "volatile", "relaxed", "gpu", "cta"}))
            return {};
    }
    const std::string& type = opcode.back();
    const bool wide = data == RegisterClass::kLong;
    if (opcode[0] == "ld" || opcode[0] == "st") {
        const bool loads = opcode[0] == "ld";
        operation.run = is_one_of(type, {"u8", "b8"})     ? plain_handler<uint8_t>(loads, wide)
                        : type == "s8"                    ? plain_handler<int8_t>(loads, wide)
                        : is_one_of(type, {"u16", "b16"}) ? plain_handler<uint16_t>(loads, wide)
                        : type == "s16"                   ? plain_handler<int16_t>(loads, wide)
                        : is_one_of(type, {"u32", "b32"}) ? plain_handler<uint32_t>(loads, wide)
                        : type == "s32"                   ? plain_handler<int32_t>(loads, wide)
                        : wide                            ? plain_handler<uint64_t>(loads, wide)
                                                          : nullptr;
        return operation;
    }
    const bool returns = opcode[0] == "atom";
    operation.run = is_one_of(type, {"u32", "b32"})   ? atomic_handler<uint32_t>(act, returns)
                    : type == "s32"                   ? atomic_handler<int32_t>(act, returns)
                    : is_one_of(type, {"u64", "b64"}) ? atomic_handler<uint64_t>(act, returns)
                    : type == "s64"                   ? atomic_handler<int64_t>(act, returns)
                                                      : nullptr;
    return operation;
}

}  // namespace dumont::ptx
