// The kernels that exist once per instruction set, and the table through which the rest of the codec calls them.
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "../shared/huffman_code.h"

namespace dumont {

// Room for the decode tables of every window width from 0 to 12 bits: 2 + 4 + ... entries of 8 bytes.
constexpr size_t kDecodeTableEntries = size_t{2} << kMaxTableLog;

// Two tables of the counts of byte pairs, and the distance between them.
constexpr size_t kPairTableEntries = 2 * 65536 + 256;

constexpr size_t kFewestPairs = 16 * 1024;  // bytes; for fewer, summing up the pair tables costs more than pairs save

// Code of each symbol, left-aligned in 64 bits, with its length in the low byte.
using CodeTable = uint64_t[256];

// Bytes that one encoded stream of `symbols` symbols may touch, wide stores included.
constexpr size_t stream_room(size_t symbols) {
    return symbols * kMaxWrittenLength / 8 + 16;
}

// A node of a BLAKE3 tree: a chunk, or a parent whose input is the values of its two children.
struct Blake3Node {
    const uint8_t* input;
    uint64_t counter;  // the chunk's number in its piece; 0 for a parent
    uint8_t* value;    // receives 32 bytes
    uint32_t size;     // bytes of input, at most kBlake3Chunk
    uint8_t flags;     // Blake3Flags of every block, and further ones of the first and the last
    uint8_t first_flags;
    uint8_t last_flags;
};

struct Kernels {
    const char* name;

    // Decodes one Huff0 block with a tree into exactly `symbols` bytes; false if the block is damaged. `tables` is
    // scratch of kDecodeTableEntries.
    bool (*decode_huff0)(const uint8_t* block, uint32_t size, uint8_t* out, uint32_t symbols, uint64_t* tables);

    // Encodes `symbols` bytes as the four streams of a Huff0 block, stream i at out + i * stream_room(segment).
    void (*encode_streams)(const uint8_t* source, uint32_t symbols, const CodeTable& codes, uint8_t* out,
                           uint32_t* sizes /* [kStreams] */);

    // Counts the occurrences of each byte value; `size` is not 0 and at most 128 KiB. `pairs` is scratch of
    // kPairTableEntries, unused below kFewestPairs bytes.
    void (*count_bytes)(const uint8_t* bytes, size_t size, uint32_t* counts /* [256] */, uint16_t* pairs);

    // Interleaves planes[0..plane_count) into `elements` whole elements, undoing the sign move. `past_caches` says that
    // `out` will not be read soon; the caller then issues a fence before another thread may use the result.
    void (*join_planes)(const uint8_t* const* planes, uint32_t plane_count, bool moves_sign, bool past_caches,
                        uint8_t* out, size_t elements);

    // Takes `elements` whole elements apart into planes[0..plane_count), the sign moved first.
    void (*split_planes)(const uint8_t* source, size_t elements, uint32_t plane_count, bool moves_sign,
                         uint8_t* const* planes);

    // Computes the values of nodes, fastest if neighbours have about as many blocks. A value may overwrite the input of
    // the same node or of earlier ones, if all nodes are parents.
    void (*compress_blake3)(const Blake3Node* nodes, size_t count);
};

// The path in use; see dispatch.cpp.
const Kernels& kernels();

}  // namespace dumont
