// What a kernel's launches have executed, in warp instructions.
#pragma once

#include <array>
#include <cstdint>
#include <string>

namespace dumont::ptx {

enum class CountClass : uint8_t {
    kInteger,
    kCompare,
    kMove,
    kBranch,
    kCollective,
    kBarrier,
    kGlobal,
    kShared,
    kLocal,
    kAtomic,
    kOther,
};
constexpr uint32_t kCountClasses = 11;

struct Counts {
    std::array<uint64_t, kCountClasses> instructions = {};
    uint64_t divergent_branches = 0;
    // Only while Machine::counting:
    uint64_t active_lanes = 0;  // of memory accesses
    uint64_t shared_accesses = 0, shared_wavefronts = 0, shared_least = 0;
    uint64_t global_accesses = 0, global_sectors = 0, global_least = 0;

    // `addresses` of the active lanes, each of `size` bytes.
    void shared_access(const uint64_t* addresses, uint32_t lanes, uint32_t size);
    void global_access(const uint64_t* addresses, uint32_t lanes, uint32_t size);
    std::string json() const;
};

}  // namespace dumont::ptx
