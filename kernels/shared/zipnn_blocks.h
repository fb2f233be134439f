// A block of a ZipNN stream as a device decodes it: where its planes lie, already checked by the host.
//
// The host learns sizes and constants through dumont_layout (kernels/cpu/device_tables.cpp).
#pragma once

#include "zipnn.h"

namespace dumont {

struct DeviceBlock {
    uint64_t encoded;  // where the chunk's encoded bytes start in the source memory; a multiple of 16
    uint64_t out;     // where the block's raw bytes go in the output memory: anywhere
    uint32_t size;    // raw bytes; whole elements
    uint8_t planes;
    uint8_t moves_sign;
    uint8_t coded;     // bit b: plane b is a Huff0 block
    uint8_t constant;  // bit b: plane b is one byte, repeated; neither bit: raw
    uint32_t begin[kMaxPlanes];  // where plane b starts, counted from `encoded`
    uint32_t bytes[kMaxPlanes];  // encoded bytes of plane b
};
static_assert(sizeof(DeviceBlock) == 56, "part of the ABI: dumont_gpu/native/device_tables.py");

// A variant of zipnn_decode that is compiled with other sizes takes another amount of dynamic shared memory.
#ifndef DUMONT_DECODE_MEMORY
#define DUMONT_DECODE_MEMORY 45456
#endif

constexpr uint32_t kDecodeThreads = kStreams * 32;               // a warp for each bit stream
constexpr uint32_t kDecodeMemory = DUMONT_DECODE_MEMORY;  // bytes of dynamic shared memory of a CTA
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
