// C ABI of the CPU kernels: the functions that `dumont_gpu/native` calls through ctypes. More headers belong to it:
// device_tables.h, entry_table.h, file_rows.h, placed_rows.h, small_files.h and target_rows.h.
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
    DUMONT_UNSUPPORTED = -2,  // a valid header with a feature that this decoder lacks
    DUMONT_ARGUMENT = -3,     // the caller's mistake: unknown dtype, partial element, block size out of range
    DUMONT_NO_MEMORY = -4,    // the workspace of a call cannot be allocated
};

// Changes whenever a signature of the ABI changes; `dumont_gpu/native/library.py` refuses a library with another number.
DUMONT_API uint32_t dumont_abi_version(void);

// The instruction set in use: "portable", "avx2", "avx512" or "neon".
DUMONT_API const char* dumont_cpu_path(void);

// Selects a path by name, for tests and benchmarks; returns 0, or DUMONT_ARGUMENT if this CPU or build lacks it.
DUMONT_API int64_t dumont_select_cpu_path(const char* name);

// Encodes `source` as one ZipNN stream. `block_log2` is log2 of the block size in raw bytes, 10 to 17.
// Returns the stream's size, or 0 if the stream does not fit in `capacity` (that is: it does not shrink enough).
DUMONT_API int64_t dumont_zipnn_encode(const uint8_t* source, uint64_t source_size, uint8_t* out, uint64_t capacity,
                                       uint32_t dtype, uint32_t block_log2);

// Decodes a ZipNN stream, or a sequence of streams, into exactly `out_size` bytes; any other raw size is DUMONT_DAMAGED.
// Returns `out_size`, or a negative status; `out` may then hold anything.
DUMONT_API int64_t dumont_zipnn_decode(const uint8_t* stream, uint64_t stream_size, uint8_t* out, uint64_t out_size);

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
// Small samples bias entropies low; the estimate corrects for that (Miller-Madow). Returns 0 or DUMONT_ARGUMENT.
DUMONT_API int64_t dumont_probe(const uint8_t* sample, uint64_t size, float* fractions /* [DUMONT_PROBE_COUNT] */);

// Returns the bytes from the first block header of a zstd frame to the end of its last block, or DUMONT_DAMAGED if a block
// has the reserved type or leaves the `size` bytes. Blocks are not decoded.
DUMONT_API int64_t dumont_zstd_blocks(const uint8_t* blocks, uint64_t size);

// Writes the 32-byte BLAKE3 digest of `size` bytes.
DUMONT_API void dumont_blake3(const uint8_t* data, uint64_t size, uint8_t* out);

// Writes the digests of many pieces of one buffer: that of the `sizes[i]` bytes at `data + begins[i]` to `out + 32 * i`.
// Small pieces are hashed side by side. Returns 0, or DUMONT_ARGUMENT if a piece leaves the `data_size` bytes; then nothing
// is read or written.
DUMONT_API int64_t dumont_blake3_many(const uint8_t* data, uint64_t data_size, const uint64_t* begins,
                                      const uint64_t* sizes, uint64_t count, uint8_t* out);
