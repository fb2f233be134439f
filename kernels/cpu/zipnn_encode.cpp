// Encodes ZipNN streams block by block: takes a block's planes apart, and encodes each while it is in cache.
//
// In a stream, planes follow one another. Each plane is written where it would begin if all planes before it stayed raw,
// which for weights is its final position; a plane that lies too far up is moved down at the end.
#include <stdlib.h>
#include <string.h>

#include "../shared/tree_description.h"
#include "../shared/zipnn.h"
#include "dumont_cpu.h"
#include "kernels.h"
#include "plane_stats.h"

namespace dumont {
namespace {

constexpr uint32_t kMinBlockLog2 = 10;
constexpr uint32_t kMaxBlockLog2 = 17;
constexpr size_t kMaxBlockSize = size_t{1} << kMaxBlockLog2;

// One allocation per call; nothing is allocated per block.
struct Workspace {
    uint8_t planes[kMaxBlockSize];  // of one block, one after the other
    uint16_t pairs[kPairTableEntries];
    uint8_t streams[kStreams * stream_room(kMaxBlockSize / kStreams)];
};

// Where a plane's encoded bytes go. A write that does not fit is not made, and sets `full`.
struct Output {
    uint8_t* begin;
    uint8_t* next;
    uint8_t* end;
    bool full;
};

void write(Output& out, const void* bytes, size_t size) {
    if (size > static_cast<size_t>(out.end - out.next)) out.full = true;
    if (out.full) return;
    memcpy(out.next, bytes, size);
    out.next += size;
}

struct Huff0Block {
    uint8_t tree[kMaxTreeSize];
    uint32_t tree_size;
    uint32_t stream_size[kStreams];
    uint32_t size;
};

void fill_code_table(const HuffmanCode& code, CodeTable& codes) {
    uint16_t value[256];
    assign_codes(code, value);
    for (uint32_t s = 0; s < 256; ++s) {
        const uint32_t length = code.length[s];
        codes[s] = length == 0 ? 0 : static_cast<uint64_t>(value[s]) << (64 - length) | length;
    }
}

// Encodes a plane with at least two symbols into `streams`; false if the block would not gain.
bool encode_huff0(const uint8_t* plane, uint32_t size, const uint32_t* counts, uint8_t* streams, Huff0Block& block) {
    HuffmanCode code;
    CodeWorkspace code_workspace;
    choose_lengths(counts, code, code_workspace);
    if (!gains(code.payload_bits / 8, size)) return false;
    TreeWorkspace tree_workspace;
    block.tree_size = write_tree(code, block.tree, tree_workspace);
    if (block.tree_size == 0) return false;
    CodeTable codes;
    fill_code_table(code, codes);
    kernels().encode_streams(plane, size, codes, streams, block.stream_size);
    block.size = block.tree_size + kJumpTableSize;
    for (uint32_t i = 0; i < kStreams; ++i) block.size += block.stream_size[i];
    return gains(block.size, size);
}

void write_huff0(const Huff0Block& block, const uint8_t* streams, uint32_t symbols, Output& out) {
    uint8_t jumps[kJumpTableSize];
    for (uint32_t i = 0; i < 3; ++i) {
        jumps[2 * i] = static_cast<uint8_t>(block.stream_size[i]);
        jumps[2 * i + 1] = static_cast<uint8_t>(block.stream_size[i] >> 8);
    }
    write(out, block.tree, block.tree_size);
    write(out, jumps, sizeof jumps);
    for (uint32_t i = 0; i < kStreams; ++i) {
        write(out, streams + i * stream_room((symbols + 3) / 4), block.stream_size[i]);
    }
}

// Writes one plane of one block in its smallest form. `plane` may already lie where the output goes.
BlockType write_plane(const uint8_t* plane, uint32_t size, Workspace& workspace, Output& out) {
    if (size >= 2 && !looks_incompressible(plane, size)) {
        uint32_t counts[256];
        kernels().count_bytes(plane, size, counts, workspace.pairs);
        Huff0Block block;
        const uint8_t first = plane[0];
        if (counts[first] == size) {
            write(out, &first, 1);
            return kHuff0Block;
        }
        if (size >= kMinHuff0Symbols && encode_huff0(plane, size, counts, workspace.streams, block)) {
            write_huff0(block, workspace.streams, size, out);
            return kHuff0Block;
        }
    }
    if (plane == out.next) {
        out.next += size;
    } else {
        write(out, plane, size);
    }
    return kRawBlock;
}

// Takes one block apart; elements beyond the last 32-bit word keep their sign in place.
void split_block(const uint8_t* source, uint64_t size, const ElementType& type, uint8_t* const* planes) {
    const uint64_t elements = size / type.planes;
    const uint64_t moved = type.moves_sign ? moved_elements(size, type.planes) : 0;
    kernels().split_planes(source, moved, type.planes, true, planes);
    if (moved == elements) return;
    uint8_t* rest[kMaxPlanes];
    for (uint32_t plane = 0; plane < type.planes; ++plane) rest[plane] = planes[plane] + moved;
    kernels().split_planes(source + moved * type.planes, elements - moved, type.planes, false, rest);
}

struct Source {
    const uint8_t* bytes;
    uint64_t size;
    uint64_t block_size;
    uint64_t blocks;
    ElementType type;
};

// The tables of a stream, [planes][blocks] each.
struct Tables {
    uint8_t* types;
    uint8_t* ends;  // u64
};

// Encodes planes [first, last) of all blocks, plane p to out[p]; false if one of them does not fit.
bool encode_planes(const Source& source, uint32_t first, uint32_t last, const Tables& tables, Output* out,
                   Workspace& workspace) {
    const uint32_t planes = source.type.planes;
    for (uint64_t block = 0; block < source.blocks; ++block) {
        const uint64_t begin = block * source.block_size;
        const uint64_t left = source.size - begin;
        const uint64_t bytes = left < source.block_size ? left : source.block_size;
        const auto symbols = static_cast<uint32_t>(bytes / planes);
        uint8_t* bytes_of_plane[kMaxPlanes];
        for (uint32_t plane = 0; plane < planes; ++plane) {
            // Straight to its raw position where there is room: a plane that stays raw is then not copied again.
            const bool room = plane >= first && plane < last &&
                              symbols <= static_cast<uint64_t>(out[plane].end - out[plane].next);
            bytes_of_plane[plane] = room ? out[plane].next : workspace.planes + plane * symbols;
        }
        split_block(source.bytes + begin, bytes, source.type, bytes_of_plane);
        for (uint32_t plane = first; plane < last; ++plane) {
            const uint64_t index = plane * source.blocks + block;
            tables.types[index] = write_plane(bytes_of_plane[plane], symbols, workspace, out[plane]);
            store_u64(tables.ends + 8 * index, static_cast<uint64_t>(out[plane].next - out[plane].begin));
            if (out[plane].full) return false;
        }
    }
    return true;
}

// Encodes all planes in one pass over the source, each with room to stay raw, and closes the gaps. Returns the end of the
// last plane, or null if the planes do not fit that way.
uint8_t* encode_together(const Source& source, const Tables& tables, uint8_t* body, uint8_t* end,
                         Workspace& workspace) {
    const uint32_t planes = source.type.planes;
    const uint64_t raw = source.size / planes;
    Output out[kMaxPlanes];
    for (uint32_t plane = 0; plane < planes; ++plane) {
        if (plane * raw > static_cast<uint64_t>(end - body)) return nullptr;
        uint8_t* begin = body + plane * raw;
        out[plane] = {begin, begin, plane + 1 < planes && raw < static_cast<uint64_t>(end - begin) ? begin + raw : end,
                      false};
    }
    if (!encode_planes(source, 0, planes, tables, out, workspace)) return nullptr;
    uint8_t* next = out[0].next;
    for (uint32_t plane = 1; plane < planes; ++plane) {
        const auto size = static_cast<size_t>(out[plane].next - out[plane].begin);
        if (out[plane].begin != next) memmove(next, out[plane].begin, size);
        next += size;
    }
    return next;
}

// Encodes one plane after the other, a pass over the source for each: no room is lost between them.
uint8_t* encode_in_turn(const Source& source, const Tables& tables, uint8_t* body, uint8_t* end,
                        Workspace& workspace) {
    for (uint32_t plane = 0; plane < source.type.planes; ++plane) {
        Output out[kMaxPlanes];
        out[plane] = {body, body, end, false};
        if (!encode_planes(source, plane, plane + 1, tables, out, workspace)) return nullptr;
        body = out[plane].next;
    }
    return body;
}

// Returns the stream's size, or 0 if the stream does not fit.
uint64_t encode(const uint8_t* bytes, uint64_t size, uint8_t* out, uint64_t capacity, const ElementType& type,
                uint32_t block_log2, Workspace& workspace) {
    const uint64_t block_size = 1ull << block_log2;
    const uint64_t blocks = (size >> block_log2) + (size % block_size != 0);
    const Source source = {bytes, size, block_size, blocks, type};
    const uint64_t tables_size = uint64_t{kTableEntry} * type.planes * blocks;
    if (capacity < kHeaderSize + tables_size) return 0;
    uint8_t* types = out + kHeaderSize;
    const Tables tables = {types, types + type.planes * blocks};
    uint8_t* body = types + tables_size;
    uint8_t* end = encode_together(source, tables, body, out + capacity, workspace);
    if (end == nullptr && type.planes > 1) end = encode_in_turn(source, tables, body, out + capacity, workspace);
    if (end == nullptr) return 0;
    const auto stream_size = static_cast<uint64_t>(end - out);
    write_header(type, block_log2, size, stream_size, out);
    return stream_size;
}

}  // namespace
}  // namespace dumont

int64_t dumont_zipnn_encode(const uint8_t* source, uint64_t source_size, uint8_t* out, uint64_t capacity,
                            uint32_t dtype, uint32_t block_log2) {
    using namespace dumont;
    ElementType type;
    if (!find_element_type(dtype, type) || source_size % type.planes != 0) return DUMONT_ARGUMENT;
    if (block_log2 < kMinBlockLog2 || block_log2 > kMaxBlockLog2) return DUMONT_ARGUMENT;
    auto* workspace = static_cast<Workspace*>(malloc(sizeof(Workspace)));
    if (workspace == nullptr) return DUMONT_NO_MEMORY;
    const uint64_t size = encode(source, source_size, out, capacity, type, block_log2, *workspace);
    free(workspace);
    return static_cast<int64_t>(size);
}
