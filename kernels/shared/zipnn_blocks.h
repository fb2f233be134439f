// A block of a ZipNN stream as a device decodes it: where its planes lie, already checked by the host.
#pragma once

#include "zipnn.h"

namespace dumont {

// The host sorts blocks by the number of coded planes, which decides how many warps and how much memory they take.
struct DeviceBlock {
    uint64_t stored;  // where the chunk's stored bytes start in the source memory; a multiple of 16
    uint64_t out;     // where the block's original bytes go in the output memory
    uint32_t size;    // original bytes; whole elements
    uint8_t planes;
    uint8_t moves_sign;
    uint8_t coded;     // bit b: plane b is a Huff0 block
    uint8_t constant;  // bit b: plane b is one byte, repeated; neither bit: raw
    uint32_t begin[kMaxPlanes];  // of plane b, from `stored`
    uint32_t bytes[kMaxPlanes];  // of plane b, as it is stored
};
static_assert(sizeof(DeviceBlock) == 56, "native.py gives this much room for each block");

constexpr uint32_t kPlaneMemory = 20624;  // shared memory that `zipnn_decode` needs for each coded plane
constexpr uint32_t kRoomAfterStored = 16;  // bytes after the stored bytes that may be read

// What a kernel finds wrong with a block. Whatever it is, the host decodes the chunk again on the CPU, which then says.
enum BlockStatus : uint32_t {
    kBlockGood = 0,
    kBadTree = 1,
    kBadJumpTable = 2,
    kBadStream = 3,     // no end mark, or it does not end with its last symbol
    kLongCodes = 4,     // valid, but longer than the kernel's table: no packer in use writes them
};

}  // namespace dumont
