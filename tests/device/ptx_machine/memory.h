// Which global memory a kernel may touch, and where the windows of the other spaces lie.
#pragma once

#include <cstdint>
#include <iterator>
#include <map>

namespace dumont::ptx {

// Generic addresses of shared and local memory, where no host address lies.
constexpr uint64_t kSharedWindow = 1ull << 60;
constexpr uint64_t kLocalWindow = 1ull << 61;
constexpr uint64_t kWindowSize = 1ull << 32;

class GlobalMemory {
public:
    bool strict = false;  // nothing but the ranges may be touched

    void add(uint64_t begin, uint64_t size) { ends_[begin] = begin + size; }
    void remove(uint64_t begin) {
        ends_.erase(begin);
        begin_ = end_ = 0;
    }
    bool holds(uint64_t address, uint32_t size) {
        if (address >= begin_ && address + size <= end_) return true;
        const auto after = ends_.upper_bound(address);
        if (after == ends_.begin()) return !strict && (after == ends_.end() || address + size + kGuard <= after->first);
        const auto found = std::prev(after);
        if (address + size <= found->second) {
            begin_ = found->first;
            end_ = found->second;
            return true;
        }
        return !strict && address >= found->second + kGuard &&
               (after == ends_.end() || address + size + kGuard <= after->first);
    }

private:
    static constexpr uint64_t kGuard = 256;  // around a range

    std::map<uint64_t, uint64_t> ends_;  // of ranges, by their begin
    uint64_t begin_ = 0, end_ = 0;       // the range of the last access
};

}  // namespace dumont::ptx
