// Kernels: elements to ZipNN blocks. FORMAT.md, section 5.2; CPU reference: cpu/zipnn_encode.cpp, which chooses
// codes and writes tree descriptions with the same source (huffman_code.h, tree_description.h).
//
// Three launches for a chunk
//   zipnn_plan    A CTA takes a block: one pass over it counts the bytes of every plane, for each of the four streams
//                 apart. A warp for each plane then chooses raw, constant or Huff0, builds the code, describes it, and
//                 knows the exact size of each stream, since sizes follow from counts.
//   zipnn_layout  One CTA: finds the offset of each plane of each block by a prefix sum of sizes; writes the stream's tables.
//   zipnn_write   A CTA takes one plane of a block and writes it at its offset. A coded plane has a warp for each stream; each
//                 of 32 lanes joins 8 symbols, and a prefix sum of their lengths gives the position of each lane's bits.
//
// Bytes moved, bf16: 2 read (to count, and to write: the second plane finds them in L2), 0.66 written per raw byte.
// Counters have no replicas: a replica of a counter would lie in the same bank, and wait as long.
// Bound: shared-memory atomics in zipnn_plan, instructions in zipnn_write; see kernels/README.md.
#include "device.h"
#include "zipnn_job.h"

namespace dumont {
namespace {

constexpr uint32_t kThreads = kStreams * kWarp;  // a warp for each stream
static_assert(kThreads == kEncodeThreads, "the host launches this many");
constexpr uint32_t kLoadBytes = 16;  // bytes that a thread loads at a time
constexpr uint32_t kGroups = 256 / kWarp;  // of values, one to a lane
constexpr uint32_t kLaneSymbols = 8;  // that a lane joins at a time
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

// The elements in a word, all of which have their sign moved if any element has: byte b belongs to plane b % planes.
__device__ __forceinline__ uint32_t move_signs(const BlockSource& source, uint32_t word) {
    if (source.moved == 0) return word;
    if (source.planes == 4) return move_sign32(word);
    return (word & 0x7F807F80) << 1 | (word & 0x80008000) >> 8 | (word & 0x007F007F);
}

// One plane of elements [element, element + 8); `element` is a multiple of 8, and the block has them all. Only the last of an
// odd number of elements keeps its sign, which is none of these.
__device__ __forceinline__ uint2 load_plane(const BlockSource& source, uint32_t plane, uint32_t element) {
    const uint8_t* from = source.bytes + static_cast<uint64_t>(element) * source.planes;
    if (source.planes == 1) return __ldg(reinterpret_cast<const uint2*>(from));
    uint4 a = __ldg(reinterpret_cast<const uint4*>(from));
    a = {move_signs(source, a.x), move_signs(source, a.y), move_signs(source, a.z), move_signs(source, a.w)};
    if (source.planes == 2) {
        const uint32_t bytes = plane == 0 ? 0x6420 : 0x7531;
        return {__byte_perm(a.x, a.y, bytes), __byte_perm(a.z, a.w, bytes)};
    }
    uint4 b = __ldg(reinterpret_cast<const uint4*>(from) + 1);
    b = {move_signs(source, b.x), move_signs(source, b.y), move_signs(source, b.z), move_signs(source, b.w)};
    const uint32_t bytes = plane | (4 + plane) << 4;
    return {__byte_perm(__byte_perm(a.x, a.y, bytes), __byte_perm(a.z, a.w, bytes), 0x5410),
            __byte_perm(__byte_perm(b.x, b.y, bytes), __byte_perm(b.z, b.w, bytes), 0x5410)};
}

// ---------------------------------------------------------------------------------------------------------------
// zipnn_plan

// Shared memory of one plane.
struct PlanMemory {
    uint32_t stream_counts[kStreams][256];
    uint32_t counts[256];  // of all streams
    HuffmanCode code;
    union {  // one after the other
        CodeWorkspace code_work;
        TreeWorkspace tree_work;
    };
    uint8_t tree[kMaxTreeSize];
    uint32_t tree_size;  // 0: no code gains
};
static_assert(sizeof(PlanMemory) <= kPlanMemory, "every launch asks for this much for each plane");

__device__ __forceinline__ PlanMemory& plan_memory(uint8_t* shared, uint32_t plane) {
    return *reinterpret_cast<PlanMemory*>(shared + plane * kPlanMemory);
}

__device__ __forceinline__ void count(uint8_t* shared, uint32_t plane, uint32_t stream, uint32_t value) {
    atomicAdd(&plan_memory(shared, plane).stream_counts[stream][value & 255], 1u);
}

__device__ __forceinline__ void count_word(const BlockSource& source, uint8_t* shared, uint32_t stream, uint32_t word) {
    const uint32_t moved = move_signs(source, word);
#pragma unroll
    for (uint32_t byte = 0; byte < 4; ++byte) count(shared, byte & (source.planes - 1), stream, moved >> (8 * byte));
}

// Counts elements [first, end), which are a stream's, by one warp.
__device__ void count_stream(const BlockSource& source, uint32_t first, uint32_t end, uint32_t stream, uint32_t lane,
                             uint8_t* shared) {
    const uint32_t each = kLoadBytes / source.planes;  // elements of a vector
    uint32_t next = first;
    if (first % each == 0) {
        const uint4* vectors = reinterpret_cast<const uint4*>(source.bytes + static_cast<uint64_t>(first) * source.planes);
        const uint32_t whole = (end - first) / each;
        uint4 ahead = {};  // loaded while the one before it is counted
        if (lane < whole) ahead = __ldg(vectors + lane);
        for (uint32_t i = lane; i < whole; i += kWarp) {
            const uint4 vector = ahead;
            if (i + kWarp < whole) ahead = __ldg(vectors + i + kWarp);
            count_word(source, shared, stream, vector.x);
            count_word(source, shared, stream, vector.y);
            count_word(source, shared, stream, vector.z);
            count_word(source, shared, stream, vector.w);
        }
        next += whole * each;
    }
    for (uint32_t element = next + lane; element < end; element += kWarp) {
        const uint32_t value = load_element(source, element);
        for (uint32_t plane = 0; plane < source.planes; ++plane) count(shared, plane, stream, value >> (8 * plane));
    }
}

template <class T>
__device__ __forceinline__ T warp_sum(T value) {
    for (uint32_t distance = kWarp / 2; distance > 0; distance /= 2) {
        value += __shfl_xor_sync(kAllLanes, value, static_cast<int>(distance));
    }
    return value;
}

// Whether surely no code gains, which spares a plane of noise the search for a code. Two symbols drawn at random are equal
// with probability 2^-H2, where H2, Renyi's entropy of order 2, is at most Shannon's, and a code takes at least that many
// bits a symbol. Here they are 7.7, and a code must get below 7.6. Called by a whole warp, as what follows.
__device__ bool is_hopeless(const uint32_t* counts, uint32_t symbols, uint32_t lane) {
    constexpr uint64_t kVariety = 208;  // 2^7.7
    uint64_t pairs = 0;
    for (uint32_t value = lane; value < 256; value += kWarp) pairs += static_cast<uint64_t>(counts[value]) * counts[value];
    return warp_sum(pairs) * kVariety <= static_cast<uint64_t>(symbols) * symbols;
}

// The counterpart of rank_symbols: by count, then by value. A symbol's rank is the number of symbols before it.
__device__ void rank_symbols_together(const uint32_t* counts, CodeWorkspace& work, uint32_t lane) {
    uint32_t mine[kGroups];  // count and value in one number
    uint32_t rank[kGroups] = {};
#pragma unroll
    for (uint32_t group = 0; group < kGroups; ++group) {
        const uint32_t symbol = group * kWarp + lane;
        mine[group] = counts[symbol] << 8 | symbol;
    }
    uint32_t symbols = 0;
    for (uint32_t symbol = 0; symbol < 256; ++symbol) {
        if (counts[symbol] == 0) continue;
        const uint32_t other = counts[symbol] << 8 | symbol;
        ++symbols;
#pragma unroll
        for (uint32_t group = 0; group < kGroups; ++group) rank[group] += other < mine[group];
    }
#pragma unroll
    for (uint32_t group = 0; group < kGroups; ++group) {
        if (mine[group] >> 8 != 0) work.symbol[rank[group]] = static_cast<uint8_t>(mine[group]);
    }
    if (lane == 0) work.symbols = symbols;
    __syncwarp();
}

// The counterpart of assign_codes, with the length of each code in the bits above the code.
__device__ void assign_codes_together(const HuffmanCode& code, uint32_t* codes, uint32_t lane) {
    uint32_t length[kGroups];
#pragma unroll
    for (uint32_t group = 0; group < kGroups; ++group) {
        length[group] = code.length[group * kWarp + lane];
        if (length[group] == 0) codes[group * kWarp + lane] = 0;
    }
    uint32_t cell = 0;
    for (uint32_t bits = code.table_log; bits > 0; --bits) {
        uint32_t next = cell >> (code.table_log - bits);
#pragma unroll
        for (uint32_t group = 0; group < kGroups; ++group) {
            const bool mine = length[group] == bits;
            const uint32_t owners = __ballot_sync(kAllLanes, mine);
            if (mine) codes[group * kWarp + lane] = (next + __popc(owners & ((1u << lane) - 1))) | bits << 16;
            next += __popc(owners);
        }
        cell = next << (code.table_log - bits);
    }
}

// Sums up the streams' counts; returns whether there is only one value, which `plan` then gets.
__device__ bool sum_counts(PlanMemory& memory, uint32_t symbols, PlanePlan& plan, uint32_t lane) {
    bool constant = false;
    for (uint32_t value = lane; value < 256; value += kWarp) {
        uint32_t total = 0;
        for (uint32_t stream = 0; stream < kStreams; ++stream) total += memory.stream_counts[stream][value];
        memory.counts[value] = total;
        if (total == symbols && symbols >= 2) {
            constant = true;
            plan.constant = static_cast<uint8_t>(value);
        }
    }
    __syncwarp();
    return __any_sync(kAllLanes, constant) != 0;
}

// Finds a code and describes it in `memory`; the description's size is 0 if no code gains.
__device__ void find_code(PlanMemory& memory, uint32_t symbols, uint32_t lane) {
    rank_symbols_together(memory.counts, memory.code_work, lane);
    if (lane == 0) {
        choose_ranked_lengths(memory.counts, memory.code, memory.code_work);
        const bool gain = gains(memory.code.payload_bits / 8, symbols);
        memory.tree_size = gain ? write_tree(memory.code, memory.tree, memory.tree_work) : 0;
    }
    __syncwarp();
}

// The size of the plane in the code that was found. Streams have at most 32768 symbols of 11 bits.
__device__ uint32_t coded_size(const PlanMemory& memory, PlanePlan& plan, uint32_t lane) {
    uint32_t size = memory.tree_size + kJumpTableSize;
    for (uint32_t stream = 0; stream < kStreams; ++stream) {
        uint32_t bits = 0;
        for (uint32_t value = lane; value < 256; value += kWarp) {
            bits += memory.stream_counts[stream][value] * memory.code.length[value];
        }
        const uint32_t bytes = (warp_sum(bits) + 1 + 7) / 8;  // with the end mark
        if (lane == 0) plan.stream_size[stream] = bytes;
        size += bytes;
    }
    return size;
}

// Decides how a plane is encoded, and fills its plan.
__device__ void plan_plane(PlanMemory& memory, uint32_t symbols, PlanePlan& plan, uint32_t lane) {
    uint32_t kind = kRawPlane;
    uint32_t size = symbols;
    if (sum_counts(memory, symbols, plan, lane)) {
        kind = kConstantPlane;
        size = 1;
    } else if (symbols >= kMinHuff0Symbols && !is_hopeless(memory.counts, symbols, lane)) {
        find_code(memory, symbols, lane);
        if (memory.tree_size != 0) {
            const uint32_t coded = coded_size(memory, plan, lane);
            if (gains(coded, symbols)) {
                kind = kCodedPlane;
                size = coded;
            }
        }
    }
    if (kind == kCodedPlane) {
        assign_codes_together(memory.code, plan.codes, lane);
        for (uint32_t i = lane; i < memory.tree_size; i += kWarp) plan.tree[i] = memory.tree[i];
    }
    if (lane == 0) {
        plan.kind = kind;
        plan.size = size;
        plan.tree_size = kind == kCodedPlane ? memory.tree_size : 0;
    }
}

// ---------------------------------------------------------------------------------------------------------------
// zipnn_write

__device__ __forceinline__ void store_bytes(uint8_t* to, uint32_t word, uint32_t first, uint32_t end) {
    for (uint32_t byte = first; byte < end; ++byte) to[byte] = static_cast<uint8_t>(word >> (8 * byte));
}

// Bits on their way to a stream: whole words are written, the last word waits for more bits. Words are aligned in memory, so
// that the stream starts somewhere in the first word; bytes of the neighbours stay as they are.
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

// Writes out the whole words, and moves the remaining bits to the front.
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

// How many symbols of `all` are left for a lane whose first symbol is `from`.
__device__ __forceinline__ uint32_t lane_symbols(uint32_t from, uint32_t all) {
    return from < all ? min(all - from, kLaneSymbols) : 0;
}

// The `count` symbols before the last `skipped` of those that end at `end`: the last of them in the highest byte.
__device__ __forceinline__ uint64_t load_backward(const BlockSource& source, uint32_t plane, uint32_t end, uint32_t skipped,
                                                  uint32_t count) {
    if (count == kLaneSymbols && end % kLaneSymbols == 0) {
        const uint2 loaded = load_plane(source, plane, end - skipped - kLaneSymbols);
        return loaded.x | static_cast<uint64_t>(loaded.y) << 32;
    }
    uint64_t symbols = 0;
    for (uint32_t i = 0; i < count; ++i) {
        symbols |= static_cast<uint64_t>(plane_byte(source, plane, end - 1 - skipped - i)) << (56 - 8 * i);
    }
    return symbols;
}

// Writes symbols [first, end) of a plane as one bit stream at `out`: last to first, bits upward, then the end mark.
__device__ void write_stream(const BlockSource& source, uint32_t plane, uint32_t first, uint32_t end,
                             const uint32_t* codes, uint8_t* out, uint32_t* words, uint32_t lane) {
    for (uint32_t word = lane; word < kStageWords; word += kWarp) words[word] = 0;
    const uint32_t skip = static_cast<uint32_t>(reinterpret_cast<uintptr_t>(out) & 3);
    BitStage stage = {words, out - skip, 8 * skip, skip};
    __syncwarp();
    const uint32_t all = end - first;
    uint32_t mine = lane * kLaneSymbols;  // the lane's symbols begin here, counted from the last one
    uint64_t ahead = load_backward(source, plane, end, mine, lane_symbols(mine, all));
    for (uint32_t done = 0; done < all; done += kWarpSymbols) {
        const uint32_t have = lane_symbols(mine, all);
        const uint64_t symbols = ahead;
        mine += kWarpSymbols;
        ahead = load_backward(source, plane, end, mine, lane_symbols(mine, all));
        uint64_t half[2] = {0, 0};
        uint32_t bits[2] = {0, 0};
#pragma unroll
        for (uint32_t i = 0; i < kLaneSymbols; ++i) {
            if (i >= have) continue;
            const uint32_t code = codes[symbols >> (56 - 8 * i) & 255];
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

// Writes a raw plane, four bytes at a time from the first whole word on.
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

// grid: a CTA of 128 threads for each block; dynamic shared memory: kPlanMemory for each plane
extern "C" __global__ void zipnn_plan(const dumont::EncodeJob* jobs) {
    using namespace dumont;
    DUMONT_DYNAMIC_SHARED(shared);
    const EncodeJob job = jobs[0];
    const BlockSource source = block_source(job, blockIdx.x);
    const uint32_t warp = threadIdx.x / kWarp;
    const uint32_t lane = threadIdx.x % kWarp;
    for (uint32_t plane = 0; plane < source.planes; ++plane) {
        uint32_t* counts = plan_memory(shared, plane).stream_counts[0];
        for (uint32_t i = threadIdx.x; i < kStreams * 256; i += kThreads) counts[i] = 0;
    }
    __syncthreads();
    const uint32_t segment = (source.elements + kStreams - 1) / kStreams;
    const uint32_t first = min(warp * segment, source.elements);
    count_stream(source, first, min(first + segment, source.elements), warp, lane, shared);
    __syncthreads();
    if (warp >= source.planes) return;
    PlanePlan* plans = reinterpret_cast<PlanePlan*>(static_cast<uintptr_t>(job.plans));
    plan_plane(plan_memory(shared, warp), source.elements, plans[warp * job.blocks + blockIdx.x], lane);
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

// grid: a CTA of 128 threads for each plane of each block; those of a block follow one another, so that L2 has its elements
extern "C" __global__ void zipnn_write(const dumont::EncodeJob* jobs) {
    using namespace dumont;
    __shared__ uint32_t codes[256];
    __shared__ uint32_t stages[kStreams][kStageWords];
    const EncodeJob job = jobs[0];
    const uint32_t plane = blockIdx.x % job.planes;
    const uint32_t block = blockIdx.x / job.planes;
    const BlockSource source = block_source(job, block);
    const PlanePlan* plans = reinterpret_cast<const PlanePlan*>(static_cast<uintptr_t>(job.plans));
    const PlanePlan& plan = plans[plane * job.blocks + block];
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
