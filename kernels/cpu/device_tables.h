// C ABI: what the host tells a CUDA device of a chunk. The structs are those of kernels/shared.
#pragma once

#include "dumont_cpu.h"

// Returns the size of a struct ("DeviceBlock"), or the value of a constant ("kPlaneMemory"), of kernels/shared; 0 for a name
// that device_tables.cpp does not list. Python and the tests compare their numbers with these.
DUMONT_API uint64_t dumont_layout(const char* name);

// Lists the blocks of a ZipNN chunk (one stream or several) for a device as DeviceBlocks of kernels/shared/zipnn_blocks.h, sorted
// by their number of coded planes; `counts[n]` becomes the number of blocks with n. Everything outside the blocks is checked.
// `encoded` and `out` are where the chunk's encoded and raw bytes will lie in the device's memory. Returns 0, DUMONT_DAMAGED, or
// DUMONT_UNSUPPORTED for chunks that only the CPU decodes: partial elements, more than `capacity` blocks.
DUMONT_API int64_t dumont_zipnn_device_blocks(const uint8_t* chunk, uint64_t chunk_size, uint64_t out_size,
                                              uint64_t encoded, uint64_t out, void* blocks, uint64_t capacity,
                                              uint64_t* counts /* [5] */);

// Describes the encoding of `size` bytes as one ZipNN stream to a device: fills an EncodeJob of kernels/shared/zipnn_job.h with
// addresses in its memory. Returns how many planes all blocks have together, or DUMONT_ARGUMENT as dumont_zipnn_encode does.
DUMONT_API int64_t dumont_zipnn_encode_job(uint32_t dtype, uint64_t size, uint32_t block_log2, uint64_t source,
                                           uint64_t out, uint64_t plans, void* job);

// Writes the header of a stream whose other bytes a device has written. Returns its size, or DUMONT_ARGUMENT.
DUMONT_API int64_t dumont_zipnn_header(uint32_t dtype, uint64_t size, uint32_t block_log2, uint64_t stream_size,
                                       uint8_t* out);

// The blocks of an LZ4 frame for a device, as addresses in its memory. The arrays are the caller's, with room for `capacity`.
struct DumontLz4Blocks {
    uint64_t capacity;
    uint64_t compressed_count;
    uint64_t copy_count;
    uint64_t* from;        // addresses of compressed blocks
    uint64_t* from_bytes;  // their sizes
    uint64_t* to;          // addresses of their raw bytes
    uint64_t* to_bytes;    // their raw sizes
    void* copies;          // StoredCopy of kernels/shared/lz4_blocks.h: the blocks that the frame holds raw
};

// Lists the blocks of an LZ4 frame with independent blocks of 64 KiB and a content size of `out_size`, whose header has
// been checked. Returns 0, DUMONT_DAMAGED, or DUMONT_UNSUPPORTED for frames with further checksums or short blocks.
DUMONT_API int64_t dumont_lz4_device_blocks(const uint8_t* frame, uint64_t frame_size, uint64_t out_size,
                                            uint64_t encoded, uint64_t out, DumontLz4Blocks* blocks);

// Describes the making of an LZ4 frame to a device: fills `table`, which will lie at `table_at` in the device's memory, with a
// FrameJob of kernels/shared/lz4_blocks.h and the arrays of its blocks' addresses and sizes. Returns the number of blocks.
DUMONT_API uint64_t dumont_lz4_frame_job(uint64_t size, uint64_t source, uint64_t compressed, uint64_t out, uint64_t table_at,
                                         uint8_t* table);
