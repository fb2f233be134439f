// LZ4 frames as a device takes them apart and puts them together: independent blocks of 64 KiB, no checksums but the header's.
#pragma once

#include "portable.h"

namespace dumont {

constexpr uint32_t kLz4BlockSize = 64 * 1024;
constexpr uint32_t kLz4BlockRoom = 65808;  // for a compressed block, at worst 65,800 bytes; a multiple of 16
constexpr uint32_t kLz4HeaderSize = 15;    // magic, flags, block descriptor, u64 content size, header checksum
constexpr uint32_t kLz4StoredBit = 0x80000000;

// What a device copies because a frame stores it as it is.
struct StoredCopy {
    uint64_t from;  // address
    uint64_t to;    // address; a multiple of 16
    uint64_t size;
};
static_assert(sizeof(StoredCopy) == 24, "native.py gives this much room for each copy");

// Compressed blocks that become a frame. All but the numbers are addresses.
struct FrameJob {
    uint64_t source;      // the original bytes
    uint64_t compressed;  // kLz4BlockRoom bytes for each block
    uint64_t sizes;       // u64[blocks]: of the compressed blocks
    uint64_t statuses;    // i32[blocks]: what is not 0 failed, and is stored as it is
    uint64_t offsets;     // u64[blocks], written by lz4_layout: of each block in the frame
    uint64_t out;         // the frame
    uint64_t size;        // of the original bytes
    uint64_t blocks;
};
static_assert(sizeof(FrameJob) == 64, "encode_slot.py packs this");

}  // namespace dumont
