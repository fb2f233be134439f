// Where lanes wait for one another: barriers, shuffles, votes, matches and reductions.
#include <algorithm>

#include "machine.h"

namespace dumont::ptx {
namespace {

const char* name_of(Collective kind) {
    static const char* const kNames[] = {
        "nowhere",           "__syncwarp",        "__shfl_up_sync",    "__shfl_down_sync",  "__shfl_xor_sync",
        "__shfl_sync",       "__ballot_sync",     "__any_sync",        "__all_sync",        "__match_any_sync",
        "__reduce_add_sync", "__reduce_min_sync", "__reduce_max_sync", "__reduce_and_sync", "__reduce_or_sync",
        "__reduce_xor_sync", "__syncthreads",     "__syncthreads_and", "__syncthreads_or",  "__syncthreads_count"};
    return kNames[static_cast<size_t>(kind)];
}

std::string describe(Collective kind, uint32_t mask) {
    char text[64];
    std::snprintf(text, sizeof text, kind >= Collective::kSyncBlock ? "%s" : "%s with mask %08x", name_of(kind), mask);
    return text;
}

bool is_shuffle(Collective kind) {
    return kind >= Collective::kShuffleUp && kind <= Collective::kShuffleIdx;
}

uint32_t mask_of(Warp& warp, uint32_t lane, const Instruction& instruction) {
    return warp.slot<uint32_t>(instruction.from[3])[lane];
}

uint64_t value_of(Warp& warp, uint32_t lane, const Instruction& instruction) {
    if (instruction.from[0] == kNone) return 0;
    if (instruction.wide_address) return warp.slot<uint64_t>(instruction.from[0])[lane];
    return warp.slot<uint32_t>(instruction.from[0])[lane];
}

bool predicate_of(const Warp& warp, uint32_t lane, const Instruction& instruction) {
    if (instruction.from[1] == kNone) return instruction.displacement != 0;
    return (warp.predicates[instruction.from[1]] >> lane & 1) != instruction.predicate_negated;
}

void put(Warp& warp, uint32_t lane, const Instruction& instruction, uint32_t value) {
    const uint32_t bit = 1u << lane;
    if (instruction.to != kNone) {
        warp.slot<uint32_t>(instruction.to)[lane] = value;
        warp.lanes_undefined(instruction.to) &= ~bit;
    } else if (instruction.to_predicate != kNone) {
        uint32_t& predicate = warp.predicates[instruction.to_predicate];
        predicate = value != 0 ? predicate | bit : predicate & ~bit;
        warp.undefined_predicates[instruction.to_predicate] &= ~bit;
    }
}

uint32_t reduce(const Instruction& instruction, uint32_t a, uint32_t b) {
    const bool less = instruction.is_signed ? static_cast<int32_t>(a) < static_cast<int32_t>(b) : a < b;
    switch (instruction.collective) {
        case Collective::kReduceAdd: return a + b;
        case Collective::kReduceMin: return less ? a : b;
        case Collective::kReduceMax: return less ? b : a;
        case Collective::kReduceAnd: return a & b;
        case Collective::kReduceOr: return a | b;
        default: return a ^ b;
    }
}

struct ShuffleSource {
    uint32_t lane;
    bool inside;  // of its segment
};

// As the PTX manual has it, for shfl.sync.
ShuffleSource shuffle_source(Warp& warp, uint32_t lane, const Instruction& instruction) {
    const uint32_t b = warp.slot<uint32_t>(instruction.from[1])[lane] & 31;
    const uint32_t c = warp.slot<uint32_t>(instruction.from[2])[lane];
    const uint32_t segment = c >> 8 & 31;
    const auto last = static_cast<int32_t>((lane & segment) | (c & 31 & ~segment));
    const auto own = static_cast<int32_t>(lane), delta = static_cast<int32_t>(b);
    int32_t source = 0;
    bool inside = false;
    switch (instruction.collective) {
        case Collective::kShuffleUp: source = own - delta, inside = source >= last; break;
        case Collective::kShuffleDown: source = own + delta, inside = source <= last; break;
        case Collective::kShuffleBfly: source = own ^ delta, inside = source <= last; break;
        default: source = static_cast<int32_t>((lane & segment) | (b & ~segment)), inside = source <= last;
    }
    return {inside ? static_cast<uint32_t>(source) : lane, inside};
}

}  // namespace

// All lanes see the result: where one lane's part of it is not defined, none knows anything. A shuffle only hands
// values on.
void Machine::refuse_undefined(Warp& warp, uint32_t lane, const Instruction& instruction) const {
    const auto in_register = [&](uint32_t slot) {
        return slot != kNone && (warp.lanes_undefined(slot) >> lane & 1) != 0;
    };
    const bool shuffle = is_shuffle(instruction.collective);
    const bool vote =
        !shuffle && instruction.from[1] != kNone && (warp.undefined_predicates[instruction.from[1]] >> lane & 1);
    const bool direction = shuffle && (in_register(instruction.from[1]) || in_register(instruction.from[2]));
    const bool value = !shuffle && in_register(instruction.from[0]);
    if (vote || direction || value || in_register(instruction.from[3]))
        fail_undefined(warp, 1u << lane, std::string(name_of(instruction.collective)) + " depends on memory");
}

bool Machine::all_there(Warp& warp, uint32_t mask, uint32_t like) {
    if ((warp.waiting & mask) != mask) return false;
    const Instruction& first = kernel->code[like];
    for (uint32_t rest = mask; rest != 0; rest &= rest - 1) {
        const auto lane = static_cast<uint32_t>(__builtin_ctz(rest));
        const Instruction& other = kernel->code[warp.pc[lane]];
        if (other.collective != first.collective || other.is_signed != first.is_signed) return false;
        if (mask_of(warp, lane, other) != mask) return false;
    }
    return true;
}

bool Machine::collect(Warp& warp, uint32_t group, uint32_t pc) {
    const Instruction& instruction = kernel->code[pc];
    warp.waiting |= group;
    warp.ready &= ~group;
    for (uint32_t rest = group; rest != 0; rest &= rest - 1) {
        const auto lane = static_cast<uint32_t>(__builtin_ctz(rest));
        const uint32_t mask = mask_of(warp, lane, instruction);
        warp.pc[lane] = pc;
        const auto refuse = [&](const std::string& why) {
            fail(warp, lane, describe(instruction.collective, mask) + why);
        };
        if (!(mask >> lane & 1)) refuse(", which lacks the calling lane");
        if (mask & ~warp.exists) refuse(", which names lanes that the block does not have");
    }
    for (uint32_t rest = group; rest != 0;) {
        const auto lane = static_cast<uint32_t>(__builtin_ctz(rest));
        const uint32_t mask = mask_of(warp, lane, instruction);
        rest &= rest - 1;
        if (!all_there(warp, mask, pc)) continue;
        rest &= ~mask;
        complete(warp, mask);
        for (uint32_t done = mask; done != 0; done &= done - 1) ++warp.pc[__builtin_ctz(done)];
        warp.waiting &= ~mask;
        warp.ready |= mask;
        if (mask == group) return true;
    }
    return false;
}

// Each lane has its own instruction: the compiler may have written one collective of the source at two places.
void Machine::complete(Warp& warp, uint32_t mask) {
    const auto instruction_of_lane = [&](uint32_t lane) -> const Instruction& { return kernel->code[warp.pc[lane]]; };
    const auto first = static_cast<uint32_t>(__builtin_ctz(mask));
    const Instruction& any = instruction_of_lane(first);
    const Collective kind = any.collective;
    if (kind == Collective::kSyncWarp) {
        if (!any.weakened) races.order_warp(warp.clocks, mask);
        return;
    }
    uint64_t values[kLanes] = {};
    uint32_t undefined[kLanes] = {};
    uint32_t votes = 0;
    uint32_t total = 0;
    for (uint32_t rest = mask; rest != 0; rest &= rest - 1) {
        const auto lane = static_cast<uint32_t>(__builtin_ctz(rest));
        const Instruction& own = instruction_of_lane(lane);
        values[lane] = value_of(warp, lane, own);
        refuse_undefined(warp, lane, own);
        if (is_shuffle(kind)) undefined[lane] = warp.undefined_in<uint32_t>(own.from[0], lane);
        if (kind >= Collective::kBallot && kind <= Collective::kAll)
            votes |= static_cast<uint32_t>(predicate_of(warp, lane, own)) << lane;
        const auto value = static_cast<uint32_t>(values[lane]);
        total = lane == first ? value : reduce(any, total, value);
    }
    uint32_t results[kLanes], sources[kLanes] = {}, inside = 0;
    for (uint32_t rest = mask; rest != 0; rest &= rest - 1) {
        const auto lane = static_cast<uint32_t>(__builtin_ctz(rest));
        uint32_t& result = results[lane];
        if (is_shuffle(kind)) {
            const ShuffleSource source = shuffle_source(warp, lane, instruction_of_lane(lane));
            if (!(mask >> source.lane & 1)) {
                fail(warp, lane,
                     describe(kind, mask) + " reads lane " + std::to_string(source.lane) + " outside of it");
            }
            result = static_cast<uint32_t>(values[source.lane]);
            sources[lane] = source.lane;
            inside |= static_cast<uint32_t>(source.inside) << lane;
        } else if (kind == Collective::kMatchAny) {
            result = 0;
            for (uint32_t other = 0; other < kLanes; ++other) {
                if (mask >> other & 1) result |= static_cast<uint32_t>(values[other] == values[lane]) << other;
            }
        } else {
            result = kind == Collective::kBallot ? votes
                     : kind == Collective::kAny  ? votes != 0
                     : kind == Collective::kAll  ? votes == mask
                                                 : total;
        }
    }
    for (uint32_t rest = mask; rest != 0; rest &= rest - 1) {
        const auto lane = static_cast<uint32_t>(__builtin_ctz(rest));
        const Instruction& own = instruction_of_lane(lane);
        put(warp, lane, own, results[lane]);
        if (is_shuffle(kind)) warp.set_undefined(own.to, lane, undefined[sources[lane]]);
        if (!is_shuffle(kind) || own.to_predicate == kNone) continue;
        uint32_t& predicate = warp.predicates[own.to_predicate];
        predicate = (predicate & ~(1u << lane)) | (inside & 1u << lane);
        warp.undefined_predicates[own.to_predicate] &= ~(1u << lane);
    }
}

void Machine::arrive(Warp& warp, uint32_t group, uint32_t pc) {
    warp.waiting |= group;
    warp.ready &= ~group;
    for (uint32_t rest = group; rest != 0; rest &= rest - 1) warp.pc[__builtin_ctz(rest)] = pc;
    arrived_ += static_cast<uint32_t>(__builtin_popcount(group));
    if (arrived_ == threads_) release_block();
}

void Machine::release_block() {
    const Instruction& any = kernel->code[warps_[0].pc[0]];
    uint32_t votes = 0;
    for (Warp& warp : warps_) {
        const Instruction& instruction = kernel->code[warp.pc[0]];
        for (uint32_t rest = warp.exists; rest != 0; rest &= rest - 1) {
            const auto lane = static_cast<uint32_t>(__builtin_ctz(rest));
            if (warp.pc[lane] != warp.pc[0])
                fail(warp, lane, "comes to a barrier of the block where others of its warp come to another");
            refuse_undefined(warp, lane, instruction);
            votes += predicate_of(warp, lane, instruction);
        }
        if (instruction.collective != any.collective)
            fail(warp, 0, "comes to another kind of barrier than other warps");
    }
    const bool all = any.collective == Collective::kBlockAnd;
    const uint32_t result = any.collective == Collective::kBlockPopc ? votes : all ? votes == threads_ : votes != 0;
    for (Warp& warp : warps_) {
        const Instruction& instruction = kernel->code[warp.pc[0]];
        for (uint32_t lane = 0; lane < kLanes; ++lane) {
            if (warp.exists >> lane & 1) put(warp, lane, instruction, result);
            ++warp.pc[lane];
        }
        warp.waiting = 0;
        warp.ready = warp.exists;
    }
    arrived_ = 0;
    if (!any.weakened) races.order_block(clocks_.data(), static_cast<uint32_t>(clocks_.size()));
}

std::string Machine::state(uint32_t thread) {
    Warp& warp = warps_[thread / kLanes];
    const uint32_t lane = thread % kLanes;
    if (warp.returned >> lane & 1) return "returned";
    const Instruction& instruction = kernel->code[warp.pc[lane]];
    const bool block = instruction.step == Step::kBlockBarrier;
    return "at " + describe(instruction.collective, block ? 0 : mask_of(warp, lane, instruction));
}

void Machine::report_stall() {
    std::string text = kernel->function->name + ": block " + std::to_string(block_) + ": deadlock:";
    std::string last;
    for (uint32_t first = 0, end = 0; first < threads_; first = end) {
        const std::string here = state(first);
        for (end = first + 1; end < threads_ && state(end) == here;) ++end;
        text += first == 0 ? " " : "; ";
        text += end == first + 1 ? "thread " + std::to_string(first)
                                 : "threads " + std::to_string(first) + " to " + std::to_string(end - 1);
        text += " " + here;
        const Warp& warp = warps_[first / kLanes];
        if (!(warp.returned >> first % kLanes & 1)) last = place(warp.pc[first % kLanes]);
    }
    throw Failure(text + "; " + last);
}

}  // namespace dumont::ptx
