// Kernels: elements to ZipNN blocks. FORMAT.md, section 5.3; CPU reference: cpu/zipnn_encode.cpp, whose code choice and tree
// description are the same source (huffman_code.h, tree_description.h).
//
// Three launches for a chunk
//   zipnn_plan    A CTA takes a block: one pass over it counts the bytes of every plane, for each of the four streams
//                 apart. A warp for each plane then chooses raw, constant or Huff0, builds the code, describes it, and
//                 knows the exact size of each stream, since sizes follow from counts.
//   zipnn_layout  One CTA: where each block's planes go is a prefix sum of their sizes; writes the stream's tables.
//   zipnn_write   A CTA takes one plane of a block and writes it where it belongs. Coded: a warp for each stream; 32 lanes
//                 put 8 symbols each together, a prefix sum of their lengths says where each lane's bits go.
//
// Bytes moved, bf16: 2 to 3 read (once to count, once for each plane), 0.66 written per original byte.
// Bound: shared-memory atomics in zipnn_plan, instructions in zipnn_write; see kernels/README.md.
#include "device.h"
#include "zipnn_job.h"

namespace dumont {
namespace {

constexpr uint32_t kThreads = kStreams * kWarp;  // of every CTA but that of zipnn_layout
constexpr uint32_t kReplicas = 8;  // of the counters, divided by the planes: lanes that meet the same value wait less
constexpr uint32_t kLaneSymbols = 8;  // that a lane puts together at a time
constexpr uint32_t kWarpSymbols = kWarp * kLaneSymbols;
constexpr uint32_t kStageWords = (31 + kWarpSymbols * kMaxWrittenLength) / 32 + 4;

// ---------------------------------------------------------------------------------------------------------------
// Elements.

// A block's elements; `moved` of them have their sign moved.
struct BlockSource {
    const uint8_t* bytes;
    uint32_t planes;
    uint32_t elements;
    uint32_t moved;
};

__device__ __forceinline__ BlockSource block_source(const EncodeJob& job, uint32_t block) {
    const uint64_t begin = static_cast<uint64_t>(block) << job.block_log2;
    const uint64_t left = job.size - begin;
    const uint32_t size = static_cast<uint32_t>(min(left, uint64_t{1} << job.block_log2));
    return {reinterpret_cast<const uint8_t*>(static_cast<uintptr_t>(job.source)) + begin, job.planes, size / job.planes,
            job.moves_sign ? size / 4 * 4 / job.planes : 0};
}

// The element with its sign moved: byte p belongs to plane p.
__device__ __forceinline__ uint32_t load_element(const BlockSource& source, uint32_t element) {
    if (source.planes == 1) return __ldg(source.bytes + element);
    if (source.planes == 2) {
        const uint16_t value = __ldg(reinterpret_cast<const uint16_t*>(source.bytes) + element);
        return element < source.moved ? move_sign16(value) : value;
    }
    const uint32_t value = __ldg(reinterpret_cast<const uint32_t*>(source.bytes) + element);
    return element < source.moved ? move_sign32(value) : value;
}

__device__ __forceinline__ uint32_t plane_byte(const BlockSource& source, uint32_t plane, uint32_t element) {
    return load_element(source, element) >> (8 * plane) & 255;
}

// ---------------------------------------------------------------------------------------------------------------
// zipnn_plan

// Scratch of one plane, while its code is chosen.
struct PlanMemory {
    uint32_t counts[256];  // of all streams
    HuffmanCode code;
    union {  // one after the other
        CodeWorkspace code_work;
        TreeWorkspace tree_work;
    };
    uint16_t value[256];
    uint32_t kind;
};
static_assert(kMaxPlanes * (sizeof(uint32_t) * kStreams * 256 + sizeof(PlanMemory)) <= kPlanMemory,
              "backends/cuda.py asks for this much");
static_assert(sizeof(uint32_t) * kReplicas * kStreams * 256 <= kPlanMemory, "room for all replicas of the counters");

// Counts the stream of this warp: counters are [replica][plane][stream][value].
__device__ void count_stream(const BlockSource& source, uint32_t first, uint32_t end, uint32_t stream, uint32_t lane,
                             uint32_t* counters) {
    const uint32_t replicas = kReplicas / source.planes;
    uint32_t* mine = counters + ((lane % replicas) * source.planes * kStreams + stream) * 256;
    for (uint32_t element = first + lane; element < end; element += kWarp) {
        const uint32_t value = load_element(source, element);
#pragma unroll
        for (uint32_t plane = 0; plane < kMaxPlanes; ++plane) {
            if (plane < source.planes) atomicAdd(mine + plane * kStreams * 256 + (value >> (8 * plane) & 255), 1u);
        }
    }
}

__device__ __forceinline__ uint32_t warp_sum(uint32_t value) {
    for (uint32_t distance = kWarp / 2; distance > 0; distance /= 2) {
        value += __shfl_xor_sync(kAllLanes, value, static_cast<int>(distance));
    }
    return value;
}

// Decides how a plane is stored and fills its plan. Called by a whole warp; `counts` is [stream][value].
__device__ void plan_plane(const uint32_t* counts, uint32_t symbols, PlanMemory& memory, PlanePlan& plan, uint32_t lane) {
    bool constant = false;
    for (uint32_t value = lane; value < 256; value += kWarp) {
        uint32_t total = 0;
        for (uint32_t stream = 0; stream < kStreams; ++stream) total += counts[stream * 256 + value];
        memory.counts[value] = total;
        if (total == symbols && symbols >= 2) {
            constant = true;
            plan.constant = static_cast<uint8_t>(value);
        }
    }
    __syncwarp();
    constant = __any_sync(kAllLanes, constant) != 0;
    if (lane == 0) {
        memory.kind = constant ? kConstantPlane : kRawPlane;
        if (!constant && symbols >= kMinHuff0Symbols) {
            choose_lengths(memory.counts, memory.code, memory.code_work);
            if (gains(memory.code.payload_bits / 8, symbols)) {
                plan.tree_size = write_tree(memory.code, plan.tree, memory.tree_work);
                assign_codes(memory.code, memory.value);
                if (plan.tree_size != 0) memory.kind = kCodedPlane;
            }
        }
    }
    __syncwarp();
    uint32_t size = memory.kind == kConstantPlane ? 1 : symbols;
    if (memory.kind == kCodedPlane) {
        uint32_t coded = plan.tree_size + kJumpTableSize;
        for (uint32_t stream = 0; stream < kStreams; ++stream) {
            uint32_t bits = 0;
            for (uint32_t value = lane; value < 256; value += kWarp) {
                bits += counts[stream * 256 + value] * memory.code.length[value];
            }
            const uint32_t bytes = (warp_sum(bits) + 1 + 7) / 8;  // with the end mark
            if (lane == 0) plan.stream_size[stream] = bytes;
            coded += bytes;
        }
        if (gains(coded, symbols)) {
            size = coded;
            for (uint32_t value = lane; value < 256; value += kWarp) {
                const uint32_t length = memory.code.length[value];
                plan.codes[value] = length == 0 ? 0 : memory.value[value] | length << 16;
            }
        } else if (lane == 0) {
            memory.kind = kRawPlane;
        }
    }
    __syncwarp();
    if (lane == 0) {
        plan.kind = memory.kind;
        plan.size = size;
    }
}

// ---------------------------------------------------------------------------------------------------------------
// zipnn_write

__device__ __forceinline__ void store_bytes(uint8_t* to, uint32_t word, uint32_t first, uint32_t end) {
    for (uint32_t byte = first; byte < end; ++byte) to[byte] = static_cast<uint8_t>(word >> (8 * byte));
}

// Bits on their way to a stream: whole words leave, the last one waits for more. Words are those of the memory, so that
// the stream starts somewhere in the first one; bytes of the neighbours are left alone.
struct BitStage {
    uint32_t* words;  // of this warp, in shared memory; zero but for what is staged
    uint8_t* to;      // where words[0] goes, a multiple of 4
    uint32_t bits;    // staged, with those before the stream's start
    uint32_t skip;    // bytes of words[0] that belong to what comes before
};

__device__ __forceinline__ void put_bits(uint32_t* words, uint32_t position, uint64_t value) {
    const uint32_t shift = position & 31;
    uint32_t* word = words + (position >> 5);
    const uint64_t low = value << shift;
    const uint32_t high = shift == 0 ? 0 : static_cast<uint32_t>(value >> (64 - shift));
    if (static_cast<uint32_t>(low) != 0) atomicOr(word, static_cast<uint32_t>(low));
    if (static_cast<uint32_t>(low >> 32) != 0) atomicOr(word + 1, static_cast<uint32_t>(low >> 32));
    if (high != 0) atomicOr(word + 2, high);
}

// Writes the whole words out, and moves what is left to the front.
__device__ void flush_words(BitStage& stage, uint32_t lane) {
    __syncwarp();
    const uint32_t whole = stage.bits >> 5;
    const uint32_t rest = stage.words[whole];
    for (uint32_t word = lane; word < whole; word += kWarp) {
        if (word == 0 && stage.skip != 0) {
            store_bytes(stage.to, stage.words[0], stage.skip, 4);
        } else {
            *reinterpret_cast<uint32_t*>(stage.to + 4 * word) = stage.words[word];
        }
    }
    __syncwarp();
    for (uint32_t word = lane; word <= whole; word += kWarp) stage.words[word] = word == 0 ? rest : 0;
    __syncwarp();
    if (whole != 0) stage.skip = 0;
    stage.to += 4 * whole;
    stage.bits &= 31;
}

// Writes symbols [first, end) of a plane as one bit stream at `out`: last to first, bits upward, then the end mark.
__device__ void write_stream(const BlockSource& source, uint32_t plane, uint32_t first, uint32_t end,
                             const uint32_t* codes, uint8_t* out, uint32_t* words, uint32_t lane) {
    for (uint32_t word = lane; word < kStageWords; word += kWarp) words[word] = 0;
    const uint32_t skip = static_cast<uint32_t>(reinterpret_cast<uintptr_t>(out) & 3);
    BitStage stage = {words, out - skip, 8 * skip, skip};
    __syncwarp();
    for (uint32_t done = 0; done < end - first; done += kWarpSymbols) {
        const uint32_t mine = done + lane * kLaneSymbols;  // counted from the stream's last symbol
        uint64_t half[2] = {0, 0};
        uint32_t bits[2] = {0, 0};
#pragma unroll
        for (uint32_t i = 0; i < kLaneSymbols; ++i) {
            if (mine + i >= end - first) continue;
            const uint32_t code = codes[plane_byte(source, plane, end - 1 - (mine + i))];
            const uint32_t h = i / (kLaneSymbols / 2);
            half[h] |= static_cast<uint64_t>(code & 0xFFFF) << bits[h];
            bits[h] += code >> 16;
        }
        uint32_t before = bits[0] + bits[1];
#pragma unroll
        for (uint32_t distance = 1; distance < kWarp; distance *= 2) {
            const uint32_t other = __shfl_up_sync(kAllLanes, before, distance);
            if (lane >= distance) before += other;
        }
        const uint32_t total = __shfl_sync(kAllLanes, before, kWarp - 1);
        const uint32_t position = stage.bits + before - bits[0] - bits[1];
        put_bits(stage.words, position, half[0]);
        put_bits(stage.words, position + bits[0], half[1]);
        stage.bits += total;
        flush_words(stage, lane);
    }
    if (lane == 0) {
        const uint32_t last = stage.words[0] | 1u << stage.bits;
        store_bytes(stage.to, last, stage.skip, stage.bits / 8 + 1);
    }
}

// Writes a plane as it is, four bytes at a time from the first whole word on.
__device__ void write_raw(const BlockSource& source, uint32_t plane, uint8_t* out) {
    const uint32_t head = min(static_cast<uint32_t>(-reinterpret_cast<uintptr_t>(out) & 3), source.elements);
    const uint32_t words = (source.elements - head) / 4;
    for (uint32_t word = threadIdx.x; word < words; word += kThreads) {
        const uint32_t element = head + 4 * word;
        uint32_t value = 0;
#pragma unroll
        for (uint32_t byte = 0; byte < 4; ++byte) value |= plane_byte(source, plane, element + byte) << (8 * byte);
        __stcs(reinterpret_cast<uint32_t*>(out + element), value);
    }
    const uint32_t tail = head + 4 * words;
    for (uint32_t i = threadIdx.x; i < head + source.elements - tail; i += kThreads) {
        const uint32_t element = i < head ? i : tail + i - head;
        out[element] = static_cast<uint8_t>(plane_byte(source, plane, element));
    }
}

}  // namespace
}  // namespace dumont

// grid: a CTA of 128 threads for each block; dynamic shared memory: kPlanMemory
extern "C" __global__ void zipnn_plan(const dumont::EncodeJob* jobs) {
    using namespace dumont;
    DUMONT_DYNAMIC_SHARED(shared);
    const EncodeJob job = jobs[0];
    const BlockSource source = block_source(job, blockIdx.x);
    const uint32_t warp = threadIdx.x / kWarp;
    const uint32_t lane = threadIdx.x % kWarp;
    uint32_t* counters = reinterpret_cast<uint32_t*>(shared);
    const uint32_t each = source.planes * kStreams * 256;  // counters of one replica
    const uint32_t replicas = kReplicas / source.planes;
    for (uint32_t i = threadIdx.x; i < replicas * each; i += kThreads) counters[i] = 0;
    __syncthreads();
    const uint32_t segment = (source.elements + kStreams - 1) / kStreams;
    const uint32_t first = min(warp * segment, source.elements);
    count_stream(source, first, min(first + segment, source.elements), warp, lane, counters);
    __syncthreads();
    for (uint32_t i = threadIdx.x; i < each; i += kThreads) {
        uint32_t total = counters[i];
        for (uint32_t replica = 1; replica < replicas; ++replica) total += counters[replica * each + i];
        counters[i] = total;
    }
    __syncthreads();
    if (warp >= source.planes) return;
    // The other replicas are not needed any more.
    PlanMemory* memories = reinterpret_cast<PlanMemory*>(shared + sizeof(uint32_t) * each);
    PlanePlan* plans = reinterpret_cast<PlanePlan*>(static_cast<uintptr_t>(job.plans));
    plan_plane(counters + warp * kStreams * 256, source.elements, memories[warp], plans[warp * job.blocks + blockIdx.x],
               lane);
}

// grid: one CTA of 128 threads. Writes the tables of the stream, and its size to `result`.
extern "C" __global__ void zipnn_layout(const dumont::EncodeJob* jobs, uint64_t* result) {
    using namespace dumont;
    __shared__ uint64_t sums[kThreads];
    const EncodeJob job = jobs[0];
    PlanePlan* plans = reinterpret_cast<PlanePlan*>(static_cast<uintptr_t>(job.plans));
    uint8_t* out = reinterpret_cast<uint8_t*>(static_cast<uintptr_t>(job.out));
    const uint32_t entries = job.planes * job.blocks;
    uint64_t begin = kHeaderSize + 9ull * entries;  // of the plane at hand
    for (uint32_t plane = 0; plane < job.planes; ++plane) {
        uint64_t before = 0;  // bytes of the plane's blocks so far
        for (uint32_t base = 0; base < job.blocks; base += kThreads) {
            const uint32_t block = base + threadIdx.x;
            PlanePlan* plan = block < job.blocks ? plans + plane * job.blocks + block : nullptr;
            const uint64_t size = plan != nullptr ? plan->size : 0;
            sums[threadIdx.x] = size;
            __syncthreads();
            for (uint32_t distance = 1; distance < kThreads; distance *= 2) {
                const uint64_t other = threadIdx.x >= distance ? sums[threadIdx.x - distance] : 0;
                __syncthreads();
                sums[threadIdx.x] += other;
                __syncthreads();
            }
            const uint64_t end = before + sums[threadIdx.x];
            before += sums[kThreads - 1];
            if (plan != nullptr) {
                const uint32_t index = plane * job.blocks + block;
                plan->offset = begin + end - size;
                out[kHeaderSize + index] = plan->kind == kRawPlane ? kRawBlock : kHuff0Block;
                store_u64(out + kHeaderSize + entries + 8ull * index, end);
            }
            __syncthreads();
        }
        begin += before;
    }
    if (threadIdx.x == 0) *result = begin;
}

// grid: a CTA of 128 threads for each plane of each block, plane after plane
extern "C" __global__ void zipnn_write(const dumont::EncodeJob* jobs) {
    using namespace dumont;
    __shared__ uint32_t codes[256];
    __shared__ uint32_t stages[kStreams][kStageWords];
    const EncodeJob job = jobs[0];
    const uint32_t plane = blockIdx.x / job.blocks;
    const BlockSource source = block_source(job, blockIdx.x % job.blocks);
    const PlanePlan& plan = reinterpret_cast<const PlanePlan*>(static_cast<uintptr_t>(job.plans))[blockIdx.x];
    uint8_t* out = reinterpret_cast<uint8_t*>(static_cast<uintptr_t>(job.out)) + plan.offset;
    if (plan.kind == kRawPlane) {
        write_raw(source, plane, out);
        return;
    }
    if (plan.kind == kConstantPlane) {
        if (threadIdx.x == 0) out[0] = plan.constant;
        return;
    }
    for (uint32_t value = threadIdx.x; value < 256; value += kThreads) codes[value] = plan.codes[value];
    for (uint32_t i = threadIdx.x; i < plan.tree_size; i += kThreads) out[i] = plan.tree[i];
    const uint32_t warp = threadIdx.x / kWarp;
    uint8_t* streams = out + plan.tree_size + kJumpTableSize;
    if (threadIdx.x < kStreams - 1) {
        const uint32_t size = plan.stream_size[threadIdx.x];
        store_bytes(out + plan.tree_size + 2 * threadIdx.x, size, 0, 2);
    }
    __syncthreads();
    for (uint32_t stream = 0; stream < warp; ++stream) streams += plan.stream_size[stream];
    const uint32_t segment = (source.elements + kStreams - 1) / kStreams;
    const uint32_t first = min(warp * segment, source.elements);
    write_stream(source, plane, first, min(first + segment, source.elements), codes, streams, stages[warp],
                 threadIdx.x % kWarp);
}
