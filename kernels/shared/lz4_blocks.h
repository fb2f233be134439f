// LZ4 frames as a device takes them apart and puts them together: independent blocks of 64 KiB, no checksums but the header's.
//
// The host learns sizes and constants through dumont_layout (kernels/cpu/device_tables.cpp).
#pragma once

#include "portable.h"

namespace dumont {

constexpr uint32_t kLz4BlockSize = 64 * 1024;
constexpr uint32_t kLz4BlockRoom = 65808;  // for a compressed block: at worst 65,800 bytes; a multiple of 16
constexpr uint32_t kLz4HeaderSize = 15;    // magic, flags, block descriptor, u64 content size, header checksum
constexpr uint32_t kLz4RawBit = 0x80000000;

// A block that a frame holds raw: a device copies it.
struct StoredCopy {
    uint64_t from;  // address
    uint64_t to;    // address; a multiple of 16
    uint64_t size;
};
static_assert(sizeof(StoredCopy) == 24, "part of the ABI: dumont_gpu/native/device_tables.py");

// Compressed blocks that become a frame. All fields but the last two are addresses.
struct FrameJob {
    uint64_t source;      // the raw bytes
    uint64_t compressed;  // kLz4BlockRoom bytes for each block
    uint64_t sizes;       // u64[blocks]: sizes of the compressed blocks
    uint64_t statuses;    // i32[blocks]: not 0 if compressing the block failed: the frame gets the block raw
    uint64_t offsets;     // u64[blocks], written by lz4_layout: where each block starts in the frame
    uint64_t out;         // the frame
    uint64_t size;        // raw bytes
    uint64_t blocks;
};
static_assert(sizeof(FrameJob) == 64, "part of the ABI: dumont_gpu/native/device_tables.py");

// The table of a frame: FrameJob, then arrays of 8 bytes for each block, in this order. The host writes the first three.
enum FrameArray : uint32_t { kSources = 0, kSourceSizes = 1, kOutputs = 2, kOffsets = 3, kCompressedSizes = 4, kStatuses = 5, kFrameArrays = 6 };

constexpr uint32_t kFrameThreads = 128;  // in each CTA of lz4_layout and lz4_write
constexpr uint32_t kCopyThreads = 128;   // in each CTA of copy_stored

}  // namespace dumont
