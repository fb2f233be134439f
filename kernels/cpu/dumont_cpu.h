// C ABI of the CPU kernels: what `dumont_gpu/native.py` calls through ctypes.
//
// Every function is reentrant, touches no global state and never writes to its input. Sizes are bytes.
#pragma once

#include <cstdint>

#if defined(__GNUC__)
#define DUMONT_API extern "C" __attribute__((visibility("default")))
#else
#define DUMONT_API extern "C"
#endif

// Element types. The numbers are those of byte 15 of a ZipNN stream header.
enum DumontDtype : uint32_t {
    DUMONT_FP32 = 1,
    DUMONT_FP16 = 4,
    DUMONT_BF16 = 6,
    DUMONT_FP8_E4M3 = 29,
    DUMONT_FP8_E5M2 = 30,
};

// Negative results.
enum DumontStatus : int64_t {
    DUMONT_DAMAGED = -1,      // the stream contradicts itself
    DUMONT_UNSUPPORTED = -2,  // a valid header that asks for something this decoder does not do
    DUMONT_ARGUMENT = -3,     // the caller's mistake: unknown dtype, partial element, block size out of range
    DUMONT_NO_MEMORY = -4,    // the workspace of a call cannot be had
};

// Changes whenever a signature below changes; native.py refuses a library with another number.
DUMONT_API uint32_t dumont_abi_version(void);

// The instruction set in use: "portable", "avx2", "avx512" or "neon".
DUMONT_API const char* dumont_cpu_path(void);

// Selects a path by name, for tests and benchmarks; returns 0, or DUMONT_ARGUMENT if this CPU or build lacks it.
DUMONT_API int64_t dumont_select_cpu_path(const char* name);

// Encodes `source` as one ZipNN stream. `block_log2` is log2 of the compression chunk in original bytes, 10 to 17.
// Returns the stream's size, or 0 if it would not fit in `capacity` (that is: it does not shrink enough).
DUMONT_API int64_t dumont_zipnn_encode(const uint8_t* source, uint64_t source_size, uint8_t* out, uint64_t capacity,
                                       uint32_t dtype, uint32_t block_log2);

// Decodes a ZipNN stream, or a sequence of them, into exactly `out_size` bytes; any other original length is DUMONT_DAMAGED.
// Returns `out_size`, or a negative status; `out` may then hold anything.
DUMONT_API int64_t dumont_zipnn_decode(const uint8_t* stream, uint64_t stream_size, uint8_t* out, uint64_t out_size);

// Lists the blocks of a ZipNN chunk (one stream or several) for a device as DeviceBlocks of kernels/shared/zipnn_blocks.h, sorted
// by their number of coded planes; `counts[n]` gets how many have n. Everything outside the blocks is checked. `stored` and
// `out` say where the chunk's stored and original bytes will lie in the device's memory. Returns 0, DUMONT_DAMAGED, or
// DUMONT_UNSUPPORTED for what the device does not do: partial elements, more than `capacity` blocks.
DUMONT_API int64_t dumont_zipnn_device_blocks(const uint8_t* chunk, uint64_t chunk_size, uint64_t out_size,
                                              uint64_t stored, uint64_t out, void* blocks, uint64_t capacity,
                                              uint64_t* counts /* [5] */);

// Describes the encoding of `size` bytes as one ZipNN stream to a device: fills an EncodeJob of kernels/shared/zipnn_job.h with
// addresses in its memory. Returns how many planes of blocks there are, or DUMONT_ARGUMENT as dumont_zipnn_encode does.
DUMONT_API int64_t dumont_zipnn_encode_job(uint32_t dtype, uint64_t size, uint32_t block_log2, uint64_t source,
                                           uint64_t out, uint64_t plans, void* job);

// Writes the header of a stream whose other bytes a device has written. Returns its size, or DUMONT_ARGUMENT.
DUMONT_API int64_t dumont_zipnn_header(uint32_t dtype, uint64_t size, uint32_t block_log2, uint64_t stream_size,
                                       uint8_t* out);

// The blocks of an LZ4 frame for a device, as addresses in its memory: arrays of `capacity`, the caller's.
struct DumontLz4Blocks {
    uint64_t capacity;
    uint64_t compressed_count;
    uint64_t copy_count;
    uint64_t* from;        // of compressed blocks: where they lie,
    uint64_t* from_bytes;  // their size,
    uint64_t* to;          // where their original bytes go,
    uint64_t* to_bytes;    // and how many these must be
    void* copies;          // StoredCopy of kernels/shared/lz4_blocks.h: blocks that are stored as they are
};

// Lists the blocks of an LZ4 frame with independent blocks of 64 KiB and a content size of `out_size`, whose header has
// been checked. Returns 0, DUMONT_DAMAGED, or DUMONT_UNSUPPORTED for frames with further checksums or short blocks.
DUMONT_API int64_t dumont_lz4_device_blocks(const uint8_t* frame, uint64_t frame_size, uint64_t out_size,
                                            uint64_t stored, uint64_t out, DumontLz4Blocks* blocks);

// Candidates of dumont_probe, in the order of its results.
enum DumontProbe : uint32_t {
    DUMONT_PROBE_FP32_PHASE0,  // phase p: the first whole element starts p bytes into the sample
    DUMONT_PROBE_FP32_PHASE1,
    DUMONT_PROBE_FP32_PHASE2,
    DUMONT_PROBE_FP32_PHASE3,
    DUMONT_PROBE_BF16_PHASE0,
    DUMONT_PROBE_BF16_PHASE1,
    DUMONT_PROBE_FP16_PHASE0,
    DUMONT_PROBE_FP16_PHASE1,
    DUMONT_PROBE_FP8,
    DUMONT_PROBE_COUNT,
};

// Estimates, from a sample's byte-plane entropies, the fraction of its size (0 to about 1) that each candidate needs.
// Small samples bias entropies low; the estimate corrects for it (Miller-Madow). Returns 0 or DUMONT_ARGUMENT.
DUMONT_API int64_t dumont_probe(const uint8_t* sample, uint64_t size, float* fractions /* [DUMONT_PROBE_COUNT] */);

// A file to be created: NUL-terminated at `names + name`, with the `size` bytes from `content + begin`.
struct DumontNewFile {
    uint64_t name;
    uint64_t begin;
    uint64_t size;
    int64_t mtime_ns;
    uint64_t mode;
};

// Creates files in the directory open as `directory`; nothing may exist under their names. Returns how many were
// finished before one failed, and the errno of that one in `error` (0: none failed).
DUMONT_API uint64_t dumont_create_files(int32_t directory, const char* names, const uint8_t* content,
                                        uint64_t content_size, const DumontNewFile* files, uint64_t count,
                                        int32_t* error);

// A directory that is complete, named like a new file.
struct DumontDirectory {
    uint64_t name;
    int64_t mtime_ns;
    uint64_t mode;
};

// Gives directories in the directory open as `directory` their times and modes. Returns as dumont_create_files does.
DUMONT_API uint64_t dumont_finish_directories(int32_t directory, const char* names, const DumontDirectory* entries,
                                              uint64_t count, int32_t* error);

// A file to be read: its `size` bytes go to `out + begin`. The rest is what a scan found of it.
struct DumontOldFile {
    uint64_t name;
    uint64_t begin;
    uint64_t size;
    int64_t mtime_ns;
    uint64_t device;
    uint64_t inode;
};

// What else than an errno can keep a file from being read as it was scanned.
enum DumontReadProblem : int32_t {
    DUMONT_NOT_REGULAR = -1,
    DUMONT_SHORT = -2,    // it ended early; the rest of its bytes in `out` are as they were
    DUMONT_CHANGED = -3,  // all bytes were read, but the file is not the one that was scanned
};

// Reads files of the directory open as `directory`; `results` gets 0, an errno or a DumontReadProblem for each.
DUMONT_API void dumont_read_files(int32_t directory, const char* names, uint8_t* out, uint64_t out_size,
                                  const DumontOldFile* files, uint64_t count, int32_t* results);
