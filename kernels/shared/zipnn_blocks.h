// A block of a ZipNN stream as a device decodes it: where its planes lie, already checked by the host.
//
// The host learns sizes and constants through dumont_layout (kernels/cpu/device_tables.cpp).
#pragma once

#include "zipnn.h"

namespace dumont {

// The host sorts blocks by the number of coded planes, which decides how many warps and how much memory a block takes.
struct DeviceBlock {
    uint64_t encoded;  // where the chunk's encoded bytes start in the source memory; a multiple of 16
    uint64_t out;     // where the block's raw bytes go in the output memory
    uint32_t size;    // raw bytes; whole elements
    uint8_t planes;
    uint8_t moves_sign;
    uint8_t coded;     // bit b: plane b is a Huff0 block
    uint8_t constant;  // bit b: plane b is one byte, repeated; neither bit: raw
    uint32_t begin[kMaxPlanes];  // where plane b starts, counted from `encoded`
    uint32_t bytes[kMaxPlanes];  // encoded bytes of plane b
};
static_assert(sizeof(DeviceBlock) == 56, "part of the ABI: dumont_gpu/native/device_tables.py");

constexpr uint32_t kPlaneMemory = 20624;    // bytes of dynamic shared memory that zipnn_decode takes for each coded plane
constexpr uint32_t kPlaneThreads = 32;     // of a CTA of zipnn_decode, for each coded plane
constexpr uint32_t kJoinThreads = 128;      // of a CTA of zipnn_join
constexpr uint32_t kRoomAfterEncoded = 16;  // bytes after the encoded bytes that may be read

// What a kernel finds wrong with a block. After any of these the CPU decodes the chunk again and words the error.
enum BlockStatus : uint32_t {
    kBlockGood = 0,
    kBadTree = 1,
    kBadJumpTable = 2,
    kBadStream = 3,     // no end mark, or the stream does not end with its last symbol
    kLongCodes = 4,     // valid, but longer than the kernel's table: no packer in use writes such codes
};

}  // namespace dumont
