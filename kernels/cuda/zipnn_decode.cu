// Kernel: ZipNN blocks to elements. FORMAT.md, section 5.2; CPU reference: cpu/zipnn_decode.cpp, cpu/decode_huff0.cpp.
//
// A Huff0 stream has no marks: where a code begins is known only to who has decoded all codes before it. But Huffman
// codes synchronise themselves: a decoder that starts at a wrong bit reads a few wrong symbols, then meets the
// beginning of a code by chance, and is right from there on. So all 32 lanes of a warp decode one stream:
//
//   1. A round takes the next bits of the stream, and cuts them into 32 segments of equal length, one a lane. The warp
//      stages the bits in shared memory.
//   2. Each lane starts a little before its segment (the look-back), drops symbols until one crosses into the segment,
//      and takes all symbols that begin inside it, into a region of its own.
//   3. Lane 0 started right. Where a lane did not start at the very bit at which the lane before it ended, it decodes
//      again from that bit. When no lane differs, all are right, whatever the look-back was: its length is a matter of
//      speed only. A code that never synchronises is decoded lane after lane: one whose lengths are all alike, for
//      example, and do not divide a segment.
//   4. The regions are moved together, and the symbols joined with the other planes (zipnn_join.h).
//
// Work to threads
//   A CTA of four warps takes a block, a warp one of its four streams. All threads build the table of the code
//   (huff0_table.h), after one of the warps has read its description (huff0_tree.h): not the same warp in all CTAs,
//   because their first warps share a scheduler. After that there is no barrier: warps share the table only. A block
//   with several coded planes is decoded plane after plane; all but the last leave their symbols in the output, where
//   they are joined with the last. Blocks without a coded plane are joined only, a quarter by each warp. So one launch
//   decodes a chunk, whatever its blocks are.
//
// Numbers, and what makes them so
//   kDecodeMemory     Five CTAs, 20 warps, fit on an SM that has 228 KiB, of which each CTA costs one. That leaves 96
//                     registers a thread.
//   kLaneWords        What that memory leaves to a lane: the region of its symbols, and its share of the bits that are
//                     staged. The code's average length divides them: a region has room for a fifth more symbols
//                     than a segment has on average. A lane whose region is full stops, and the next begins there.
//   odd words         Regions and segments both are an odd number of words: lanes that go in step then meet different
//                     banks.
//   kMaxRegionWords   A lane holds its region in registers while regions are moved together.
//   kMinSegmentWords  Every segment but the last has at least four symbols, of 11 bits each, which moving together
//                     counts on.
//   A device must decide the others, so -D may set them: the words of a lane (DUMONT_DECODE_LANE_WORDS), of them the
//   most for symbols (DUMONT_DECODE_REGION_WORDS), the first look-back in bits (DUMONT_DECODE_LOOK_BACK), the CTAs
//   an SM that registers allow (DUMONT_DECODE_CTAS), and the shared memory of a CTA, if the words make it another
//   (DUMONT_DECODE_MEMORY; the launch must ask for as much).
//
// Bytes moved, bf16: 0.66 read, 1 written per raw byte; symbols pass through shared memory only.
//
// Bound: the latency of lookup after lookup, two between branches; see kernels/README.md.
//
// No input makes a kernel trap, hang, or touch memory outside the chunk's encoded bytes (and up to 16 bytes
// after them, which the host provides), its own output and its status word.
#include "zipnn_join.h"

#ifndef DUMONT_DECODE_LANE_WORDS
#define DUMONT_DECODE_LANE_WORDS 54
#endif
#ifndef DUMONT_DECODE_REGION_WORDS
#define DUMONT_DECODE_REGION_WORDS 41
#endif
#ifndef DUMONT_DECODE_LOOK_BACK
#define DUMONT_DECODE_LOOK_BACK 48
#endif
#ifndef DUMONT_DECODE_CTAS
#define DUMONT_DECODE_CTAS 5
#endif

namespace dumont::decode {

constexpr uint32_t kLaneWords = DUMONT_DECODE_LANE_WORDS;
constexpr uint32_t kMaxRegionWords = DUMONT_DECODE_REGION_WORDS;
constexpr uint32_t kMinSegmentWords = 3;
constexpr uint32_t kMaxSegmentWords = 21;  // reached by codes of 6 bits on average
static_assert(kMaxRegionWords % 2 == 1 && kMaxSegmentWords % 2 == 1 && kLaneWords % 2 == 0, "odd numbers of words");
static_assert(kLaneWords >= kMaxRegionWords + kMinSegmentWords && kLaneWords > kMaxSegmentWords + 4, "both have room");
constexpr uint32_t kWordBits = 32;
constexpr uint32_t kSpareWords = 2;  // of a region: what the turn of `advance` that fills it may store
constexpr uint32_t kChunkWords = 4;  // what a lane stages at a time
constexpr uint32_t kChunkBits = kWordBits * kChunkWords;
constexpr uint32_t kStageBatch = 3;  // chunks that a lane asks for before it waits: all of a round of bf16 exponents
constexpr uint32_t kMaxLookBack = 288;  // bits: more than that costs more than to decode again

// Memory of a warp: the tile, then the staged bits. The tile has the symbols that wait for a whole vector, then each
// lane's region; later all symbols, moved together. The stage has two chunks more than its segments, for those that lie
// across chunks, and one of which no bit counts: a lane at the very top loads a word of it.
struct alignas(16) WarpMemory {
    uint8_t tile[kVectorBytes + 4 * kWarp * kLaneWords + 3 * sizeof(uint4)];
};

struct alignas(16) BlockMemory {
    DeviceBlock block;  // here, because every round looks into it, and registers are rare
    TableMemory table;
    WarpMemory warp[kStreams];
};
static_assert(sizeof(BlockMemory) <= kDecodeMemory, "every launch asks for this much");
static_assert(2 * kCells <= sizeof(WarpMemory::tile), "the table is made from as many cells");

// ---------------------------------------------------------------------------------------------------------------
// One lane.

// Where a lane stores symbols.
struct Output {
    uint32_t word;     // shared address of the next word
    uint32_t full;     // the address at which to stop
    uint32_t pending;  // symbols that do not fill a word yet
};

// The state of a lane that decodes, in a word, so that one subtraction moves all of it on by an entry of the table:
//   bits 0-19   where the stream is read: the bit of shared memory above the next one
//   bits 29-30  how many symbols are pending
//   bit 31      changes when four are
constexpr uint32_t kPosition = (1u << 20) - 1;
constexpr uint32_t kPositionShift = 12;  // leaves nothing but the position

__device__ __forceinline__ bool is_below(uint32_t state, uint32_t limit) {
    return state << kPositionShift < limit << kPositionShift;
}

// Adds an entry's symbols to the pending ones; `after` is the state after them.
__device__ __forceinline__ void put(Output& out, uint32_t symbols, uint32_t state, uint32_t after) {
    const uint32_t shift = state >> (kCountAt - 3);  // the funnel shifts look at its low five bits only
    const uint32_t rest = __funnelshift_l(symbols, 0, shift);  // the symbols that do not fit the word
    out.pending |= __funnelshift_l(0, symbols, shift);
    if (static_cast<int32_t>(state ^ after) < 0) {
        store_shared(out.word, out.pending);
        out.pending = rest;
        out.word += 4;
    }
}

__device__ __forceinline__ uint2 look_up(uint32_t window, uint32_t entries) {
    return load_shared_pair(element_address(entries, window >> (32 - kWindow), sizeof(uint2)));
}

// Takes all symbols that begin above bit `limit`, or as many as the region holds; stores them or drops them. Two
// entries a turn, so that a branch is paid every other lookup: they take 22 bits at most, of 32 that are loaded.
template <bool kStore>
__device__ __forceinline__ void advance(uint32_t& state, uint32_t entries, const uint8_t* length, uint32_t limit,
                                        Output& out) {
    uint2 entry;
    uint2 second;
    uint32_t between;  // the state after `entry`
    for (;;) {
        const uint32_t address = state >> 3 & (kPosition >> 3 & ~3u);
        const uint32_t high = load_shared(address);
        const uint32_t low = load_shared(address - 4);
        const uint32_t window = __funnelshift_r(low, high, state);
        entry = look_up(window, entries);
        between = state - entry.y;
        second = look_up(window << (entry.y & 31), entries);
        const uint32_t after = between - second.y;
        if (is_below(after, limit) || (kStore && out.word >= out.full)) break;
        if (kStore) put(out, entry.x, state, between);
        if (kStore) put(out, second.x, between, after);
        state = after;
    }
    if (kStore && out.word >= out.full) return;
    if (!is_below(between, limit)) {
        if (kStore) put(out, entry.x, state, between);
        state = between;
        entry = second;
    }
    if ((state & kPosition) <= limit) return;
    // The entry crosses the limit: as many of its symbols as begin above. Bytes of it that are no symbols lie behind
    // the crossing.
    const uint32_t left = (state & kPosition) - limit;
    const uint32_t end1 = length[entry.x & 255];
    const uint32_t end2 = end1 + length[entry.x >> 8 & 255];
    const uint32_t end3 = end2 + length[entry.x >> 16 & 255];
    const uint32_t count = end3 < left ? 4 : end2 < left ? 3 : end1 < left ? 2 : 1;
    const uint32_t taken = end3 < left ? entry.y & 31 : end2 < left ? end3 : end1 < left ? end2 : end1;
    between = state - (kStore ? taken - (count << kCountAt) : taken);
    if (kStore) put(out, entry.x & (0xFFFFFFFFu >> (32 - 8 * count)), state, between);
    state = between;
}

// ---------------------------------------------------------------------------------------------------------------
// One warp: a round of a stream.

// A bit stream that is read backward.
struct BitStream {
    const uint4* chunks;  // where it starts, or up to 15 bytes before
    uint32_t position;    // of `chunks`: the bit above the next one
    uint32_t left;        // bits
    uint32_t symbols;     // that it must still have
    uint32_t look_back;   // bits
    uint32_t most;            // words of a segment, so that a region holds the symbols of nearly all
    uint32_t region_words;
};

// The largest odd number up to `value`, at least 1.
__device__ __forceinline__ uint32_t odd_below(uint32_t value) {
    return (max(value, 1u) - 1) | 1;
}

// Finds the stream of the warp in a Huff0 block; `tree`: bytes of the description. Returns a BlockStatus.
__device__ __forceinline__ uint32_t open_stream(const uint8_t* huff0, uint32_t tree, uint32_t bytes, uint32_t elements,
                                                uint32_t warp, BitStream& stream) {
    const uint32_t quarter = (elements + 3) / 4;
    if (tree > bytes) return kBadTree;
    if (bytes - tree < kJumpTableSize + kStreams) return kBadJumpTable;
    if (elements > kMaxHuff0Symbols || 3 * quarter > elements) return kBadJumpTable;
    uint32_t begin = tree + kJumpTableSize;
    uint32_t rest = bytes - begin;
    uint32_t size = 0;
    bool fits = true;
#pragma unroll
    for (uint32_t i = 0; i < kStreams; ++i) {
        if (i > warp) break;
        begin += size;
        rest -= size;
        size = i < kStreams - 1 ? load_u16(huff0 + tree + 2 * i) : rest;
        fits = fits && size <= rest;
        size = min(size, rest);
    }
    BackwardBits bits;
    if (!fits) return kBadJumpTable;
    if (!open_backward_bits(huff0 + begin, size, bits)) return kBadStream;
    const uint32_t misplaced = static_cast<uint32_t>(reinterpret_cast<uintptr_t>(bits.data) % sizeof(uint4));
    stream.chunks = reinterpret_cast<const uint4*>(bits.data - misplaced);
    stream.left = static_cast<uint32_t>(bits.left);
    stream.position = stream.left + 8 * misplaced;
    stream.symbols = warp < kStreams - 1 ? quarter : elements - 3 * quarter;
    // The words of a segment are to those of its symbols' region as bits / 32 are to 6/5 symbols / 4. A block has 2^20
    // bits at most.
    const uint32_t share = 5 * stream.left;
    const uint32_t region_share = 48 * stream.symbols + 1;
    const uint32_t for_bits = odd_below(share * kLaneWords / (share + region_share));
    stream.region_words = min(kMaxRegionWords, kLaneWords - max(kMinSegmentWords, min(kMaxSegmentWords, for_bits)));
    const uint32_t wanted = odd_below(share * stream.region_words / region_share);
    stream.most = max(kMinSegmentWords, min(wanted, min(kMaxSegmentWords, kLaneWords - stream.region_words)));
    // Longer codes take longer to synchronise. How long was measured on codes of weights; the next rounds learn what
    // this code needs.
    const uint32_t longer = stream.left < 3 * stream.symbols ? 0 : stream.left < 6 * stream.symbols ? 1 : 2;
    stream.look_back = min(uint32_t{DUMONT_DECODE_LOOK_BACK} << longer, kMaxLookBack);
    return kBlockGood;
}

// Stages chunks `bottom` to `bottom` + `need`. What a damaged stream finds before its chunk does not matter: nothing is
// read there.
__device__ __forceinline__ void stage_bits(uint4* stage, const uint4* chunks, int32_t bottom, uint32_t need,
                                           uint32_t lane) {
#pragma unroll 1
    for (uint32_t from = lane; from < need; from += kStageBatch * kWarp) {
        uint4 staged[kStageBatch];
#pragma unroll
        for (uint32_t i = 0; i < kStageBatch; ++i) {
            const uint32_t chunk = from + i * kWarp;
            if (chunk < need) staged[i] = __ldg(chunks + max(bottom + static_cast<int32_t>(chunk), 0));
        }
#pragma unroll
        for (uint32_t i = 0; i < kStageBatch; ++i) {
            const uint32_t chunk = from + i * kWarp;
            if (chunk < need) stage[chunk] = staged[i];
        }
    }
    __syncwarp();
}

// Moves the lanes' symbols together, behind the `carry` bytes at the tile's start. `before`: symbols of the lanes
// before; `count`: of this lane.
__device__ __forceinline__ void close_regions(uint8_t* tile, const uint32_t* region, uint32_t lane, uint32_t carry,
                                              uint32_t before, uint32_t count) {
    __syncwarp();
    uint32_t word[kMaxRegionWords];  // so many in any case; those after the lane's own region are moved nowhere
#pragma unroll
    for (uint32_t i = 0; i < kMaxRegionWords; ++i) word[i] = region[i];
    // A lane's first word begins with the last symbols of the lane before, which has four at least: only the last with
    // any may have fewer.
    const uint32_t last = count >= 4 ? __funnelshift_r(region[count / 4 - 1], region[count / 4], 8 * (count & 3)) : 0;
    uint32_t previous = __shfl_up_sync(kAllLanes, last, 1);
    if (lane == 0) previous = *reinterpret_cast<const uint32_t*>(tile + (carry & ~3u)) << (32 - 8 * (carry & 3)) % 32;
    const bool is_last = __ballot_sync(kAllLanes, count > 0) >> lane == 1;
    const uint32_t target = carry + before;
    const uint32_t stores = count == 0 ? 0 : ((target & 3) + count) / 4 + is_last;
    uint32_t* to = reinterpret_cast<uint32_t*>(tile) + target / 4;
    __syncwarp();
#pragma unroll
    for (uint32_t i = 0; i <= kMaxRegionWords; ++i) {
        const uint32_t low = i == 0 ? previous : word[i == 0 ? 0 : i - 1];
        const uint32_t high = i == kMaxRegionWords ? 0 : word[i == kMaxRegionWords ? 0 : i];
        if (i < stores) to[i] = __funnelshift_l(low, high, 8 * target);
    }
    __syncwarp();
}

// Decodes the next round of the stream, which has bits and symbols left, into the tile, behind `carry` bytes. Returns
// how many symbols; 0 if the stream is damaged.
__device__ __forceinline__ uint32_t decode_round(WarpMemory& warp, const TableMemory& table, BitStream& stream,
                                                 uint32_t carry, uint32_t lane) {
    constexpr uint32_t kRoundBits = kWarp * kWordBits;  // with segments of one word
    const uint32_t rounds = (stream.left + kRoundBits * stream.most - 1) / (kRoundBits * stream.most);
    const uint32_t words = (stream.left + kRoundBits * rounds - 1) / (kRoundBits * rounds);
    const uint32_t segment = kWordBits * max(kMinSegmentWords, words | 1);
    const uint32_t need = kWarp * segment / kChunkBits + 2;
    const int32_t bottom = static_cast<int32_t>((stream.position - 1) / kChunkBits) + 1 - static_cast<int32_t>(need);
    uint4* stage = reinterpret_cast<uint4*>(warp.tile + kVectorBytes + 4 * kWarp * stream.region_words);
    stage_bits(stage, stream.chunks, bottom, need, lane);

    const uint32_t entries = shared_address(table.entry);
    const uint32_t top = 8 * shared_address(stage) + stream.position - kChunkBits * static_cast<uint32_t>(bottom);
    const uint32_t ahead = lane * segment;  // bits of the lanes before
    const uint32_t limit = top - min(ahead + segment, stream.left);
    const uint32_t* regions = reinterpret_cast<const uint32_t*>(warp.tile + kVectorBytes);
    const uint32_t* own_region = regions + lane * stream.region_words;
    const uint32_t region = shared_address(own_region);
    const bool active = ahead < stream.left;
    uint32_t state = top - ahead + min(ahead, stream.look_back);
    Output out = {};
    if (active) advance<false>(state, entries, table.named_length, top - ahead, out);

    uint32_t start = state & kPosition;
    uint32_t stop = limit;
    uint32_t count = 0;
    bool wrong = active;
    for (;;) {  // at each turn one more lane at least is right
        if (wrong) {
            state = start;
            out = {region, region + 4 * (stream.region_words - kSpareWords), 0};
            advance<true>(state, entries, table.named_length, limit, out);
            store_shared(out.word, out.pending);
            stop = state & kPosition;
            count = out.word - region + (state >> kCountAt & 3);
        }
        const uint32_t expected = __shfl_up_sync(kAllLanes, stop, 1);
        wrong = lane > 0 && active && expected != start;
        if (!__any_sync(kAllLanes, wrong)) break;
        if (wrong) start = expected;
        stream.look_back = min(2 * stream.look_back, kMaxLookBack);
    }
    const uint32_t last_active = min(kWarp - 1, (stream.left - 1) / segment);
    const uint32_t consumed = top - __shfl_sync(kAllLanes, stop, static_cast<int>(last_active));
    uint32_t before = count;
#pragma unroll
    for (uint32_t step = 1; step < kWarp; step *= 2) {
        const uint32_t other = __shfl_up_sync(kAllLanes, before, step);
        if (lane >= step) before += other;
    }
    const uint32_t total = __shfl_sync(kAllLanes, before, kWarp - 1);
    if (total > stream.symbols || consumed > stream.left) return 0;
    close_regions(warp.tile, own_region, lane, carry, before - count, count);
    stream.symbols -= total;
    stream.left -= consumed;
    stream.position -= consumed;
    return total;
}

// Decodes a stream, and joins its symbols or leaves them for the join of a later plane. Returns whether the stream is
// good: it ends with its last symbol.
__device__ __forceinline__ bool decode_stream(WarpMemory& warp, const TableMemory& table, BitStream& stream,
                                              Join& join, bool is_last, uint32_t first, uint32_t lane) {
    uint32_t carry = 0;
    if (is_last) {
        carry = begin_stretch(join, first);
    } else {
        join.element = static_cast<int32_t>(first);
    }
    while (stream.left > 0 && stream.symbols > 0) {
        if (is_last) prefetch_raw(join, lane);
        const uint32_t symbols = decode_round(warp, table, stream, carry, lane);
        if (symbols == 0) return false;
        if (is_last) {
            carry += symbols;
            const uint32_t done = join_elements(join, carry, stream.symbols == 0, lane);
            carry -= done;
            keep_rest(warp.tile, done, carry, lane);
        } else {
            leave_plane(join, symbols, lane);
        }
    }
    return stream.left == 0 && stream.symbols == 0;
}

}  // namespace dumont::decode

//   grid: a CTA for each of `blocks`; block: kDecodeThreads; dynamic shared memory: kDecodeMemory
//   status: a BlockStatus for each of `blocks`, 0 before
extern "C" __global__ void __launch_bounds__(dumont::kDecodeThreads, DUMONT_DECODE_CTAS) zipnn_decode(
    const uint8_t* source, uint8_t* output, const dumont::DeviceBlock* blocks, uint32_t* status) {
    using namespace dumont;
    using namespace dumont::decode;
    extern __shared__ __align__(16) uint8_t shared[];
    BlockMemory& memory = *reinterpret_cast<BlockMemory*>(shared);
    const uint32_t index = threadIdx.x / kWarp;
    const uint32_t lane = threadIdx.x % kWarp;
    WarpMemory& warp = memory.warp[index];
    if (threadIdx.x < sizeof(DeviceBlock) / sizeof(uint32_t)) {
        const uint32_t* words = reinterpret_cast<const uint32_t*>(blocks + blockIdx.x);
        reinterpret_cast<uint32_t*>(&memory.block)[threadIdx.x] = words[threadIdx.x];
    }
    __syncthreads();

    const DeviceBlock& block = memory.block;
    const uint32_t elements = block.size / block.planes;
    const uint32_t quarter = (elements + kStreams - 1) / kStreams;
    const uint32_t first = min(index * quarter, elements);
    Join join = {&block, source, output, warp.tile, kNoPlane, 0, 0};
    if (block.coded == 0) {
        const uint32_t count = begin_stretch(join, first) + min(quarter, elements - first);
        join_elements(join, count, true, lane);
        return;
    }
    bool good = true;
    for (uint32_t coded = block.coded; coded != 0; coded &= coded - 1) {
        join.plane = static_cast<uint32_t>(__ffs(static_cast<int>(coded))) - 1;
        const uint8_t* huff0 = plane_bytes(join, join.plane);
        const uint32_t tree = tree_size(huff0[0]);
        BitStream stream = {};
        uint32_t found = good ? open_stream(huff0, tree, block.bytes[join.plane], elements, index, stream) : kBadStream;
        __syncthreads();  // no warp needs the table of the plane before
        if (tree <= block.bytes[join.plane] && index == blockIdx.x * 0x9E3779B1u >> 30) {
            found = max(found, read_tree(huff0, tree, memory.table.tree, memory.table.length, lane));
        }
        if (__syncthreads_or(found != kBlockGood)) {
            if (found != kBlockGood && lane == 0) atomicMax(&status[blockIdx.x], found);
            return;
        }
        build_table(memory.table, reinterpret_cast<uint16_t*>(memory.warp[0].tile), is_rotated(join));
        good = decode_stream(warp, memory.table, stream, join, (coded & (coded - 1)) == 0, first, lane);
    }
    if (!good && lane == 0) atomicMax(&status[blockIdx.x], static_cast<uint32_t>(kBadStream));
}
