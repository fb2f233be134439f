// The layout of a ZipNN stream: header, block tables and the position of every block.
//
//   32-byte header | u8 type[planes][blocks] | u64 end[planes][blocks] | plane 0's blocks | plane 1's blocks | ...
//
// A block covers `block_size` raw bytes, block_size / planes of them in each plane. Plane b holds byte b of every
// little-endian element, after the sign has been moved next to the mantissa if the type asks for that.
#pragma once

#include "huff0.h"

namespace dumont {

constexpr uint32_t kHeaderSize = 32;
constexpr uint32_t kMaxPlanes = 4;
constexpr uint32_t kTableEntry = 9;  // bytes in the tables for each plane of each block: its type, and where it ends
constexpr uint32_t kMaxSinglePlaneBlock = 128 * 1024;  // fp8 streams clamp the header's block size to this

enum BlockType : uint8_t { kRawBlock = 0, kHuff0Block = 1 };

enum class Parse : uint8_t { kOk, kDamaged, kUnsupported };

struct ElementType {
    uint8_t dtype;         // byte 15
    uint8_t planes;        // bytes of an element
    uint8_t byte_reorder;  // byte 5
    uint8_t bit_reorder;   // byte 6
    bool moves_sign;
};

DUMONT_HD bool find_element_type(uint32_t dtype, ElementType& type) {
    // The last two numbers are zipnn's second names for float32 and float16.
    constexpr ElementType kTypes[] = {
        {1, 4, 220, 1, true},  {4, 2, 10, 0, false}, {6, 2, 10, 1, true},   {29, 1, 10, 1, false},
        {30, 1, 10, 1, false}, {2, 4, 220, 1, true}, {5, 2, 10, 0, false},
    };
    for (const ElementType& candidate : kTypes) {
        if (candidate.dtype != dtype) continue;
        type = candidate;
        return true;
    }
    return false;
}

struct Header {
    ElementType type;
    uint64_t block_size;     // raw bytes
    uint64_t original_size;  // raw bytes
    uint64_t stream_size;    // bytes, header included
    bool continued;          // part of a sequence of streams that follow one another
};

// Checks a header by the table of FORMAT.md, section 5.2. Bytes 2 to 15 give the kind of stream: any other value is another
// kind (unsupported). Bytes 0, 1 and 16 to 31 can only be right or damaged.
DUMONT_HD Parse parse_header(const uint8_t* stream, uint64_t size, Header& header) {
    if (size < kHeaderSize || stream[0] != 'Z' || stream[1] != 'N') return Parse::kDamaged;
    const bool known_version = stream[2] == 0 && stream[3] == 5;  // byte 4, zipnn's patch level, may have any value
    const bool bytes_in = stream[8] == 1;
    const bool plain = (stream[9] | stream[10] | stream[11] | stream[12]) == 0;  // neither delta nor lossy
    const bool huffman = stream[7] <= 1;
    if (!known_version || !bytes_in || !plain || !huffman) return Parse::kUnsupported;
    if (!find_element_type(stream[15], header.type)) return Parse::kUnsupported;
    const bool reorder_fits = stream[5] == header.type.byte_reorder &&
                              (header.type.planes == 1 || stream[6] == header.type.bit_reorder);
    if (!reorder_fits || stream[14] > 62) return Parse::kUnsupported;
    if (stream[13] != 0 && stream[13] < 128) return Parse::kUnsupported;
    header.continued = stream[13] != 0;
    header.block_size = 1ull << stream[14];
    if (header.type.planes == 1 && header.block_size > kMaxSinglePlaneBlock) header.block_size = kMaxSinglePlaneBlock;
    if (header.block_size < header.type.planes) return Parse::kUnsupported;
    header.original_size = load_u64(stream + 16);
    header.stream_size = load_u64(stream + 24);
    if (header.stream_size < kHeaderSize || header.stream_size > size) return Parse::kDamaged;
    return Parse::kOk;
}

struct Layout {
    const uint8_t* types;              // [planes][blocks]
    const uint8_t* ends;               // u64 [planes][blocks], unaligned, relative to plane_begin
    uint64_t blocks;
    uint64_t plane_begin[kMaxPlanes + 1];  // offsets in the stream
};

// Checks that the tables lie inside the stream, never decrease and end exactly where the stream does.
DUMONT_HD bool parse_layout(const uint8_t* stream, const Header& header, Layout& layout) {
    const uint32_t planes = header.type.planes;
    layout.blocks = header.original_size / header.block_size + (header.original_size % header.block_size != 0);
    const uint64_t body = header.stream_size - kHeaderSize;
    if (layout.blocks > body / (kTableEntry * planes)) return false;
    layout.types = stream + kHeaderSize;
    layout.ends = layout.types + planes * layout.blocks;
    uint64_t begin = kHeaderSize + kTableEntry * planes * layout.blocks;
    for (uint32_t plane = 0; plane < planes; ++plane) {
        layout.plane_begin[plane] = begin;
        uint64_t end = 0;
        for (uint64_t block = 0; block < layout.blocks; ++block) {
            const uint64_t next = load_u64(layout.ends + 8 * (plane * layout.blocks + block));
            if (next < end || next > header.stream_size - begin) return false;
            end = next;
        }
        begin += end;
    }
    layout.plane_begin[planes] = begin;
    return begin == header.stream_size;
}

struct EncodedBlock {
    uint8_t type;
    uint64_t begin;  // offset in the stream
    uint64_t size;
};

DUMONT_HD EncodedBlock encoded_block(const Layout& layout, uint32_t plane, uint64_t block) {
    const uint64_t index = plane * layout.blocks + block;
    const uint64_t before = block == 0 ? 0 : load_u64(layout.ends + 8 * (index - 1));
    return {layout.types[index], layout.plane_begin[plane] + before, load_u64(layout.ends + 8 * index) - before};
}

// Bytes of `plane` in a block of `block_bytes` raw bytes: the first planes take the bytes of a partial element.
DUMONT_HD uint64_t plane_share(uint64_t block_bytes, uint32_t planes, uint32_t plane) {
    return block_bytes / planes + (plane < block_bytes % planes);
}

DUMONT_HD void store_u64(uint8_t* out, uint64_t value) {
    for (uint32_t i = 0; i < 8; ++i) out[i] = static_cast<uint8_t>(value >> (8 * i));
}

DUMONT_HD void write_header(const ElementType& type, uint32_t block_log2, uint64_t original_size, uint64_t stream_size,
                            uint8_t* out /* [kHeaderSize] */) {
    const uint8_t fields[16] = {'Z', 'N', 0, 5, 4, type.byte_reorder, type.bit_reorder, 0,
                                1,   0,   0, 0, 0, 0, static_cast<uint8_t>(block_log2), type.dtype};
    for (uint32_t i = 0; i < 16; ++i) out[i] = fields[i];
    store_u64(out + 16, original_size);
    store_u64(out + 24, stream_size);
}

// Whether a Huff0 block pays: zipnn uses it only if it is smaller than 0.95 of the raw size, and Huff0 itself refuses fewer
// symbols.
constexpr uint32_t kMinHuff0Symbols = 12;

DUMONT_HD bool gains(uint64_t encoded, uint64_t raw) {
    return 20 * encoded < 19 * raw;
}

// ---------------------------------------------------------------------------------------------------------------
// The sign move: exponent alone in the top byte, sign next to the mantissa; and back.

DUMONT_HD uint16_t move_sign16(uint16_t u) {
    return static_cast<uint16_t>((u & 0x7F80) << 1 | (u & 0x8000) >> 8 | (u & 0x007F));
}

DUMONT_HD uint16_t restore_sign16(uint16_t u) {
    return static_cast<uint16_t>((u & 0xFF00) >> 1 | (u & 0x0080) << 8 | (u & 0x007F));
}

DUMONT_HD uint32_t move_sign32(uint32_t u) {
    return (u & 0x7F800000) << 1 | (u & 0x80000000) >> 8 | (u & 0x007FFFFF);
}

DUMONT_HD uint32_t restore_sign32(uint32_t u) {
    return (u & 0xFF000000) >> 1 | (u & 0x00800000) << 8 | (u & 0x007FFFFF);
}

// The move works on whole 32-bit words of a block: a 16-bit element beyond the last word keeps its sign in place.
DUMONT_HD uint64_t moved_elements(uint64_t block_bytes, uint32_t planes) {
    return block_bytes / 4 * 4 / planes;
}

}  // namespace dumont
