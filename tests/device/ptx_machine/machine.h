// What executes: instructions, warps, and the state of a launch.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "counts.h"
#include "memory.h"
#include "program.h"
#include "races.h"

namespace dumont::ptx {

constexpr uint32_t kLanes = 32;
constexpr uint32_t kMaxThreads = 1024;
constexpr uint32_t kNone = ~0u;

class Machine;
struct Warp;
struct Instruction;

using Handler = void (*)(Machine&, Warp&, const Instruction&);

enum class Step : uint8_t { kPlain, kBranch, kExit, kTrap, kWarpCollective, kBlockBarrier };

enum class Collective : uint8_t {
    kNone,
    kSyncWarp,
    kShuffleUp,
    kShuffleDown,
    kShuffleBfly,
    kShuffleIdx,
    kBallot,
    kAny,
    kAll,
    kMatchAny,
    kReduceAdd,
    kReduceMin,
    kReduceMax,
    kReduceAnd,
    kReduceOr,
    kReduceXor,
    kSyncBlock,
    kBlockAnd,
    kBlockOr,
    kBlockPopc,
};

// Registers are named by the offset of their 32 lanes in the warp's memory, predicates by their number.
struct Instruction {
    Handler run = nullptr;
    Step step = Step::kPlain;
    CountClass count = CountClass::kOther;
    Space space = Space::kNone;
    Collective collective = Collective::kNone;
    bool guard_negated = false;
    bool predicate_negated = false;
    bool is_signed = false;
    bool read_only = false;     // ld.global.nc
    bool wide_address = false;  // in a 64-bit register
    bool weakened = false;      // a barrier of which a mutation test takes the effect away
    uint8_t bits[2] = {};       // of cvt: target, source
    uint32_t guard = kNone;
    uint32_t to = kNone, to_predicate = kNone;
    uint32_t from[4] = {kNone, kNone, kNone, kNone};
    uint32_t vector[4] = {};   // the registers of a vector access
    uint32_t elements = 1;     // of a vector access
    int64_t displacement = 0;  // of an address
    uint32_t target = 0;       // of a branch
    uint32_t statement = 0;    // where it comes from
};

struct Constant {
    uint32_t slot;
    RegisterClass register_class;
    uint64_t value;
    std::string special;  // if not empty: the special register that it holds instead
};

struct Kernel {
    const Function* function;
    std::vector<Instruction> code;
    std::vector<Constant> constants;
    std::vector<uint32_t> barriers;  // numbers of the instructions that order memory
    uint32_t register_bytes = 0;
    uint32_t predicates = 0;
    Counts counts;
};

Kernel decode(const Program& program, const Function& function);

struct Warp {
    alignas(64) uint32_t lanes[kLanes];  // ~0 for each active lane
    uint32_t active = 0;                 // the same as bits
    uint32_t pc[kLanes];
    uint32_t current = 0;  // the instruction that executes
    uint32_t number = 0;
    uint32_t exists = 0, ready = 0, waiting = 0, returned = 0;
    uint8_t* registers = nullptr;
    uint32_t* predicates = nullptr;
    uint8_t* local = nullptr;  // of all lanes
    WarpClocks clocks;

    // Bits that come from memory that nothing has written. Of a register: which lanes have some, and where that is not
    // 0 the bits themselves, which lie like the registers. Of a predicate: the lanes.
    uint32_t* undefined_lanes = nullptr;
    uint8_t* undefined = nullptr;
    uint32_t* undefined_predicates = nullptr;
    uint32_t undefined_since = 0;  // the instruction that read such memory last

    void activate(uint32_t mask);
    uint32_t& lanes_undefined(uint32_t offset) { return undefined_lanes[offset / (4 * kLanes)]; }
    template <class T>
    T* undefined_bits(uint32_t offset) {
        return reinterpret_cast<T*>(undefined + offset);
    }
    template <class T>
    T undefined_in(uint32_t offset, uint32_t lane) {
        return lanes_undefined(offset) >> lane & 1 ? undefined_bits<T>(offset)[lane] : T(0);
    }
    // Of a register that was just written in this lane.
    template <class T>
    void set_undefined(uint32_t offset, uint32_t lane, T bits) {
        uint32_t& marks = lanes_undefined(offset);
        marks = bits != 0 ? marks | 1u << lane : marks & ~(1u << lane);
        undefined_bits<T>(offset)[lane] = bits;
    }
    template <class T>
    T* slot(uint32_t offset) {
        return reinterpret_cast<T*>(registers + offset);
    }
};

class Machine {
public:
    void load(const std::string& text);
    // `arguments` as for cuLaunchKernel. Throws Failure.
    void launch(const std::string& name, uint32_t grid, uint32_t block, uint32_t dynamic_shared, void** arguments);

    uint32_t order = 0;
    uint8_t fill = 0xA5;
    bool counting = false;
    uint64_t most_steps = 1ull << 28;  // warp instructions of a block, many times what the largest needs
    std::map<std::string, Kernel> kernels;
    GlobalMemory global;
    Races races;

    // The running launch.
    Kernel* kernel = nullptr;
    std::vector<uint8_t> shared, parameters;
    std::vector<uint8_t> shared_undefined;  // bits of `shared` that nothing has written
    uint64_t shared_size = 0;

    [[noreturn]] void fail(const Warp& warp, uint32_t lane, const std::string& what) const;
    [[noreturn]] void fail_undefined(const Warp& warp, uint32_t lanes, const std::string& what) const;
    std::string place(uint32_t instruction) const;
    bool lanes_reversed() const { return order % 2 == 1; }

private:
    void prepare(uint32_t block, void** arguments);
    void start_block();
    void run_block();
    uint64_t run_warp(Warp& warp, uint64_t budget);
    uint64_t run_group(Warp& warp, uint32_t group, uint32_t limit, uint64_t budget);
    uint32_t pick(uint32_t set);

    // At collectives. True if the whole group can go on at once.
    bool collect(Warp& warp, uint32_t group, uint32_t pc);
    void refuse_undefined(Warp& warp, uint32_t lane, const Instruction& instruction) const;
    bool all_there(Warp& warp, uint32_t mask, uint32_t like);
    void complete(Warp& warp, uint32_t mask);
    void arrive(Warp& warp, uint32_t group, uint32_t pc);
    void release_block();
    std::string state(uint32_t thread);
    [[noreturn]] void report_stall();

    std::vector<std::unique_ptr<Program>> programs_;
    uint32_t grid_ = 0, block_ = 0, threads_ = 0, arrived_ = 0;
    std::vector<Warp> warps_;
    std::vector<WarpClocks*> clocks_;
    std::vector<uint8_t> registers_, undefined_, local_;
    std::vector<uint32_t> predicates_, undefined_lanes_;
    std::minstd_rand random_;
};

// The operation of an opcode that computes lane by lane, and the widths of its registers.
struct Operation {
    Handler run = nullptr;
    RegisterClass to = RegisterClass::kWord;
    std::vector<RegisterClass> from;
    CountClass count = CountClass::kInteger;
};

const std::map<std::string, Operation>& operations();
Handler conversion(RegisterClass to, RegisterClass from);
Handler predicate_handler(const std::string& opcode);

// A load, store or atomic operation.
struct MemoryOperation {
    Handler run = nullptr;
    Space space = Space::kGeneric;
    uint32_t elements = 1;
    bool read_only = false;
};
MemoryOperation memory_operation(const std::vector<std::string>& opcode, RegisterClass data);

}  // namespace dumont::ptx
