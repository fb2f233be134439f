// Kernels: compressed 64 KiB blocks to one LZ4 frame. FORMAT.md, section 5.1. nvCOMP has compressed the blocks, each into
// memory of its own with room for the worst case.
//
//   lz4_layout  One CTA: decides which blocks the frame holds raw, because they did not shrink; finds the offsets of blocks by
//               a prefix sum of their sizes. Writes the size before each block, the end mark, and the size of the frame.
//   lz4_write   A CTA takes one block and copies it to its place, four bytes a thread and turn, aligned at the target.
//
// The host writes the frame's header. The kernel may read up to 4 bytes after the raw bytes.
// Bytes moved: reads and writes the compressed size once more; bound by memory.
#include "device.h"
#include "lz4_blocks.h"

namespace dumont {
namespace {

__device__ __forceinline__ uint32_t raw_size(const FrameJob& job, uint32_t block) {
    return static_cast<uint32_t>(min(job.size - block * uint64_t{kLz4BlockSize}, uint64_t{kLz4BlockSize}));
}

// Bytes of the block in the frame, without the size before it; sets `raw` if the frame holds the block raw.
__device__ __forceinline__ uint32_t frame_size(const FrameJob& job, uint32_t block, bool& raw) {
    const uint64_t compressed = reinterpret_cast<const uint64_t*>(static_cast<uintptr_t>(job.sizes))[block];
    const int32_t status = reinterpret_cast<const int32_t*>(static_cast<uintptr_t>(job.statuses))[block];
    const uint32_t raw_bytes = raw_size(job, block);
    raw = status != 0 || compressed == 0 || compressed >= raw_bytes;
    return raw ? raw_bytes : static_cast<uint32_t>(compressed);
}

__device__ __forceinline__ void store_u32(uint8_t* out, uint32_t value) {
    for (uint32_t byte = 0; byte < 4; ++byte) out[byte] = static_cast<uint8_t>(value >> (8 * byte));
}

}  // namespace
}  // namespace dumont

// grid: one CTA of 128 threads
extern "C" __global__ void lz4_layout(const dumont::FrameJob* jobs, uint64_t* result) {
    using namespace dumont;
    __shared__ uint64_t sums[kFrameThreads];
    const FrameJob job = jobs[0];
    uint8_t* out = reinterpret_cast<uint8_t*>(static_cast<uintptr_t>(job.out));
    uint64_t* offsets = reinterpret_cast<uint64_t*>(static_cast<uintptr_t>(job.offsets));
    uint64_t before = kLz4HeaderSize;
    for (uint32_t base = 0; base < job.blocks; base += kFrameThreads) {
        const uint32_t block = base + threadIdx.x;
        bool raw = false;
        const uint32_t size = block < job.blocks ? frame_size(job, block, raw) : 0;
        sums[threadIdx.x] = block < job.blocks ? size + 4 : 0;
        __syncthreads();
        for (uint32_t distance = 1; distance < kFrameThreads; distance *= 2) {
            const uint64_t other = threadIdx.x >= distance ? sums[threadIdx.x - distance] : 0;
            __syncthreads();
            sums[threadIdx.x] += other;
            __syncthreads();
        }
        if (block < job.blocks) {
            const uint64_t offset = before + sums[threadIdx.x] - size;
            offsets[block] = offset;
            store_u32(out + offset - 4, size | (raw ? kLz4RawBit : 0));
        }
        before += sums[kFrameThreads - 1];
        __syncthreads();
    }
    if (threadIdx.x == 0) {
        store_u32(out + before, 0);
        *result = before + 4;
    }
}

// grid: a CTA of 128 threads for each block
extern "C" __global__ void lz4_write(const dumont::FrameJob* jobs) {
    using namespace dumont;
    const FrameJob job = jobs[0];
    bool raw = false;
    const uint32_t size = frame_size(job, blockIdx.x, raw);
    const uint64_t from = raw ? job.source + blockIdx.x * uint64_t{kLz4BlockSize}
                              : job.compressed + blockIdx.x * uint64_t{kLz4BlockRoom};
    const uint8_t* source = reinterpret_cast<const uint8_t*>(static_cast<uintptr_t>(from));
    const uint64_t offset = reinterpret_cast<const uint64_t*>(static_cast<uintptr_t>(job.offsets))[blockIdx.x];
    uint8_t* out = reinterpret_cast<uint8_t*>(static_cast<uintptr_t>(job.out)) + offset;
    const uint32_t head = min(static_cast<uint32_t>(-reinterpret_cast<uintptr_t>(out) & 3), size);
    const uint32_t words = (size - head) / 4;
    for (uint32_t word = threadIdx.x; word < words; word += kFrameThreads) {
        const uint32_t at = head + 4 * word;
        __stcs(reinterpret_cast<uint32_t*>(out + at), load_unaligned(source + at));
    }
    const uint32_t tail = head + 4 * words;
    for (uint32_t i = threadIdx.x; i < head + size - tail; i += kFrameThreads) {
        const uint32_t at = i < head ? i : tail + i - head;
        out[at] = source[at];
    }
}
