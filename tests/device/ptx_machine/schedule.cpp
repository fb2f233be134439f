// The launch: block after block, warps in turn, and of a warp the lanes that are at the same instruction together.
//
// Lanes go on independently. Those with the smallest address go first, so lanes that took different ways meet again as
// soon as they can; with a drawn order, now and then others do.
#include <algorithm>
#include <cstring>

#include "machine.h"

namespace dumont::ptx {
namespace {

constexpr uint32_t kMaxShared = 227 * 1024;         // the most that any device gives to a block, Hopper
constexpr uint64_t kTurn = 1ull << 20, kShortTurn = 300;  // of a warp
constexpr uint32_t kVectorAlignment = 64;

uint64_t special_value(const std::string& name, const Warp& warp, uint32_t lane, uint32_t threads, uint32_t block,
                       uint32_t grid) {
    const uint32_t below = (1u << lane) - 1;
    if (name == "%tid.x") return warp.number * kLanes + lane;
    if (name == "%ntid.x") return threads;
    if (name == "%ctaid.x") return block;
    if (name == "%nctaid.x") return grid;
    if (name == "%tid.y" || name == "%tid.z" || name == "%ctaid.y" || name == "%ctaid.z") return 0;
    if (name == "%ntid.y" || name == "%ntid.z" || name == "%nctaid.y" || name == "%nctaid.z") return 1;
    if (name == "%laneid") return lane;
    if (name == "%lanemask_lt") return below;
    if (name == "%lanemask_le") return below | 1u << lane;
    if (name == "%lanemask_gt") return ~(below | 1u << lane);
    if (name == "%lanemask_ge") return ~below;
    if (name == "%lanemask_eq") return 1u << lane;
    throw Failure("no special register " + name);
}

}  // namespace

void Warp::activate(uint32_t mask) {
    active = mask;
    for (uint32_t lane = 0; lane < kLanes; ++lane) lanes[lane] = mask >> lane & 1 ? ~0u : 0;
}

std::string Machine::place(uint32_t instruction) const {
    const Statement& statement = kernel->function->statements[kernel->code[instruction].statement];
    for (const auto& program : programs_) {
        if (kernel->function < program->functions.data()) continue;
        if (kernel->function >= program->functions.data() + program->functions.size()) continue;
        const auto file = program->files.find(statement.source.file);
        if (file == program->files.end()) break;
        return file->second + ":" + std::to_string(statement.source.line) + ": " + statement.text;
    }
    return statement.text;
}

void Machine::fail(const Warp& warp, uint32_t lane, const std::string& what) const {
    throw Failure(kernel->function->name + ": block " + std::to_string(block_) + ", thread " +
                  std::to_string(warp.number * kLanes + lane) + ": " + what + "; " + place(warp.current));
}

void Machine::fail_undefined(const Warp& warp, uint32_t lanes, const std::string& what) const {
    fail(warp, static_cast<uint32_t>(__builtin_ctz(lanes)),
         what + " that nothing has written, read at (" + place(warp.undefined_since) + ")");
}

void Machine::load(const std::string& text) {
    programs_.push_back(std::make_unique<Program>(parse(text)));
    for (const Function& function : programs_.back()->functions)
        kernels[function.name] = decode(*programs_.back(), function);
}

void Machine::launch(const std::string& name, uint32_t grid, uint32_t block, uint32_t dynamic_shared,
                     void** arguments) {
    const auto found = kernels.find(name);
    if (found == kernels.end()) throw Failure(name + ": no such kernel");
    kernel = &found->second;
    if (grid == 0 || grid > 0x7FFFFFFF) throw Failure("a grid has 1 to 2147483647 blocks");
    if (block == 0 || block > kMaxThreads) throw Failure("a block has 1 to 1024 threads");
    shared_size = kernel->function->shared_size + static_cast<uint64_t>(dynamic_shared);
    if (shared_size > kMaxShared) throw Failure("no device has that much shared memory");
    grid_ = grid;
    threads_ = block;
    random_.seed(order);
    prepare(block, arguments);
    races.start_launch();
    for (block_ = 0; block_ < grid; ++block_) {
        start_block();
        run_block();
    }
}

void Machine::prepare(uint32_t block, void** arguments) {
    const uint32_t count = (block + kLanes - 1) / kLanes;
    const uint64_t stride = kernel->register_bytes;  // a multiple of a register's 128 bytes
    shared.resize(std::max(shared.size(), static_cast<size_t>(shared_size)));
    shared_undefined.resize(shared.size());
    registers_.resize(std::max(registers_.size(), static_cast<size_t>(count * stride + kVectorAlignment)));
    undefined_.resize(registers_.size());
    undefined_lanes_.assign(count * (stride / (4 * kLanes) + kernel->predicates), 0);
    predicates_.resize(std::max(predicates_.size(), static_cast<size_t>(count) * kernel->predicates));
    local_.resize(std::max(local_.size(), static_cast<size_t>(block + kLanes) * kernel->function->local_size));
    parameters.clear();
    for (size_t i = 0; i < kernel->function->parameter_sizes.size(); ++i) {
        const uint32_t size = kernel->function->parameter_sizes[i];
        const uint32_t alignment = std::min(size & -size, 8u);
        parameters.resize((parameters.size() + alignment - 1) / alignment * alignment);
        const auto* bytes = static_cast<const uint8_t*>(arguments[i]);
        parameters.insert(parameters.end(), bytes, bytes + size);
    }
    warps_.resize(count);
    clocks_.resize(count);
    uint8_t* base = registers_.data() + (-reinterpret_cast<uintptr_t>(registers_.data()) & (kVectorAlignment - 1));
    for (uint32_t w = 0; w < count; ++w) {
        Warp& warp = warps_[w];
        clocks_[w] = &warp.clocks;
        warp.number = w;
        warp.exists = block - w * kLanes >= kLanes ? ~0u : (1u << (block - w * kLanes)) - 1;
        warp.registers = base + w * stride;
        warp.undefined = undefined_.data() + w * stride;
        warp.undefined_lanes = undefined_lanes_.data() + w * (stride / (4 * kLanes));
        warp.undefined_predicates = undefined_lanes_.data() + count * (stride / (4 * kLanes)) + w * kernel->predicates;
        warp.predicates = predicates_.data() + w * kernel->predicates;
        warp.local = local_.data() + static_cast<uint64_t>(w) * kLanes * kernel->function->local_size;
        for (const Constant& constant : kernel->constants) {
            for (uint32_t lane = 0; lane < kLanes && constant.special.empty(); ++lane) {
                if (constant.register_class == RegisterClass::kLong)
                    warp.slot<uint64_t>(constant.slot)[lane] = constant.value;
                else warp.slot<uint32_t>(constant.slot)[lane] = static_cast<uint32_t>(constant.value);
            }
        }
    }
}

void Machine::start_block() {
    std::fill_n(shared.begin(), shared_size, fill);
    std::fill_n(shared_undefined.begin(), shared_size, uint8_t{0xFF});
    arrived_ = 0;
    races.start_block(clocks_.data(), static_cast<uint32_t>(clocks_.size()));
    for (Warp& warp : warps_) {
        warp.ready = warp.exists;
        warp.waiting = warp.returned = 0;
        std::fill_n(warp.pc, kLanes, 0);
        for (const Constant& constant : kernel->constants) {
            for (uint32_t lane = 0; lane < kLanes && !constant.special.empty(); ++lane) {
                const uint64_t value = special_value(constant.special, warp, lane, threads_, block_, grid_);
                if (constant.register_class == RegisterClass::kLong) warp.slot<uint64_t>(constant.slot)[lane] = value;
                else warp.slot<uint32_t>(constant.slot)[lane] = static_cast<uint32_t>(value);
            }
        }
    }
}

uint32_t Machine::pick(uint32_t set) {
    if (order == 0) return static_cast<uint32_t>(__builtin_ctz(set));
    if (order == 1) return 31 - static_cast<uint32_t>(__builtin_clz(set));
    for (uint32_t skip = static_cast<uint32_t>(random_()) % static_cast<uint32_t>(__builtin_popcount(set)); skip > 0;
         --skip)
        set &= set - 1;
    return static_cast<uint32_t>(__builtin_ctz(set));
}

void Machine::run_block() {
    for (uint64_t steps = 0;;) {
        uint32_t ready = 0, live = 0;
        for (const Warp& warp : warps_) {
            ready |= (warp.ready != 0) << warp.number;
            live |= (warp.returned != warp.exists) << warp.number;
        }
        if (live == 0) return;
        if (ready == 0) report_stall();
        Warp& warp = warps_[pick(ready)];
        steps += run_warp(warp, order < 2 ? kTurn : 1 + random_() % kShortTurn);
        if (steps > most_steps) fail(warp, 0, "the block does not end");
    }
}

uint64_t Machine::run_warp(Warp& warp, uint64_t budget) {
    uint64_t steps = 0;
    while (warp.ready != 0 && steps < budget) {
        uint32_t pc = ~0u;
        for (uint32_t lane = 0; lane < kLanes; ++lane) {
            if (warp.ready >> lane & 1) pc = std::min(pc, warp.pc[lane]);
        }
        if (order >= 2 && random_() % 4 == 0) pc = warp.pc[pick(warp.ready)];
        uint32_t group = 0;
        uint32_t limit = ~0u;  // where the group meets others
        for (uint32_t lane = 0; lane < kLanes; ++lane) {
            if (!(warp.ready >> lane & 1)) continue;
            if (warp.pc[lane] == pc) group |= 1u << lane;
            if (warp.pc[lane] > pc) limit = std::min(limit, warp.pc[lane]);
        }
        steps += run_group(warp, group, limit, budget - steps);
    }
    return steps;
}

// Until the group parts, waits, ends, or comes to where others are; returns the instructions executed.
uint64_t Machine::run_group(Warp& warp, uint32_t group, uint32_t limit, uint64_t budget) {
    const Instruction* const code = kernel->code.data();
    auto& counts = kernel->counts.instructions;
    uint32_t pc = warp.pc[__builtin_ctz(group)];
    uint64_t steps = 0;
    const auto stand = [&warp](uint32_t lanes, uint32_t at) {
        for (uint32_t lane = 0; lane < kLanes; ++lane) warp.pc[lane] = lanes >> lane & 1 ? at : warp.pc[lane];
    };
    warp.activate(group);
    for (; pc < limit && steps < budget; ++steps) {
        const Instruction& i = code[pc];
        ++counts[static_cast<size_t>(i.count)];
        warp.current = pc;
        uint32_t taken = group;
        if (i.guard != kNone) {
            const uint32_t undefined = warp.undefined_predicates[i.guard] & group;
            if (undefined != 0) fail_undefined(warp, undefined, "a branch depends on memory");
            taken &= i.guard_negated ? ~warp.predicates[i.guard] : warp.predicates[i.guard];
        }
        if (i.step == Step::kPlain) {
            if (taken == group) {
                i.run(*this, warp, i);
            } else if (taken != 0) {
                warp.activate(taken);
                i.run(*this, warp, i);
                warp.activate(group);
            }
            ++pc;
        } else if (taken == 0) {
            ++pc;
        } else if (i.step == Step::kBranch) {
            if (taken != group) {
                ++kernel->counts.divergent_branches;
                stand(taken, i.target);
                stand(group & ~taken, pc + 1);
                return steps + 1;
            }
            pc = i.target;
        } else if (i.step == Step::kExit) {
            warp.returned |= taken;
            warp.ready &= ~taken;
            group &= ~taken;
            if (group == 0) return steps + 1;
            warp.activate(group);
            ++pc;
        } else if (i.step == Step::kTrap) {
            fail(warp, static_cast<uint32_t>(__builtin_ctz(taken)), "__trap");
        } else if (taken != group) {
            fail(warp, static_cast<uint32_t>(__builtin_ctz(taken)), "a collective under a predicate that differs");
        } else if (i.weakened && (i.collective == Collective::kSyncWarp || i.collective == Collective::kSyncBlock)) {
            ++pc;
        } else if (i.step == Step::kWarpCollective) {
            if (!collect(warp, group, pc)) return steps + 1;
            ++pc;
        } else {
            arrive(warp, group, pc);
            return steps + 1;
        }
    }
    stand(group, pc);
    return steps;
}

}  // namespace dumont::ptx
