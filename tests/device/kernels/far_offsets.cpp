#include <sys/mman.h>

#include <algorithm>
#include <cstring>
#include <stdexcept>

#include "streams.h"

namespace dumont::test {
namespace {

constexpr uint64_t kGiB = 1ull << 30;
constexpr uint64_t kChunk = kGiB;  // the largest that the host lists
constexpr uint64_t kEncoded = 4 * kGiB + 48;
constexpr uint64_t kOut = 5 * kGiB + 16;

// Address space; only pages that are touched take memory.
class SparseMemory {
public:
    explicit SparseMemory(uint64_t size) : size_(size) {
        memory_ = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (memory_ == MAP_FAILED) throw std::runtime_error("no address space");
    }
    ~SparseMemory() { munmap(memory_, size_); }
    SparseMemory(const SparseMemory&) = delete;
    SparseMemory& operator=(const SparseMemory&) = delete;
    uint8_t* data() { return static_cast<uint8_t*>(memory_); }

private:
    void* memory_;
    uint64_t size_;
};

}  // namespace

void check_far_offsets(const Chunk& chunk) {
    const HostResult host = decode_on_host(chunk);
    std::vector<DeviceBlock> blocks;
    if (host.status < 0 || list_blocks(chunk, kEncoded, kOut, blocks) < 0) {
        throw std::runtime_error(chunk.name + ": not a good chunk");
    }
    const uint64_t shift = kChunk - chunk.encoded.size();  // so that it ends with the chunk
    SparseMemory source(kEncoded + kChunk + kRoomAfterEncoded);
    SparseMemory output(kOut + chunk.original_size);
    std::copy(chunk.encoded.begin(), chunk.encoded.end(), source.data() + kEncoded + shift);
    for (DeviceBlock& block : blocks) {
        for (uint32_t plane = 0; plane < block.planes; ++plane) block.begin[plane] += static_cast<uint32_t>(shift);
    }
    const std::vector<uint32_t> status = launch_blocks(blocks, source.data(), output.data());
    for (size_t i = 0; i < status.size(); ++i) {
        const DeviceBlock& block = blocks[i];
        const uint8_t* expected = host.out.data() + (block.out - kOut);
        if (status[i] == kLongCodes) continue;
        if (status[i] != kBlockGood || std::memcmp(expected, output.data() + block.out, block.size) != 0) {
            throw std::runtime_error(chunk.name + ": other bytes at large offsets");
        }
    }
}

}  // namespace dumont::test
