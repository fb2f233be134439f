// Kernels: elements to ZipNN blocks. FORMAT.md, section 5.2; CPU reference: cpu/zipnn_encode.cpp. The streams are the CPU's
// to the byte: both look at the same sample of a plane (plane_sample.h) and choose the same codes (plane_code.h).
//
// Three launches for a chunk, or for several: `jobs` describes one after the other, `result` gets a size for each, and the
// CTAs of a job follow those of the job before.
//   zipnn_plan    A CTA takes a block. 2 KiB of each plane tell which planes are noise and stay raw; the others are counted,
//                 a warp for each of the four streams. A warp for each plane then chooses raw, constant or Huff0, builds the
//                 code, describes it, and knows the exact size of each stream, since sizes follow from counts.
//   zipnn_layout  A CTA takes a job: a prefix sum of sizes gives the offset of each plane of each block; writes the tables.
//   zipnn_write   A CTA takes one plane of a block and writes it at its offset. A raw plane leaves in words, each shifted
//                 together from two lanes' bytes, so that any offset costs the same. A coded plane has a warp for each stream:
//                 a lane joins the codes of 16 symbols into two strings, which a prefix sum of their lengths places in a
//                 stage of lines in shared memory; lines of 128 bytes leave when they are full.
//
// Bytes moved, bf16, per raw byte: zipnn_plan reads 1; zipnn_write reads 1, a second time from L2 for the other plane, and
// writes 0.66. Bound, by the static schedule: memory, but for shared-memory atomics in zipnn_plan if a device makes equal
// symbols wait for one another; figures are in kernels/README.md.
#include "plane_code.h"
#include "plane_sample.h"
#include "zipnn_job.h"

// What only a device can decide. Counters of a stream in zipnn_plan, 1 or 2: two serve odd and even lanes, in other banks, in
// case that a device makes equal symbols of a warp wait for one another.
#if !defined(DUMONT_COUNT_COPIES)
#define DUMONT_COUNT_COPIES 2
#endif
// CTAs on an SM that registers shall allow.
#if !defined(DUMONT_PLAN_CTAS)
#define DUMONT_PLAN_CTAS 8
#endif
#if !defined(DUMONT_WRITE_CTAS)
#define DUMONT_WRITE_CTAS 8
#endif
// Words of a raw plane that a thread loads before it writes the first.
#if !defined(DUMONT_RAW_WORDS)
#define DUMONT_RAW_WORDS 4
#endif

namespace dumont {
namespace {

constexpr uint32_t kThreads = kStreams * kWarp;  // a warp for each stream
static_assert(kThreads == kEncodeThreads, "the host launches this many");
constexpr uint32_t kGroup = 16;  // elements that a lane takes at a time: a vector of 16 bytes for each plane

// ---------------------------------------------------------------------------------------------------------------
// Elements.

// A block's elements; `moved` of them have their sign moved: all but perhaps the last.
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

// The job of a CTA, whose number is then `cta` within it. `ctas_of` says how many a job has.
template <class CtasOf>
__device__ __forceinline__ EncodeJob find_job(const EncodeJob* jobs, uint32_t& cta, CtasOf ctas_of) {
    EncodeJob job = *jobs;
    while (cta >= ctas_of(job)) {
        cta -= ctas_of(job);
        job = *++jobs;
    }
    return job;
}

// The symbols [first, end) of one of the four streams.
struct Range {
    uint32_t first;
    uint32_t end;
};

__device__ __forceinline__ Range stream_range(const BlockSource& source, uint32_t stream) {
    const uint32_t segment = (source.elements + kStreams - 1) / kStreams;
    const uint32_t first = min(stream * segment, source.elements);
    return {first, min(first + segment, source.elements)};
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

// How a plane is cut out of words of elements that have their sign moved. Only two planes change by the move: the exponent
// is one bit further up, and the byte below it gets the sign as its highest bit.
struct PlaneCut {
    uint32_t shift;
    uint32_t sign;   // bits that come from eight bits further up
    uint32_t bytes;  // of two words, for __byte_perm
};

__device__ __forceinline__ PlaneCut plane_cut(const BlockSource& source, uint32_t plane) {
    const bool moves = source.moved != 0;
    const bool below = moves && plane + 2 == source.planes;
    return {moves && plane + 1 == source.planes ? 1u : 0u, !below ? 0 : source.planes == 2 ? 0x00800080u : 0x00800000u,
            source.planes == 2 ? 0x6420 + 0x1111 * plane : plane | (4 + plane) << 4};
}

__device__ __forceinline__ uint32_t cut_word(const PlaneCut& cut, uint32_t word) {
    return ((word << cut.shift) & ~cut.sign) | (word >> 8 & cut.sign);
}

// The plane's bytes of four elements, given as `planes` words.
template <uint32_t planes>
__device__ __forceinline__ uint32_t cut_plane(const PlaneCut& cut, uint32_t a, uint32_t b, uint32_t c, uint32_t d) {
    if (planes == 1) return a;
    const uint32_t low = __byte_perm(cut_word(cut, a), cut_word(cut, b), cut.bytes);
    if (planes == 2) return low;
    return __byte_perm(low, __byte_perm(cut_word(cut, c), cut_word(cut, d), cut.bytes), 0x5410);
}

// Elements [16 group, 16 group + 16) as they are.
template <uint32_t planes>
struct RawGroup {
    uint4 vectors[planes];
};

template <uint32_t planes>
__device__ __forceinline__ void load_group(const BlockSource& source, uint32_t group, RawGroup<planes>& raw) {
    const uint4* vectors = reinterpret_cast<const uint4*>(source.bytes) + static_cast<uint64_t>(group) * planes;
#pragma unroll
    for (uint32_t i = 0; i < planes; ++i) raw.vectors[i] = __ldg(vectors + i);
}

// One plane of a group.
template <uint32_t planes>
__device__ __forceinline__ uint4 cut_group(const PlaneCut& cut, const RawGroup<planes>& raw) {
    if constexpr (planes == 1) {
        return raw.vectors[0];
    } else if constexpr (planes == 2) {
        const uint4 a = raw.vectors[0], b = raw.vectors[1];
        return {cut_plane<planes>(cut, a.x, a.y, 0, 0), cut_plane<planes>(cut, a.z, a.w, 0, 0),
                cut_plane<planes>(cut, b.x, b.y, 0, 0), cut_plane<planes>(cut, b.z, b.w, 0, 0)};
    } else {
        uint32_t bytes[4];
#pragma unroll
        for (uint32_t i = 0; i < 4; ++i) {
            const uint4 a = raw.vectors[i];
            bytes[i] = cut_plane<planes>(cut, a.x, a.y, a.z, a.w);
        }
        return {bytes[0], bytes[1], bytes[2], bytes[3]};
    }
}

__device__ __forceinline__ bool is_whole(uint32_t group, const Range& range) {
    return group >= (range.first + kGroup - 1) / kGroup && group < range.end / kGroup;
}

__device__ __forceinline__ uint32_t byte_of(uint32_t word, uint32_t i) {
    return __byte_perm(word, 0, 0x4440 | i);
}

// ---------------------------------------------------------------------------------------------------------------
// zipnn_plan

// Shared memory of one plane.
struct PlanMemory {
    uint32_t stream_counts[kStreams][256];
    union {  // one after the other
        struct {
            uint32_t gap[16];  // so that a symbol's two counters are in different banks
            uint32_t counts[kStreams][256];
        } odd;  // lanes
        CodeMemory code;
    };
    uint32_t counts[256];  // of all streams
};
static_assert(sizeof(PlanMemory) == kPlanMemory, "every launch asks for this much for each plane");
static_assert(DUMONT_COUNT_COPIES == 1 || DUMONT_COUNT_COPIES == 2, "PlanMemory has room for two");

__device__ __forceinline__ PlanMemory& plan_memory(uint8_t* shared, uint32_t plane) {
    return *reinterpret_cast<PlanMemory*>(shared + plane * kPlanMemory);
}

__device__ __forceinline__ void clear_counts(PlanMemory& memory) {
    uint4* even = reinterpret_cast<uint4*>(memory.stream_counts);
    uint4* odd = reinterpret_cast<uint4*>(memory.odd.counts);
#pragma unroll 1
    for (uint32_t i = threadIdx.x; i < sizeof memory.stream_counts / sizeof(uint4); i += kThreads) {
        even[i] = {};
        if (DUMONT_COUNT_COPIES == 2) odd[i] = {};
    }
}

// Counts the sample of each plane, by the whole CTA.
__device__ __forceinline__ void count_sample(const BlockSource& source, uint8_t* shared, uint32_t warp, uint32_t lane) {
    constexpr uint32_t kRunsOfWarp = kSampleRuns / kStreams;
    constexpr uint32_t kOfLane = kSampleRun / kWarp;
    uint32_t values[kRunsOfWarp * kOfLane];
#pragma unroll
    for (uint32_t i = 0; i < kRunsOfWarp * kOfLane; ++i) {
        const uint32_t run = warp * kRunsOfWarp + i / kOfLane;
        values[i] = load_element(source, run * (source.elements / kSampleRuns) + i % kOfLane * kWarp + lane);
    }
#pragma unroll 1
    for (uint32_t plane = 0; plane < source.planes; ++plane) {
        uint32_t* counts = plan_memory(shared, plane).stream_counts[warp];
#pragma unroll
        for (uint32_t i = 0; i < kRunsOfWarp * kOfLane; ++i) atomicAdd(counts + (values[i] >> (8 * plane) & 255), 1u);
    }
}

// Whether a plane's sample says that no code gains; clears its counts. By one warp.
__device__ __forceinline__ bool judge_sample(PlanMemory& memory, uint32_t lane) {
    uint32_t squares = 0;
#pragma unroll 1
    for (uint32_t symbol = lane; symbol < 256; symbol += kWarp) {
        uint32_t count = 0;
        for (uint32_t stream = 0; stream < kStreams; ++stream) {
            count += memory.stream_counts[stream][symbol];
            memory.stream_counts[stream][symbol] = 0;
        }
        squares += count * count;
    }
    return sample_is_hopeless(warp_sum(squares));
}

// Counts one stream of a plane, by one warp.
template <uint32_t planes>
__device__ __forceinline__ void count_stream(const BlockSource& source, uint32_t plane, const Range& range, uint32_t* counts,
                                             uint32_t lane) {
    const PlaneCut cut = plane_cut(source, plane);
    RawGroup<planes> raw = {};  // loaded while the group before is counted
    uint32_t group = range.first / kGroup + lane;
    if (is_whole(group, range)) load_group(source, group, raw);
#pragma unroll 1
    for (; group * kGroup < range.end; group += kWarp) {
        const bool next = is_whole(group + kWarp, range);
        if (is_whole(group, range)) {
            const uint4 symbols = cut_group(cut, raw);
            if (next) load_group(source, group + kWarp, raw);
            const uint32_t words[4] = {symbols.x, symbols.y, symbols.z, symbols.w};
#pragma unroll
            for (uint32_t i = 0; i < kGroup; ++i) atomicAdd(counts + byte_of(words[i / 4], i % 4), 1u);
        } else {
            if (next) load_group(source, group + kWarp, raw);
            const uint32_t end = min((group + 1) * kGroup, range.end);
#pragma unroll 1
            for (uint32_t element = max(group * kGroup, range.first); element < end; ++element) {
                atomicAdd(counts + plane_byte(source, plane, element), 1u);
            }
        }
    }
}

__device__ __forceinline__ void count_plane(const BlockSource& source, uint32_t plane, uint8_t* shared, uint32_t warp,
                                            uint32_t lane) {
    const Range range = stream_range(source, warp);
    PlanMemory& memory = plan_memory(shared, plane);
    uint32_t* counts = DUMONT_COUNT_COPIES == 2 && lane % 2 != 0 ? memory.odd.counts[warp] : memory.stream_counts[warp];
    if (source.planes == 1) count_stream<1>(source, plane, range, counts, lane);
    if (source.planes == 2) count_stream<2>(source, plane, range, counts, lane);
    if (source.planes == 4) count_stream<4>(source, plane, range, counts, lane);
}

// Sums up what was counted, by one warp; returns whether there is only one symbol, which `plan` then gets.
__device__ __forceinline__ bool sum_counts(PlanMemory& memory, uint32_t symbols, PlanePlan& plan, uint32_t lane) {
    bool constant = false;
#pragma unroll 1
    for (uint32_t symbol = lane; symbol < 256; symbol += kWarp) {
        uint32_t total = 0;
        for (uint32_t stream = 0; stream < kStreams; ++stream) {
            uint32_t& count = memory.stream_counts[stream][symbol];
            if (DUMONT_COUNT_COPIES == 2) count += memory.odd.counts[stream][symbol];
            total += count;
        }
        memory.counts[symbol] = total;
        if (total == symbols && symbols >= 2) {
            constant = true;
            plan.constant = static_cast<uint8_t>(symbol);
        }
    }
    __syncwarp();
    return __any_sync(kAllLanes, constant) != 0;
}

// The size of the plane in the code that was found. Streams have at most 32768 symbols of 11 bits.
__device__ __forceinline__ uint32_t coded_size(const PlanMemory& memory, const WarpCode& code, uint32_t tree_size,
                                               PlanePlan& plan, uint32_t lane) {
    uint32_t size = tree_size + kJumpTableSize;
#pragma unroll 1
    for (uint32_t stream = 0; stream < kStreams; ++stream) {
        uint32_t bits = 0;
#pragma unroll
        for (uint32_t group = 0; group < kGroups; ++group) {
            bits += memory.stream_counts[stream][group * kWarp + lane] * code.length[group];
        }
        const uint32_t bytes = (warp_sum(bits) + 1 + 7) / 8;  // with the end mark
        if (lane == 0) plan.stream_size[stream] = bytes;
        size += bytes;
    }
    return size;
}

// Finds a code for a plane, and fills the plan with it; returns the size in that code, or 0 if none gains.
__device__ __forceinline__ uint32_t plan_code(PlanMemory& memory, uint32_t symbols, PlanePlan& plan, uint32_t lane) {
    WarpCode code;
    choose_code(memory.counts, memory.code.choice, code, lane);
    if (!gains(code.payload_bits / 8, symbols)) return 0;
    __syncwarp();  // the description's memory is the choice's
    const uint32_t tree_size = describe_code(code, memory.code.description, lane);
    if (tree_size == 0) return 0;
    const uint32_t size = coded_size(memory, code, tree_size, plan, lane);
    if (!gains(size, symbols)) return 0;
    assign_codes(code, plan.codes, lane);
    const uint8_t* tree = reinterpret_cast<const uint8_t*>(memory.code.description.words);
#pragma unroll 1
    for (uint32_t i = lane; i < tree_size; i += kWarp) plan.tree[i] = tree[i];
    if (lane == 0) plan.tree_size = tree_size;
    return size;
}

// Decides how a plane is encoded, and fills its plan. By one warp.
__device__ __forceinline__ void plan_plane(PlanMemory& memory, uint32_t symbols, bool hopeless, PlanePlan& plan,
                                           uint32_t lane) {
    uint32_t kind = kRawPlane;
    uint32_t size = symbols;
    if (!hopeless) {
        if (sum_counts(memory, symbols, plan, lane)) {
            kind = kConstantPlane;
            size = 1;
        } else if (symbols >= kMinHuff0Symbols) {
            const uint32_t coded = plan_code(memory, symbols, plan, lane);
            if (coded != 0) {
                kind = kCodedPlane;
                size = coded;
            }
        }
    }
    if (lane == 0) {
        plan.kind = kind;
        plan.size = size;
    }
}

// ---------------------------------------------------------------------------------------------------------------
// zipnn_write: raw planes

// Elements [4 quad, 4 quad + 4).
template <uint32_t planes>
__device__ __forceinline__ uint32_t load_whole_quad(const BlockSource& source, const PlaneCut& cut, uint32_t quad) {
    const uint8_t* from = source.bytes + 4ull * quad * planes;
    if (planes == 1) return __ldg(reinterpret_cast<const uint32_t*>(from));
    if (planes == 2) {
        const uint2 words = __ldg(reinterpret_cast<const uint2*>(from));
        return cut_plane<planes>(cut, words.x, words.y, 0, 0);
    }
    const uint4 words = __ldg(reinterpret_cast<const uint4*>(from));
    return cut_plane<planes>(cut, words.x, words.y, words.z, words.w);
}

// The same, with 0 for those beyond the block.
template <uint32_t planes>
__device__ __forceinline__ uint32_t load_quad(const BlockSource& source, const PlaneCut& cut, uint32_t plane, uint32_t quad) {
    if (quad < source.elements / 4) return load_whole_quad<planes>(source, cut, quad);
    uint32_t bytes = 0;
#pragma unroll 1
    for (uint32_t element = 4 * quad; element < source.elements; ++element) {
        bytes |= plane_byte(source, plane, element) << (8 * (element % 4));
    }
    return bytes;
}

// The word that begins `skip` bytes before this lane's quad. `before` is the quad before lane 0's, and gets the last lane's.
__device__ __forceinline__ uint32_t shift_quads(uint32_t quad, uint32_t skip, uint32_t& before, uint32_t lane) {
    const uint32_t neighbour = __shfl_sync(kAllLanes, quad, static_cast<int>((lane + kWarp - 1) % kWarp));
    const uint32_t value = __funnelshift_l(lane == 0 ? before : neighbour, quad, 8 * skip);
    before = neighbour;
    return value;
}

// Writes a raw plane. Words are aligned in memory: word w has the plane's bytes [4 w - skip, 4 w - skip + 4), which are of
// quads w - 1 and w. A warp has a run of words, and a lane gets the quad before its own from its neighbour.
template <uint32_t planes>
__device__ __forceinline__ void write_raw(const BlockSource& source, uint32_t plane, uint8_t* out) {
    constexpr uint32_t kAhead = DUMONT_RAW_WORDS;
    const PlaneCut cut = plane_cut(source, plane);
    const uint32_t lane = threadIdx.x % kWarp;
    const uint32_t skip = static_cast<uint32_t>(reinterpret_cast<uintptr_t>(out) & 3);
    uint32_t* words = reinterpret_cast<uint32_t*>(out - skip);
    const uint32_t whole = (skip + source.elements) / 4;  // words that end within the plane
    const uint32_t begin = skip == 0 ? 0 : min(1u, whole);  // the first that begins there
    const uint32_t of_warp = (whole - begin + kThreads - 1) / kThreads * kWarp;
    uint32_t base = begin + threadIdx.x / kWarp * of_warp;
    const uint32_t end = min(base + of_warp, whole);
    uint32_t before = skip != 0 && base < end ? load_quad<planes>(source, cut, plane, base - 1) : 0;
#pragma unroll 1
    for (; base + kAhead * kWarp <= min(end, source.elements / 4); base += kAhead * kWarp) {
        uint32_t quads[kAhead];
#pragma unroll
        for (uint32_t i = 0; i < kAhead; ++i) quads[i] = load_whole_quad<planes>(source, cut, base + i * kWarp + lane);
#pragma unroll
        for (uint32_t i = 0; i < kAhead; ++i) {
            __stcs(words + base + i * kWarp + lane, shift_quads(quads[i], skip, before, lane));
        }
    }
#pragma unroll 1
    for (; base < end; base += kWarp) {
        const uint32_t word = base + lane;
        const uint32_t quad = word < end ? load_quad<planes>(source, cut, plane, word) : 0;
        const uint32_t value = shift_quads(quad, skip, before, lane);
        if (word < end) __stcs(words + word, value);
    }
    const uint32_t head = min(skip == 0 ? 0 : 4 - skip, source.elements);  // bytes in the first word, and behind the last
    const uint32_t tail = whole == 0 ? head : 4 * whole - skip;
#pragma unroll 1
    for (uint32_t i = threadIdx.x; i < head + source.elements - tail; i += kThreads) {
        const uint32_t element = i < head ? i : tail + i - head;
        out[element] = static_cast<uint8_t>(plane_byte(source, plane, element));
    }
}

// ---------------------------------------------------------------------------------------------------------------
// zipnn_write: coded planes

constexpr uint32_t kLineWords = kWarp;  // a word for each lane: 128 bytes, aligned in memory
constexpr uint32_t kLineBits = 32 * kLineWords;
// A line that waits for more bits, and what a warp joins at a time.
constexpr uint32_t kStageLines = (kLineBits - 1 + kWarp * kGroup * kMaxWrittenLength) / kLineBits + 1;
static_assert(kStageLines * kLineBits >= kLineBits - 1 + kWarp * kGroup * kMaxWrittenLength + 4 * 32, "see put_bits");
constexpr uint32_t kStageWords = kStageLines * kLineWords;

// Bits on their way to a stream. Whole lines are written; the last line waits for more bits. Lines are aligned in memory, so
// that the stream starts somewhere in the first; bytes of the neighbours stay as they are.
struct BitStage {
    uint32_t* words;  // of this warp, in shared memory; zero but for what is staged
    uint8_t* to;      // where words[0] goes, a multiple of 128
    uint32_t bits;    // staged, with those before the stream's start
    uint32_t skip;    // bytes of the first line that belong to what comes before
};

// Up to eight codes, the first of them in the highest bits.
struct BitString {
    uint32_t low, middle, high;
    uint32_t bits;
};

// A funnel shift by a code's entry takes the code in: the entry has its length where the shift looks for it.
__device__ __forceinline__ BitString join_codes(const uint32_t* codes /* [8] */) {
    static_assert(2 * kMaxWrittenLength <= 32 && 5 * kMaxWrittenLength <= 64 && 8 * kMaxWrittenLength <= 96, "see below");
    BitString joined = {0, 0, 0, 0};
#pragma unroll
    for (uint32_t i = 0; i < 8; ++i) {
        const uint32_t code = codes[i];
        if (i >= 5) joined.high = __funnelshift_l(joined.middle, joined.high, code);
        if (i >= 2) joined.middle = __funnelshift_l(joined.low, joined.middle, code);
        joined.low = __funnelshift_l(code, joined.low, code);
        joined.bits += code;
    }
    joined.bits &= 127;  // above are the sums of codes
    return joined;
}

__device__ __forceinline__ void put_bits(uint32_t* words, uint32_t position, const BitString& string) {
    uint32_t* word = words + position / 32;
    atomicOr(word, string.low << (position & 31));
    atomicOr(word + 1, __funnelshift_l(string.low, string.middle, position));
    if ((position & 31) + string.bits <= 64) return;
    atomicOr(word + 2, __funnelshift_l(string.middle, string.high, position));
    atomicOr(word + 3, __funnelshift_l(string.high, 0, position));
}

// The lane's word of a line of which only bytes [first, end) are the stream's.
__device__ __forceinline__ void store_part(uint8_t* line, uint32_t word, uint32_t first, uint32_t end, uint32_t lane) {
    for (uint32_t byte = 4 * lane; byte < 4 * lane + 4; ++byte) {
        if (byte >= first && byte < end) line[byte] = static_cast<uint8_t>(word >> (8 * (byte % 4)));
    }
}

// Writes out the whole lines, and moves the remaining one to the front. A lane has the same word of every line.
__device__ __forceinline__ void flush_lines(BitStage& stage, uint32_t lane) {
    __syncwarp();
    const uint32_t lines = stage.bits / kLineBits;
    if (lines == 0) return;
    uint32_t* mine = stage.words + lane;
    if (stage.skip != 0) {
        store_part(stage.to, *mine, stage.skip, 4 * kLineWords, lane);
    } else {
        __stcs(reinterpret_cast<uint32_t*>(stage.to) + lane, *mine);
    }
#pragma unroll 1
    for (uint32_t line = 1; line < lines; ++line) {
        __stcs(reinterpret_cast<uint32_t*>(stage.to) + line * kLineWords + lane, mine[line * kLineWords]);
        mine[line * kLineWords] = 0;
    }
    *mine = mine[lines * kLineWords];
    mine[lines * kLineWords] = 0;
    __syncwarp();
    stage.skip = 0;
    stage.to += 4 * kLineWords * lines;
    stage.bits %= kLineBits;
}

// One plane of a group of which only some elements are in the range; 0 stands for the others.
__device__ __forceinline__ uint4 load_part(const BlockSource& source, uint32_t plane, const Range& range, uint32_t group) {
    uint4 bytes = {};
#pragma unroll 1
    for (uint32_t i = 0; i < kGroup; ++i) {
        const uint32_t element = group * kGroup + i;
        const bool inside = element >= range.first && element < range.end;
        const uint32_t byte = inside ? plane_byte(source, plane, element) : 0;
        bytes = {__funnelshift_r(bytes.x, bytes.y, 8), __funnelshift_r(bytes.y, bytes.z, 8),
                 __funnelshift_r(bytes.z, bytes.w, 8), __funnelshift_r(bytes.w, byte, 8)};
    }
    return bytes;
}

// The entries of a group's symbols; 0, which joins as nothing, for those outside the range.
__device__ __forceinline__ void look_up(const uint4& symbols, const Range& range, uint32_t group, const uint32_t* table,
                                        uint32_t* codes /* [kGroup] */) {
    const uint32_t words[4] = {symbols.x, symbols.y, symbols.z, symbols.w};
#pragma unroll
    for (uint32_t i = 0; i < kGroup; ++i) codes[i] = table[byte_of(words[i / 4], i % 4)];
    if (is_whole(group, range)) return;
#pragma unroll
    for (uint32_t i = 0; i < kGroup; ++i) {
        const uint32_t element = group * kGroup + i;
        if (element < range.first || element >= range.end) codes[i] = 0;
    }
}

// Writes the symbols of a range as one bit stream at `out`: last to first, bits upward, then the end mark. By one warp; lane 0
// has the last group.
template <uint32_t planes>
__device__ __forceinline__ void write_stream(const BlockSource& source, uint32_t plane, const Range& range,
                                             const uint32_t* table, uint8_t* out, uint32_t* words, uint32_t lane) {
#pragma unroll 1
    for (uint32_t word = lane; word < kStageWords; word += kWarp) words[word] = 0;
    const uint32_t skip = static_cast<uint32_t>(reinterpret_cast<uintptr_t>(out) % (4 * kLineWords));
    BitStage stage = {words, out - skip, 8 * skip, skip};
    __syncwarp();
    const PlaneCut cut = plane_cut(source, plane);
    const uint32_t first_group = range.first / kGroup;
    const uint32_t groups = range.end > range.first ? (range.end + kGroup - 1) / kGroup - first_group : 0;
    RawGroup<planes> raw = {};  // loaded while the group before is joined
    // Lane l has the group l before the last. Before the first there is none: such a number wraps, and is far beyond the end.
    uint32_t group = first_group + groups - 1 - lane;
    if (is_whole(group, range)) load_group(source, group, raw);
#pragma unroll 1
    for (uint32_t done = 0; done < groups; done += kWarp) {
        const uint4 symbols = is_whole(group, range) ? cut_group(cut, raw) : load_part(source, plane, range, group);
        if (is_whole(group - kWarp, range)) load_group(source, group - kWarp, raw);
        uint32_t codes[kGroup];
        look_up(symbols, range, group, table, codes);
        group -= kWarp;
        const BitString first = join_codes(codes);
        const BitString second = join_codes(codes + kGroup / 2);
        const uint32_t bits = first.bits + second.bits;
        const uint32_t end = warp_prefix_sum(bits, lane);
        const uint32_t position = stage.bits + end - bits;
        put_bits(stage.words, position, second);
        put_bits(stage.words, position + second.bits, first);
        stage.bits += __shfl_sync(kAllLanes, end, kWarp - 1);
        flush_lines(stage, lane);
    }
    uint32_t last = stage.words[lane];
    if (lane == stage.bits / 32) last |= 1u << (stage.bits % 32);
    store_part(stage.to, last, stage.skip, stage.bits / 8 + 1, lane);
}

struct WriteMemory {
    uint32_t codes[256];
    uint32_t stages[kStreams][kStageWords];
};

// Writes one plane of a block, by a CTA.
template <uint32_t planes>
__device__ __forceinline__ void write_plane(const BlockSource& source, uint32_t plane, const PlanePlan& plan, uint8_t* out,
                                            WriteMemory& memory) {
    if (plan.kind == kRawPlane) {
        write_raw<planes>(source, plane, out);
        return;
    }
    const uint32_t warp = threadIdx.x / kWarp;
    uint8_t* to = out + plan.tree_size + kJumpTableSize;
#pragma unroll 1
    for (uint32_t stream = 0; stream < warp; ++stream) to += plan.stream_size[stream];
    write_stream<planes>(source, plane, stream_range(source, warp), memory.codes, to, memory.stages[warp],
                         threadIdx.x % kWarp);
}

// Writes what comes before the streams of a coded plane, and takes its codes into shared memory.
__device__ __forceinline__ void write_tree(const PlanePlan& plan, uint8_t* out, uint32_t* codes) {
#pragma unroll 1
    for (uint32_t symbol = threadIdx.x; symbol < 256; symbol += kThreads) codes[symbol] = plan.codes[symbol];
#pragma unroll 1
    for (uint32_t i = threadIdx.x; i < plan.tree_size; i += kThreads) out[i] = plan.tree[i];
    if (threadIdx.x < kJumpTableSize) {
        const uint32_t size = plan.stream_size[threadIdx.x / 2];
        out[plan.tree_size + threadIdx.x] = static_cast<uint8_t>(size >> (8 * (threadIdx.x % 2)));
    }
    __syncthreads();
}

}  // namespace
}  // namespace dumont

extern "C" {
__global__ void __launch_bounds__(dumont::kEncodeThreads, DUMONT_PLAN_CTAS) zipnn_plan(const dumont::EncodeJob* jobs);
__global__ void __launch_bounds__(dumont::kEncodeThreads, DUMONT_WRITE_CTAS) zipnn_write(const dumont::EncodeJob* jobs);
}

// grid: a CTA of 128 threads for each block; dynamic shared memory: kPlanMemory for each plane of the job that has most
extern "C" __global__ void zipnn_plan(const dumont::EncodeJob* jobs) {
    using namespace dumont;
    extern __shared__ __align__(16) uint8_t shared[];
    __shared__ bool hopeless[kMaxPlanes];
    uint32_t block = blockIdx.x;
    const EncodeJob job = find_job(jobs, block, [](const EncodeJob& each) { return each.blocks; });
    const BlockSource source = block_source(job, block);
    const uint32_t warp = threadIdx.x / kWarp;
    const uint32_t lane = threadIdx.x % kWarp;
    for (uint32_t plane = 0; plane < source.planes; ++plane) clear_counts(plan_memory(shared, plane));
    if (threadIdx.x < kMaxPlanes) hopeless[threadIdx.x] = false;
    __syncthreads();
    if (source.elements >= kSmallestSampled) {
        count_sample(source, shared, warp, lane);
        __syncthreads();
        if (warp < source.planes) {
            const bool noise = judge_sample(plan_memory(shared, warp), lane);
            if (lane == 0) hopeless[warp] = noise;
        }
        __syncthreads();
    }
    for (uint32_t plane = 0; plane < source.planes; ++plane) {
        if (!hopeless[plane]) count_plane(source, plane, shared, warp, lane);
    }
    __syncthreads();
    if (warp >= source.planes) return;
    PlanePlan* plans = reinterpret_cast<PlanePlan*>(static_cast<uintptr_t>(job.plans));
    plan_plane(plan_memory(shared, warp), source.elements, hopeless[warp], plans[warp * job.blocks + block], lane);
}

// grid: a CTA of 128 threads for each job. Writes the tables of the stream, and its size to `result`.
extern "C" __global__ void zipnn_layout(const dumont::EncodeJob* jobs, uint64_t* result) {
    using namespace dumont;
    constexpr uint32_t kRun = 4;  // blocks of a thread, which follow one another
    __shared__ uint64_t sums[kStreams];  // of each warp
    const EncodeJob job = jobs[blockIdx.x];
    PlanePlan* plans = reinterpret_cast<PlanePlan*>(static_cast<uintptr_t>(job.plans));
    uint8_t* out = reinterpret_cast<uint8_t*>(static_cast<uintptr_t>(job.out));
    const uint32_t entries = job.planes * job.blocks;
    const uint32_t warp = threadIdx.x / kWarp;
    const uint32_t lane = threadIdx.x % kWarp;
    uint64_t begin = kHeaderSize + uint64_t{kTableEntry} * entries;  // of the plane at hand
    for (uint32_t plane = 0; plane < job.planes; ++plane) {
        uint64_t before = 0;  // bytes of the plane's blocks so far
        for (uint32_t base = 0; base < job.blocks; base += kRun * kThreads) {
            const uint32_t first = base + kRun * threadIdx.x;
            uint32_t sizes[kRun], kinds[kRun];
            uint64_t run = 0;
#pragma unroll
            for (uint32_t i = 0; i < kRun; ++i) {
                const bool exists = first + i < job.blocks;
                const PlanePlan* plan = plans + plane * job.blocks + first + i;
                sizes[i] = exists ? plan->size : 0;
                kinds[i] = exists ? plan->kind : 0;
                run += sizes[i];
            }
            const uint64_t in_warp = warp_prefix_sum(run, lane);
            if (lane == kWarp - 1) sums[warp] = in_warp;
            __syncthreads();
            uint64_t end = before + in_warp - run;
            for (uint32_t i = 0; i < kStreams; ++i) {
                before += sums[i];
                if (i < warp) end += sums[i];
            }
            __syncthreads();
#pragma unroll
            for (uint32_t i = 0; i < kRun; ++i) {
                if (first + i >= job.blocks) continue;
                const uint32_t index = plane * job.blocks + first + i;
                plans[index].offset = begin + end;
                end += sizes[i];
                out[kHeaderSize + index] = kinds[i] == kRawPlane ? kRawBlock : kHuff0Block;
                store_u64(out + kHeaderSize + entries + 8ull * index, end);
            }
        }
        begin += before;
    }
    if (threadIdx.x == 0) result[blockIdx.x] = begin;
}

// grid: a CTA of 128 threads for each plane of each block; those of a block follow one another, so that L2 has its elements
extern "C" __global__ void zipnn_write(const dumont::EncodeJob* jobs) {
    using namespace dumont;
    __shared__ WriteMemory memory;
    uint32_t entry = blockIdx.x;
    const EncodeJob job = find_job(jobs, entry, [](const EncodeJob& each) { return each.blocks * each.planes; });
    const uint32_t plane = entry % job.planes;
    const uint32_t block = entry / job.planes;
    const BlockSource source = block_source(job, block);
    const PlanePlan* plans = reinterpret_cast<const PlanePlan*>(static_cast<uintptr_t>(job.plans));
    const PlanePlan& plan = plans[plane * job.blocks + block];
    uint8_t* out = reinterpret_cast<uint8_t*>(static_cast<uintptr_t>(job.out)) + plan.offset;
    if (plan.kind == kConstantPlane) {
        if (threadIdx.x == 0) out[0] = plan.constant;
        return;
    }
    if (plan.kind == kCodedPlane) write_tree(plan, out, memory.codes);
    if (source.planes == 1) write_plane<1>(source, plane, plan, out, memory);
    if (source.planes == 2) write_plane<2>(source, plane, plan, out, memory);
    if (source.planes == 4) write_plane<4>(source, plane, plan, out, memory);
}
