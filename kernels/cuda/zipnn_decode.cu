// Kernels: ZipNN blocks to elements. FORMAT.md, section 5.2; CPU reference: cpu/zipnn_decode.cpp and cpu/decode_huff0.cpp.
//
// Work to threads
//   A CTA takes one block: 128 KiB of raw bytes in our own streams, 256 KiB in zipnn's. It has a warp for
//   each Huff0-coded plane: one for bf16 weights, whose mantissas are raw. In each warp, lanes 0 to 3 decode the
//   block's four bit streams, 1024 symbols each, into a tile in shared memory; then all threads of the CTA join that tile
//   with the other planes and store 16 bytes each, coalesced. Blocks without a coded plane go to `zipnn_join`.
//
// Table
//   11 bits select an 8-byte entry: up to four symbols, their bits, their number. The table takes 16 KiB of shared memory for
//   a coded plane. With the tile and the 1 KiB that a device reserves for each CTA, 10 CTAs fit on an SM that has 228 KiB. The
//   whole warp builds the table.
//
// Bytes moved, bf16: 0.66 read, 1 written per raw byte; the symbols pass through shared memory only.
//
// Bound: the latency of lookup after lookup (shared memory, shift, add) in 4 lanes a warp; see kernels/README.md.
//
// No input makes a kernel trap, hang, or touch memory outside the chunk's encoded bytes (and up to 16 bytes
// after them, which the host provides), its own output and its status word.
#include "device.h"
#include "zipnn_blocks.h"

namespace dumont {
namespace {

constexpr uint32_t kWindow = 11;  // bits that select a table entry: the longest code that packers write
constexpr uint32_t kCells = 1u << kWindow;
constexpr uint32_t kSymbolsPerEntry = 4;
constexpr uint32_t kTile = 1024;  // symbols of each stream between two joins
constexpr uint32_t kTileStride = kTile + 16;  // the four streams' words fall into different banks
constexpr int32_t kPrefetchRounds = 2;        // of 256 bytes of each stream: more than a tile of exponents takes
constexpr uint32_t kVector = 16;              // bytes that a thread stores at a time

// Shared memory of a coded plane. The unions hold the input of the table first, and other data later.
struct alignas(16) PlaneMemory {
    union {
        // x: up to four symbols, the first in the lowest byte; y: bits of all | 8 * their number << 16 | bits of the first << 24
        uint2 table[kCells];
        struct {
            HuffmanTree tree;
            ParseWorkspace parse;
            uint8_t order[256];  // symbols in the order of their cells: longest codes first, then by value
        } plan;
    };
    union {
        uint8_t tile[kStreams * kTileStride];
        uint16_t cells[kCells];  // symbol | code length << 8 of the first code in a window
    };
    BlockStreams streams;
    uint32_t status;
};
static_assert(sizeof(PlaneMemory) == kPlaneMemory, "every launch asks for this much for each coded plane");

// ---------------------------------------------------------------------------------------------------------------
// The decode table. Called by whole warps.

// Sorts the symbols into plan.order and fills `cells`: the symbols of one length own a run of cells.
__device__ void fill_cells(PlaneMemory& memory, uint32_t lane) {
    uint32_t length[256 / kWarp];
#pragma unroll
    for (uint32_t group = 0; group < 256 / kWarp; ++group) length[group] = memory.plan.tree.length[group * kWarp + lane];
    uint32_t first_symbol = 0;
    uint32_t first_cell = 0;
    for (uint32_t bits = memory.plan.tree.table_log; bits > 0; --bits) {
        uint32_t symbols = first_symbol;
#pragma unroll
        for (uint32_t group = 0; group < 256 / kWarp; ++group) {
            const bool mine = length[group] == bits;
            const uint32_t owners = __ballot_sync(kAllLanes, mine);
            const uint32_t before = __popc(owners & ((1u << lane) - 1));
            if (mine) memory.plan.order[symbols + before] = static_cast<uint8_t>(group * kWarp + lane);
            symbols += __popc(owners);
        }
        __syncwarp();
        const uint32_t each = kWindow - bits;  // log2 of the cells of one symbol
        const uint32_t end = first_cell + ((symbols - first_symbol) << each);
        for (uint32_t cell = first_cell + lane; cell < end; cell += kWarp) {
            const uint32_t symbol = memory.plan.order[first_symbol + ((cell - first_cell) >> each)];
            memory.cells[cell] = static_cast<uint16_t>(symbol | bits << 8);
        }
        first_symbol = symbols;
        first_cell = end;
    }
    __syncwarp();
}

// An entry holds every symbol that lies wholly inside its window, up to four.
__device__ void fill_table(PlaneMemory& memory, uint32_t lane) {
    for (uint32_t window = lane; window < kCells; window += kWarp) {
        uint32_t cell = memory.cells[window];
        const uint32_t first_bits = cell >> 8;
        uint32_t symbols = 0;
        uint32_t bits = 0;
        uint32_t shift = 0;
        while (shift < 8 * kSymbolsPerEntry && bits + (cell >> 8) <= kWindow) {
            symbols |= (cell & 255) << shift;
            bits += cell >> 8;
            shift += 8;
            cell = memory.cells[window << bits & (kCells - 1)];
        }
        memory.table[window] = make_uint2(symbols, bits | shift << 16 | first_bits << 24);
    }
    __syncwarp();
}

// Reads tree and jump table of the Huff0 block, and builds the decode table. Returns a BlockStatus, the same in each lane.
__device__ uint32_t open_block(const uint8_t* huff0, uint32_t size, uint32_t symbols, PlaneMemory& memory,
                               uint32_t lane) {
    if (lane == 0) {
        HuffmanTree& tree = memory.plan.tree;
        memory.status = kBlockGood;
        if (symbols > kMaxHuff0Symbols || !parse_tree(huff0, size, tree, memory.plan.parse)) {
            memory.status = kBadTree;
        } else if (!parse_streams(huff0 + tree.size, size - tree.size, symbols, memory.streams)) {
            memory.status = kBadJumpTable;
        } else if (tree.table_log > kWindow) {
            memory.status = kLongCodes;
        }
    }
    __syncwarp();
    const uint32_t status = memory.status;
    if (status == kBlockGood) {
        fill_cells(memory, lane);
        fill_table(memory, lane);
    }
    return status;
}

// ---------------------------------------------------------------------------------------------------------------
// One bit stream, read backward by one lane.

struct StreamReader {
    const uint32_t* words;  // the chunk's encoded bytes
    int32_t word;           // index of `high`
    uint32_t high, low, next;
    uint32_t state;    // bits 0-4: bits of `high` already consumed; bits 16-20: bits of `pending`; the others mean nothing
    uint32_t pending;  // decoded symbols that do not fill a word yet
    int64_t start;     // bit position in the chunk where the stream must end
};

// One addition of an entry's sizes counts both consumed and pending bits; these flags are set when a count reaches 32.
constexpr uint32_t kWordConsumed = 1u << 5;
constexpr uint32_t kWordPending = 1u << 21;

// Nothing before the chunk is read: a damaged stream sees its first word again.
__device__ __forceinline__ uint32_t word_at(const StreamReader& reader, int32_t index) {
    return __ldg(reader.words + max(index, 0));
}

// Moves on by a word if `state` says that a word is consumed. `next` is loaded every time: all lanes would wait at once for a
// load that only some lanes need, but this load has time until the next lookup.
__device__ __forceinline__ void refill(StreamReader& reader, uint32_t state) {
    const bool consumed = (state & kWordConsumed) != 0;
    reader.state = state & ~(kWordConsumed | kWordPending);
    reader.high = consumed ? reader.low : reader.high;
    reader.low = consumed ? reader.next : reader.low;
    reader.word -= consumed;
    reader.next = word_at(reader, reader.word - 2);
}

// Returns false if the stream has no end mark.
__device__ bool open_stream(const uint8_t* encoded, const uint8_t* data, uint32_t size, StreamReader& reader) {
    BackwardBits bits;
    if (!open_backward_bits(data, size, bits)) return false;
    reader.start = 8 * (data - encoded);
    const int64_t end = reader.start + bits.left;
    reader.word = static_cast<int32_t>(end >> 5);
    reader.high = word_at(reader, reader.word);
    reader.low = word_at(reader, reader.word - 1);
    reader.next = word_at(reader, reader.word - 2);
    reader.pending = 0;
    refill(reader, 32 - static_cast<uint32_t>(end & 31));
    return true;
}

__device__ __forceinline__ bool ended_well(const StreamReader& reader) {
    return 32 * (static_cast<int64_t>(reader.word) + 1) - (reader.state & 31) == reader.start;
}

__device__ __forceinline__ uint2 look_up(const StreamReader& reader, const uint2* table) {
    return table[__funnelshift_l(reader.low, reader.high, reader.state) >> (32 - kWindow)];
}

// Takes 1 to 4 symbols out of the stream; a full word of symbols becomes word `next` of the tile.
__device__ __forceinline__ void take(StreamReader& reader, uint32_t symbols, uint32_t sizes, uint32_t* tile,
                                     uint32_t& next) {
    const uint32_t shift = reader.state >> 16;  // the funnel shifts look at its low five bits only
    const uint32_t rest = __funnelshift_l(symbols, 0, shift);  // the symbols that do not fit the word
    const uint32_t state = reader.state + sizes;
    reader.pending |= __funnelshift_l(0, symbols, shift);
    if (state & kWordPending) {
        tile[next++] = reader.pending;
        reader.pending = rest;
    }
    refill(reader, state);
}

// Decodes the next `symbols` symbols of the stream into `tile`: a multiple of 4, or all that are left. `after` symbols follow in
// the stream; up to three of them may be decoded already, and wait in `pending`.
__device__ __forceinline__ void decode_tile(StreamReader& reader, const uint2* table, uint32_t symbols, uint32_t after,
                                            uint32_t* tile) {
    // Before the last word, four more symbols never pass the end of the stream.
    const uint32_t words = symbols / 4;
    const uint32_t fast_words = after < kSymbolsPerEntry && words > 0 ? words - 1 : words;
    uint32_t next = 0;
    while (next < fast_words) {
        const uint2 entry = look_up(reader, table);
        take(reader, entry.x, entry.y, tile, next);
    }
    const uint32_t done = 4 * next + (reader.state >> 19 & 3);
    for (uint32_t i = done; i < symbols; ++i) {  // singly: an entry may hold more than the last symbol
        const uint2 entry = look_up(reader, table);
        take(reader, entry.x & 255, entry.y >> 24 | 8 << 16, tile, next);
    }
    if (symbols % 4 != 0) tile[words] = reader.pending;
}

// Prefetches what the next tile may take of the warp's four streams: each lane takes 32 bytes of one stream.
__device__ __forceinline__ void prefetch_streams(const StreamReader& reader, uint32_t lane) {
    const int32_t word = __shfl_sync(kAllLanes, reader.word, static_cast<int>(lane % kStreams));
    const uint8_t* encoded = reinterpret_cast<const uint8_t*>(reader.words);
#pragma unroll
    for (int32_t round = 0; round < kPrefetchRounds; ++round) {
        const int32_t sector = static_cast<int32_t>(lane / kStreams) + round * static_cast<int32_t>(kWarp / kStreams);
        prefetch_near(encoded + 4 * static_cast<int64_t>(max(word - 8 * (sector + 1), 0)));
    }
}

// Prefetches the bytes of raw planes that a tile will be joined with: 128 bytes a lane, 1024 in each stream.
__device__ __forceinline__ void prefetch_raw(const uint8_t* bytes, uint32_t segment, uint32_t begin, uint32_t elements,
                                             uint32_t lane) {
    const uint32_t element = lane / 8 * segment + begin + lane % 8 * 128;
    if (element < elements) prefetch_far(bytes + element);
}

// ---------------------------------------------------------------------------------------------------------------
// Joining planes.

// One plane of a block: where its bytes come from.
struct PlaneSource {
    const uint8_t* bytes;  // in the encoded bytes, or null
    const uint8_t* tile;   // decoded symbols of the element range at hand, or null
    uint32_t repeated;     // four times the byte of a constant plane
};

// Bytes [element, element + 4) of the plane; `in_tile` is where `element` lies in the tile, a multiple of 4.
__device__ __forceinline__ uint32_t four_bytes(const PlaneSource& plane, uint32_t element, uint32_t in_tile) {
    if (plane.tile != nullptr) return *reinterpret_cast<const uint32_t*>(plane.tile + in_tile);
    if (plane.bytes != nullptr) return load_unaligned(plane.bytes + element);
    return plane.repeated;
}

__device__ __forceinline__ uint32_t one_byte(const PlaneSource& plane, uint32_t element, uint32_t in_tile) {
    if (plane.tile != nullptr) return plane.tile[in_tile];
    if (plane.bytes != nullptr) return plane.bytes[element];
    return plane.repeated & 255;
}

__device__ __forceinline__ uint32_t restore_sign_pair(uint32_t u) {  // restore_sign16 of both halves
    return (u & 0xFF00FF00) >> 1 | (u & 0x00800080) << 8 | (u & 0x007F007F);
}

// Joins the 16 bytes of output that start at `element`.
__device__ __forceinline__ uint4 join_vector(const PlaneSource* planes, uint32_t count, bool moves_sign,
                                             uint32_t element, uint32_t in_tile) {
    uint4 out;
    if (count == 1) {
        out.x = four_bytes(planes[0], element, in_tile);
        out.y = four_bytes(planes[0], element + 4, in_tile + 4);
        out.z = four_bytes(planes[0], element + 8, in_tile + 8);
        out.w = four_bytes(planes[0], element + 12, in_tile + 12);
    } else if (count == 2) {
        const uint32_t low0 = four_bytes(planes[0], element, in_tile);
        const uint32_t low1 = four_bytes(planes[0], element + 4, in_tile + 4);
        const uint32_t high0 = four_bytes(planes[1], element, in_tile);
        const uint32_t high1 = four_bytes(planes[1], element + 4, in_tile + 4);
        out.x = __byte_perm(low0, high0, 0x5140);
        out.y = __byte_perm(low0, high0, 0x7362);
        out.z = __byte_perm(low1, high1, 0x5140);
        out.w = __byte_perm(low1, high1, 0x7362);
        if (moves_sign) {
            out.x = restore_sign_pair(out.x);
            out.y = restore_sign_pair(out.y);
            out.z = restore_sign_pair(out.z);
            out.w = restore_sign_pair(out.w);
        }
    } else {
        const uint32_t byte0 = four_bytes(planes[0], element, in_tile);
        const uint32_t byte1 = four_bytes(planes[1], element, in_tile);
        const uint32_t byte2 = four_bytes(planes[2], element, in_tile);
        const uint32_t byte3 = four_bytes(planes[3], element, in_tile);
        const uint32_t low01 = __byte_perm(byte0, byte1, 0x5140);  // of elements 0 and 1
        const uint32_t low23 = __byte_perm(byte0, byte1, 0x7362);
        const uint32_t high01 = __byte_perm(byte2, byte3, 0x5140);
        const uint32_t high23 = __byte_perm(byte2, byte3, 0x7362);
        out.x = __byte_perm(low01, high01, 0x5410);
        out.y = __byte_perm(low01, high01, 0x7632);
        out.z = __byte_perm(low23, high23, 0x5410);
        out.w = __byte_perm(low23, high23, 0x7632);
        if (moves_sign) {
            out.x = restore_sign32(out.x);
            out.y = restore_sign32(out.y);
            out.z = restore_sign32(out.z);
            out.w = restore_sign32(out.w);
        }
    }
    return out;
}

// `moved`: elements below it have had their sign moved.
__device__ void join_element(const PlaneSource* planes, uint32_t count, uint32_t moved, uint32_t element,
                             uint32_t in_tile, uint8_t* out) {
    uint32_t value = 0;
#pragma unroll
    for (uint32_t plane = 0; plane < kMaxPlanes; ++plane) {  // known indices: the planes stay in registers
        if (plane < count) value |= one_byte(planes[plane], element, in_tile) << (8 * plane);
    }
    if (element < moved) value = count == 2 ? restore_sign16(static_cast<uint16_t>(value)) : restore_sign32(value);
    for (uint32_t byte = 0; byte < count; ++byte) out[byte] = static_cast<uint8_t>(value >> (8 * byte));
}

// Joins elements [first, end) of a block with all threads of the CTA; `tile` is where element `first` lies in a tile.
__device__ __forceinline__ void join_range(const PlaneSource* planes, const DeviceBlock& block, uint8_t* out,
                                           uint32_t first, uint32_t end, uint32_t tile) {
    const uint32_t count = block.planes;
    const uint32_t moved = block.moves_sign ? block.size / 4 * 4 / count : 0;
    const uint32_t each = kVector / count;  // elements that a thread takes
    const bool aligned = (reinterpret_cast<uintptr_t>(out) + first * count) % kVector == 0;
    const uint32_t alike = block.moves_sign ? max(first, min(end, moved)) : end;  // all moved, or none
    const uint32_t vectors = aligned ? (alike - first) / each : 0;
#pragma unroll 4
    for (uint32_t vector = threadIdx.x; vector < vectors; vector += blockDim.x) {
        const uint32_t element = first + vector * each;
        const uint4 joined = join_vector(planes, count, block.moves_sign, element, tile + vector * each);
        __stcs(reinterpret_cast<uint4*>(out + element * count), joined);  // not read again by this kernel
    }
    for (uint32_t element = first + vectors * each + threadIdx.x; element < end; element += blockDim.x) {
        join_element(planes, count, moved, element, tile + element - first, out + element * count);
    }
}

__device__ __forceinline__ PlaneSource plane_source(const DeviceBlock& block, uint32_t plane, const uint8_t* encoded,
                                                    const uint8_t* tile) {
    if (plane >= block.planes) return {nullptr, nullptr, 0};
    const uint8_t* bytes = encoded + block.begin[plane];
    if (block.coded >> plane & 1) return {nullptr, tile, 0};
    if (block.constant >> plane & 1) return {nullptr, nullptr, bytes[0] * 0x01010101u};
    return {bytes, nullptr, 0};
}

// The plane that the warp decodes: coded plane number `warp`.
__device__ __forceinline__ uint32_t coded_plane(const DeviceBlock& block, uint32_t warp) {
    uint32_t plane = 0;
    for (uint32_t before = warp;; ++plane) {
        if (!(block.coded >> plane & 1)) continue;
        if (before-- == 0) return plane;
    }
}

}  // namespace
}  // namespace dumont

// Blocks with coded planes.
//   grid: a CTA for each of `blocks`, all with the same number of coded planes
//   block: 32 threads for each coded plane
//   dynamic shared memory: sizeof(PlaneMemory) for each coded plane
extern "C" __global__ void zipnn_decode(const uint8_t* source, uint8_t* output, const dumont::DeviceBlock* blocks,
                                        uint32_t* status) {
    using namespace dumont;
    DUMONT_DYNAMIC_SHARED(shared);
    const DeviceBlock& block = blocks[blockIdx.x];
    const uint8_t* encoded = source + block.encoded;
    uint8_t* out = output + block.out;
    const uint32_t warp = threadIdx.x / kWarp;
    const uint32_t lane = threadIdx.x % kWarp;
    PlaneMemory* memories = reinterpret_cast<PlaneMemory*>(shared);
    PlaneMemory& memory = memories[warp];
    const uint32_t elements = block.size / block.planes;

    const uint32_t mine = coded_plane(block, warp);
    uint32_t found = open_block(encoded + block.begin[mine], block.bytes[mine], elements, memory, lane);
    StreamReader reader = {};  // of lanes 0 to 3
    reader.words = reinterpret_cast<const uint32_t*>(encoded);
    if (found == kBlockGood && lane < kStreams &&
        !open_stream(encoded, memory.streams.data[lane], memory.streams.size[lane], reader)) {
        found = kBadStream;
    }
    if (__syncthreads_or(found != kBlockGood)) {
        if (found != kBlockGood) atomicMax(&status[blockIdx.x], found);
        return;
    }

    PlaneSource planes[kMaxPlanes];
    uint32_t coded = 0;
#pragma unroll
    for (uint32_t plane = 0; plane < kMaxPlanes; ++plane) {
        planes[plane] = plane_source(block, plane, encoded, memories[coded].tile);
        coded += block.coded >> plane & 1;
    }
    const uint32_t segment = (elements + kStreams - 1) / kStreams;
    for (uint32_t begin = 0; begin < segment; begin += kTile) {
        for (uint32_t plane = 0; warp == 0 && plane < block.planes; ++plane) {
            const bool raw = !((block.coded | block.constant) >> plane & 1);
            if (raw) prefetch_raw(encoded + block.begin[plane], segment, begin, elements, lane);
        }
        prefetch_streams(reader, lane);
        if (lane < kStreams) {
            const uint32_t left = memory.streams.symbols[lane] - min(begin, memory.streams.symbols[lane]);
            const uint32_t count = min(left, kTile);
            decode_tile(reader, memory.table, count, left - count,
                        reinterpret_cast<uint32_t*>(memory.tile + lane * kTileStride));
        }
        __syncthreads();
        for (uint32_t stream = 0; stream < kStreams; ++stream) {
            const uint32_t first = min(stream * segment + begin, elements);
            const uint32_t end = min(min(first + kTile, (stream + 1) * segment), elements);
            join_range(planes, block, out, first, end, stream * kTileStride);
        }
        __syncthreads();
    }
    if (lane < kStreams && !ended_well(reader)) atomicMax(&status[blockIdx.x], static_cast<uint32_t>(kBadStream));
}

// Blocks without a coded plane: a join only.
//   grid: a CTA for each of `blocks`; block: any number of threads
extern "C" __global__ void zipnn_join(const uint8_t* source, uint8_t* output, const dumont::DeviceBlock* blocks) {
    using namespace dumont;
    const DeviceBlock& block = blocks[blockIdx.x];
    PlaneSource planes[kMaxPlanes];
#pragma unroll
    for (uint32_t plane = 0; plane < kMaxPlanes; ++plane) {
        planes[plane] = plane_source(block, plane, source + block.encoded, nullptr);
    }
    join_range(planes, block, output + block.out, 0, block.size / block.planes, 0);
}
