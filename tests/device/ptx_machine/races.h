// Who has touched each byte of shared and global memory, and whether a barrier lies between two accesses.
//
// A clock advances with every barrier. A stamp names an access: clock, instruction, thread, atomic or not. Two accesses
// of different threads are ordered if a barrier of the block lies between them, or barriers of the warp that carry the
// first one's clock to the second's lane. Blocks of a launch are never ordered; launches are.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <unordered_map>

namespace dumont::ptx {

using Stamp = uint64_t;  // clock: 32 bits, instruction: 21, thread: 10, atomic: 1

constexpr Stamp kAtomicBit = 1;
constexpr uint32_t kThreadShift = 1, kInstructionShift = 11, kClockShift = 32;
constexpr Stamp kHostMark = ~Stamp{0};  // in `write`: the host says that these bytes hold nothing yet

inline uint32_t thread_of(Stamp stamp) {
    return static_cast<uint32_t>(stamp >> kThreadShift & 1023);
}
inline uint32_t instruction_of(Stamp stamp) {
    return static_cast<uint32_t>(stamp >> kInstructionShift & 0x1FFFFF);
}

struct WarpClocks {
    uint32_t own[32];        // of each lane
    uint32_t known[32][32];  // [a][b]: what lane a has seen of lane b
};

// The last write of each byte, and two reads since that nothing orders.
struct Shadow {
    static constexpr uint64_t kPage = 1 << 14;

    Stamp write[kPage], read[kPage], other_read[kPage];
};

struct Access {
    uint32_t thread;
    uint32_t clock;
    uint32_t instruction;
    const uint32_t* known;  // of the warp's lanes
    bool global;

    Stamp stamp() const {
        return static_cast<Stamp>(clock) << kClockShift | static_cast<Stamp>(instruction) << kInstructionShift |
               static_cast<Stamp>(thread) << kThreadShift;
    }
};

class Races {
public:
    enum class Found : uint8_t { kNothing, kUnwritten, kRace, kReadOnlyWritten };
    struct Finding {
        Found found = Found::kNothing;
        Stamp other = 0;
        bool other_wrote = false;
        bool other_block = false;
    };

    void start_launch() { launch_ = advance(); }
    void start_block(WarpClocks* const* warps, uint32_t count);
    void order_block(WarpClocks* const* warps, uint32_t count);
    void order_warp(WarpClocks& clocks, uint32_t mask);

    // Sets `undefined` of those bytes that the host has marked and no kernel has written since.
    Finding read(const Access& access, uint64_t address, uint32_t size, bool read_only, uint8_t* undefined);
    Finding write(const Access& access, uint64_t address, uint32_t size, bool atomic);
    // The host's word on global memory before a launch.
    void mark_unwritten(uint64_t address, uint64_t size);

private:
    Stamp advance() { return static_cast<Stamp>(++now_) << kClockShift; }
    Shadow& page(bool global, uint64_t number);
    bool stale(const Access& access, Stamp other) const {  // settled long ago, without a look at clocks
        if (!access.global) return other < barrier_;
        return other < launch_ || (other >= block_ && other < barrier_);
    }
    bool ordered(const Access& access, Stamp other) const;
    Finding race(Stamp other, bool wrote) const { return {Found::kRace, other, wrote, other < block_}; }

    uint32_t now_ = 0;
    Stamp launch_ = 0, block_ = 0, barrier_ = 0;
    std::unordered_map<uint64_t, std::unique_ptr<Shadow>> pages_[2];  // of shared and global memory
    uint64_t last_number_[2] = {~0ull, ~0ull};
    Shadow* last_[2] = {};
};

}  // namespace dumont::ptx
