// Decodes ZipNN streams: checks the layout, then decodes and joins one block after the other.
#include <stdlib.h>
#include <string.h>

#include "../shared/zipnn.h"
#include "dumont_cpu.h"
#include "kernels.h"

namespace dumont {
namespace {

constexpr size_t kTileSize = 4096;  // bytes of a plane joined at a time; a constant plane is one tile, used repeatedly

// From this output size on, the first blocks have left the cache before the last is decoded, so none is kept there.
#if defined(DUMONT_LEAVES_CACHE)
constexpr uint64_t kLeavesCache = DUMONT_LEAVES_CACHE;  // for the fuzzer, whose streams are small
#else
constexpr uint64_t kLeavesCache = 16 * 1024 * 1024;
#endif

// One allocation per call, independent of the stream's size.
struct Workspace {
    uint64_t tables[kDecodeTableEntries];
    uint8_t constant[kMaxPlanes][kTileSize];
    uint8_t decoded[];  // [planes][plane_capacity]
};

// A plane of one block: its bytes, or a tile that repeats.
struct PlaneBytes {
    const uint8_t* bytes;
    bool constant;
};

struct BlockSource {
    const uint8_t* stream;
    const Header* header;
    const Layout* layout;
    Workspace* workspace;
    size_t plane_capacity;
};

const uint8_t* plane_at(const PlaneBytes& plane, uint64_t offset) {
    return plane.constant ? plane.bytes : plane.bytes + offset;
}

// Makes one plane of a block readable; `direct` is where the plane may be decoded to if it needs no join, or else null.
int64_t open_plane(const BlockSource& source, uint32_t plane, uint64_t block, uint64_t size, uint8_t* direct,
                   PlaneBytes& result) {
    const EncodedBlock encoded = encoded_block(*source.layout, plane, block);
    const uint8_t* bytes = source.stream + encoded.begin;
    if (encoded.type != kRawBlock && encoded.type != kHuff0Block) return DUMONT_DAMAGED;
    if (encoded.size == size) {  // a raw block, or a Huff0 block that Huff0 left uncompressed
        result = {bytes, false};
        return 0;
    }
    if (encoded.type == kRawBlock || encoded.size == 0 || encoded.size > size) return DUMONT_DAMAGED;
    if (encoded.size == 1) {
        uint8_t* tile = source.workspace->constant[plane];
        memset(tile, bytes[0], size < kTileSize ? size : kTileSize);
        result = {tile, true};
        return 0;
    }
    if (size > kMaxHuff0Symbols) return DUMONT_DAMAGED;
    uint8_t* out = direct != nullptr ? direct : source.workspace->decoded + plane * source.plane_capacity;
    result = {out, false};
    const bool good = kernels().decode_huff0(bytes, static_cast<uint32_t>(encoded.size), out,
                                             static_cast<uint32_t>(size), source.workspace->tables);
    return good ? 0 : static_cast<int64_t>(DUMONT_DAMAGED);
}

// Joins elements [first, last) tile by tile, so that a constant plane needs one tile only.
void join_elements(const PlaneBytes* planes, const ElementType& type, bool moves_sign, bool past_caches,
                   uint64_t first, uint64_t last, uint8_t* out) {
    for (uint64_t begin = first; begin < last; begin += kTileSize) {
        const uint64_t elements = last - begin < kTileSize ? last - begin : kTileSize;
        const uint8_t* tile[kMaxPlanes];
        for (uint32_t plane = 0; plane < type.planes; ++plane) tile[plane] = plane_at(planes[plane], begin);
        kernels().join_planes(tile, type.planes, moves_sign, past_caches, out + begin * type.planes, elements);
    }
}

void join_block(const PlaneBytes* planes, const ElementType& type, uint64_t block_bytes, bool past_caches,
                uint8_t* out) {
    if (type.planes == 1 && planes[0].bytes == out) return;
    const uint64_t whole = block_bytes / type.planes;
    const uint64_t moved = type.moves_sign ? moved_elements(block_bytes, type.planes) : 0;
    join_elements(planes, type, true, past_caches, 0, moved, out);
    // fp32 moves every whole element, so that this is 16-bit or fp8 work.
    join_elements(planes, type, false, past_caches, moved, whole, out);
    for (uint64_t byte = whole * type.planes; byte < block_bytes; ++byte) {
        const PlaneBytes& plane = planes[byte % type.planes];
        out[byte] = plane.constant ? plane.bytes[0] : plane.bytes[byte / type.planes];
    }
}

int64_t decode_blocks(const BlockSource& source, uint8_t* out) {
    const Header& header = *source.header;
    for (uint64_t block = 0; block < source.layout->blocks; ++block) {
        const uint64_t begin = block * header.block_size;
        const uint64_t left = header.original_size - begin;
        const uint64_t block_bytes = left < header.block_size ? left : header.block_size;
        PlaneBytes planes[kMaxPlanes];
        for (uint32_t plane = 0; plane < header.type.planes; ++plane) {
            const uint64_t size = plane_share(block_bytes, header.type.planes, plane);
            uint8_t* direct = header.type.planes == 1 ? out + begin : nullptr;
            const int64_t status = open_plane(source, plane, block, size, direct, planes[plane]);
            if (status != 0) return status;
        }
        join_block(planes, header.type, block_bytes, header.original_size >= kLeavesCache, out + begin);
    }
    __atomic_thread_fence(__ATOMIC_SEQ_CST);  // stores past the caches are not ordered by themselves
    return 0;
}

// Bytes of workspace that one plane of a block may need when it is decoded and then joined.
size_t plane_capacity(const Header& header) {
    if (header.type.planes == 1) return 0;
    const uint64_t largest = header.original_size < header.block_size ? header.original_size : header.block_size;
    const uint64_t share = plane_share(largest, header.type.planes, 0);
    return static_cast<size_t>(share < kMaxHuff0Symbols ? share : kMaxHuff0Symbols);
}

int64_t decode_one(const uint8_t* stream, const Header& header, uint8_t* out) {
    Layout layout;
    if (!parse_layout(stream, header, layout)) return DUMONT_DAMAGED;
    const size_t capacity = plane_capacity(header);
    auto* workspace = static_cast<Workspace*>(malloc(sizeof(Workspace) + header.type.planes * capacity));
    if (workspace == nullptr) return DUMONT_NO_MEMORY;
    const int64_t status = decode_blocks({stream, &header, &layout, workspace, capacity}, out);
    free(workspace);
    return status;
}

}  // namespace
}  // namespace dumont

int64_t dumont_zipnn_decode(const uint8_t* stream, uint64_t stream_size, uint8_t* out, uint64_t out_size) {
    using namespace dumont;
    uint64_t read = 0;
    uint64_t written = 0;
    do {  // a `continued` stream is followed by another, up to the end
        Header header;
        const Parse parsed = parse_header(stream + read, stream_size - read, header);
        if (parsed != Parse::kOk) return parsed == Parse::kDamaged ? DUMONT_DAMAGED : DUMONT_UNSUPPORTED;
        if (!header.continued && (read != 0 || header.stream_size != stream_size)) return DUMONT_DAMAGED;
        if (header.original_size > out_size - written) return DUMONT_DAMAGED;
        const int64_t status = decode_one(stream + read, header, out + written);
        if (status != 0) return status;
        read += header.stream_size;
        written += header.original_size;
    } while (read < stream_size);
    return written == out_size ? static_cast<int64_t>(out_size) : static_cast<int64_t>(DUMONT_DAMAGED);
}
