// Where a zstd frame ends: a walk over its block headers, which libzstd does itself and does not report.
#include "dumont_cpu.h"

namespace {

constexpr uint64_t kBlockHeader = 3;  // bit 0: last block; bits 1 and 2: type; bits 3 to 23: size
constexpr uint64_t kRle = 1;          // type: one byte, repeated size times
constexpr uint64_t kReserved = 3;

}  // namespace

int64_t dumont_zstd_blocks(const uint8_t* blocks, uint64_t size) {
    uint64_t end = 0;
    for (;;) {
        if (size - end < kBlockHeader) return DUMONT_DAMAGED;
        const uint8_t* at = blocks + end;
        const uint64_t header = at[0] | uint64_t{at[1]} << 8 | uint64_t{at[2]} << 16;
        const uint64_t type = header >> 1 & 3;
        const uint64_t content = type == kRle ? 1 : header >> 3;
        end += kBlockHeader;
        if (type == kReserved || size - end < content) return DUMONT_DAMAGED;
        end += content;
        if (header & 1) return static_cast<int64_t>(end);
    }
}
