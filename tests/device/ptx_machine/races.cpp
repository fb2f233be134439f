#include "races.h"

#include <algorithm>
#include <cstring>

namespace dumont::ptx {

void Races::start_block(WarpClocks* const* warps, uint32_t count) {
    block_ = advance();
    barrier_ = block_;
    for (uint32_t w = 0; w < count; ++w) {
        std::fill_n(warps[w]->own, 32, now_);
        std::memset(warps[w]->known, 0, sizeof warps[w]->known);
    }
}

void Races::order_block(WarpClocks* const* warps, uint32_t count) {
    barrier_ = advance();
    for (uint32_t w = 0; w < count; ++w) std::fill_n(warps[w]->own, 32, now_);
}

void Races::order_warp(WarpClocks& clocks, uint32_t mask) {
    uint32_t joined[32] = {};
    for (uint32_t lane = 0; lane < 32; ++lane) {
        if (!(mask >> lane & 1)) continue;
        joined[lane] = clocks.own[lane];
        if (mask == ~0u) continue;
        for (uint32_t other = 0; other < 32; ++other)
            joined[other] = std::max(joined[other], clocks.known[lane][other]);
    }
    advance();
    for (uint32_t lane = 0; lane < 32; ++lane) {
        if (!(mask >> lane & 1)) continue;
        std::memcpy(clocks.known[lane], joined, sizeof joined);
        clocks.own[lane] = now_;
    }
}

Shadow& Races::page(bool global, uint64_t number) {
    if (number != last_number_[global]) {
        std::unique_ptr<Shadow>& shadow = pages_[global][number];
        if (!shadow) shadow = std::make_unique<Shadow>();
        last_number_[global] = number;
        last_[global] = shadow.get();
    }
    return *last_[global];
}

bool Races::ordered(const Access& access, Stamp other) const {
    if (stale(access, other)) return true;
    if (other < block_) return false;
    const uint32_t thread = thread_of(other);
    if (thread == access.thread) return true;
    return thread / 32 == access.thread / 32 && access.known[thread % 32] >= other >> kClockShift;
}

// The bytes of an access mostly have one stamp, which is looked at once.

Races::Finding Races::read(const Access& access, uint64_t address, uint32_t size, bool read_only, uint8_t* undefined) {
    Shadow& shadow = page(access.global, address / Shadow::kPage);
    const uint64_t first = address % Shadow::kPage;  // an access is aligned, so it lies in one page
    const Stamp own = access.stamp();
    Stamp good = 0, old = 0;  // a write and a read that were looked at
    bool replaces = true;
    for (uint64_t i = first; i < first + size; ++i) {
        const Stamp write = shadow.write[i];
        if (write != good) {
            if (write == kHostMark) {
                undefined[i - first] = 0xFF;
                continue;
            }
            if (read_only && write >= launch_) return {Found::kReadOnlyWritten, write, true, write < block_};
            if (!ordered(access, write)) return race(write, true);
            good = write;
        }
        if (shadow.read[i] != old) {
            old = shadow.read[i];
            replaces = ordered(access, old);
        }
        (replaces ? shadow.read : shadow.other_read)[i] = own;
    }
    return {};
}

Races::Finding Races::write(const Access& access, uint64_t address, uint32_t size, bool atomic) {
    Shadow& shadow = page(access.global, address / Shadow::kPage);
    const uint64_t first = address % Shadow::kPage;
    const Stamp own = access.stamp() | (atomic ? kAtomicBit : 0);
    Stamp good = 0, good_read = 0, other_good_read = 0;
    for (uint64_t i = first; i < first + size; ++i) {
        const Stamp write = shadow.write[i], read = shadow.read[i], other_read = shadow.other_read[i];
        if (write != good) {
            if (atomic && write == kHostMark) return {Found::kUnwritten, write, false, false};
            const bool both_atomic = atomic && (write & kAtomicBit);
            if (write != kHostMark && !both_atomic && !ordered(access, write)) return race(write, true);
            good = write;
        }
        if (read != good_read && !ordered(access, read)) return race(read, false);
        if (other_read != other_good_read && !ordered(access, other_read)) return race(other_read, false);
        good_read = read;
        other_good_read = other_read;
        shadow.write[i] = own;
    }
    return {};
}

void Races::mark_unwritten(uint64_t address, uint64_t size) {
    for (uint64_t i = address; i < address + size; ++i)
        page(true, i / Shadow::kPage).write[i % Shadow::kPage] = kHostMark;
}

}  // namespace dumont::ptx
