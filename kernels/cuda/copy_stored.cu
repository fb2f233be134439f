// Kernel: copies the blocks that an LZ4 frame holds raw to their place in the output. FORMAT.md, section 5.1.
//
// Work to threads: a CTA takes one block of at most 64 KiB; each thread moves 16 bytes at a time. A block may start at any
// byte of the frame, so that each load shifts two aligned words together.
// Bytes moved: 1 read, 1 written per raw byte; bound by memory.
#include "device.h"
#include "lz4_blocks.h"

// grid: a CTA for each of `copies`; block: any number of threads
extern "C" __global__ void copy_stored(const dumont::StoredCopy* copies) {
    using namespace dumont;
    const StoredCopy copy = copies[blockIdx.x];
    const uint8_t* from = reinterpret_cast<const uint8_t*>(static_cast<uintptr_t>(copy.from));
    uint8_t* to = reinterpret_cast<uint8_t*>(static_cast<uintptr_t>(copy.to));
    const uint64_t vectors = copy.size / 16;
    for (uint64_t i = threadIdx.x; i < vectors; i += blockDim.x) {
        uint4 value;
        value.x = load_unaligned(from + 16 * i);
        value.y = load_unaligned(from + 16 * i + 4);
        value.z = load_unaligned(from + 16 * i + 8);
        value.w = load_unaligned(from + 16 * i + 12);
        __stcs(reinterpret_cast<uint4*>(to + 16 * i), value);
    }
    for (uint64_t i = 16 * vectors + threadIdx.x; i < copy.size; i += blockDim.x) to[i] = from[i];
}
