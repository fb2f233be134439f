// Damage that survives the host's checks: the tables fit, and a block is wrong inside.
#include "handmade.h"
#include "stream_parts.h"
#include "streams.h"

namespace dumont::test {
namespace {

constexpr uint64_t kLargestClaim = 128 * 1024;  // of a damaged header that is believed

// The places in a Huff0 block, as far as it has them.
struct BlockPlaces {
    size_t tree;                      // bytes
    size_t streams[kStreams];         // where they begin
    size_t streams_end;
};

bool find_places(const Bytes& block, BlockPlaces& places) {
    places.tree = block[0] < kFirstDirectHeader ? 1 + block[0] : 1 + (block[0] - kFirstDirectHeader + 2) / 2;
    size_t next = places.tree + kJumpTableSize;
    for (uint32_t i = 0; i < kStreams; ++i) {
        if (next >= block.size()) return false;
        places.streams[i] = next;
        if (i < 3) next += load_u16(block.data() + places.tree + 2 * i);
    }
    places.streams_end = block.size();
    return true;
}

void add_to_jump(Bytes& block, size_t at, uint64_t difference) {
    const uint64_t size = load_u16(block.data() + at) + difference;
    block[at] = static_cast<uint8_t>(size);
    block[at + 1] = static_cast<uint8_t>(size >> 8);
}

// Changes one stream's length at its first byte, where decoding ends, and the jump table with it.
void shift_start(Bytes& block, const BlockPlaces& places, Random& random) {
    const uint64_t i = below(random, kStreams);
    const auto at = block.begin() + static_cast<std::ptrdiff_t>(places.streams[i]);
    const bool grow = below(random, 2) != 0;
    if (grow) {
        block.insert(at, below(random, 2) != 0 ? 0 : static_cast<uint8_t>(random()));
    } else {
        block.erase(at);
    }
    if (i < 3) add_to_jump(block, places.tree + 2 * i, grow ? 1 : ~0ull);
}

const char* damage_block(Bytes& block, Random& random) {
    BlockPlaces places;
    if (!find_places(block, places)) {
        change_byte(block, below(random, block.size()), random);
        return "a byte of a damaged block";
    }
    const uint64_t stream = below(random, kStreams);
    const size_t stream_end = stream < 3 ? places.streams[stream + 1] : places.streams_end;
    switch (below(random, 13)) {
        case 0: block[below(random, block.size())] ^= static_cast<uint8_t>(1u << below(random, 8)); return "a bit flipped";
        case 1: change_byte(block, below(random, places.tree), random); return "tree changed";
        case 2: block.resize(block.size() - 1 - below(random, 8) % (block.size() - 1)); return "cut at the end";
        case 3:
            for (uint64_t i = 1 + below(random, 8); i > 0; --i) block.push_back(static_cast<uint8_t>(random()));
            return "longer at the end";
        case 4: {
            const size_t a = places.tree + 2 * below(random, 3);
            const size_t b = places.tree + 2 * below(random, 3);
            std::swap(block[a], block[b]);
            std::swap(block[a + 1], block[b + 1]);
            return "jumps swapped";
        }
        case 5: {
            const uint64_t difference = below(random, 2) != 0 ? below(random, 9) - 4 : random();
            add_to_jump(block, places.tree + 2 * below(random, 3), difference);
            return "a jump changed";
        }
        case 6: {
            const size_t gone = 1 + below(random, places.tree);
            block.erase(block.begin(), block.begin() + static_cast<std::ptrdiff_t>(std::min(gone, block.size() - 2)));
            return "tree cut at its start";
        }
        case 7: {
            const size_t kept = 1 + below(random, places.tree - 1);
            block.erase(block.begin() + static_cast<std::ptrdiff_t>(kept),
                        block.begin() + static_cast<std::ptrdiff_t>(places.tree));
            if (block[0] < kFirstDirectHeader) block[0] = static_cast<uint8_t>(kept - 1);
            return "tree cut at its end";
        }
        case 8: {
            const Bytes tree = direct_tree(random_code(random, 1 + static_cast<uint32_t>(below(random, kMaxTableLog))));
            block.erase(block.begin(), block.begin() + static_cast<std::ptrdiff_t>(places.tree));
            block.insert(block.begin(), tree.begin(), tree.end());
            return "another tree";
        }
        case 9: block[stream_end - 1] = 0; return "no end mark";
        case 10: block[stream_end - 1] ^= static_cast<uint8_t>(1u << below(random, 8)); return "end mark moved";
        case 11:
            block[places.streams[stream]] ^= static_cast<uint8_t>(1u << below(random, 8));
            return "a bit of the last code";
        default: shift_start(block, places, random); return "a stream starts elsewhere";
    }
}

// A good block in itself, but no packer may keep it.
BlockPart larger_than_raw(uint64_t symbols) {
    const CodeLengths chain = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 11};
    return {kHuff0Block, huff0_block(chain, Bytes(symbols, 11))};
}

// Two blocks of a plane change places, one gets another type, one is a constant or raw, or the size is another.
const char* damage_tables(StreamParts& parts, Random& random) {
    std::vector<BlockPart>& plane = parts.planes[below(random, parts.planes.size())];
    if (plane.empty()) return "nothing";
    BlockPart& block = plane[below(random, plane.size())];
    const uint64_t elements = parts.original_size / parts.planes.size();
    switch (below(random, 6)) {
        case 0: std::swap(block, plane[below(random, plane.size())]); return "blocks swapped";
        case 1: block.type = static_cast<uint8_t>(below(random, 4) == 0 ? random() : 1 - block.type); return "another type";
        case 2: block = {kHuff0Block, {static_cast<uint8_t>(random())}}; return "made constant";
        case 3: block = {kHuff0Block, Bytes(below(random, 40))}; return "made zeros";
        case 4:
            if (plane.size() > 1 || elements < 6) return "nothing";
            block = larger_than_raw(elements);
            return "larger than raw";
        default: parts.original_size += below(random, 9) - 4; return "another original size";
    }
}

std::string damage_parts(Bytes& stream, Random& random) {
    StreamParts parts = take_apart(stream);
    std::vector<Bytes*> coded;
    for (std::vector<BlockPart>& plane : parts.planes) {
        for (BlockPart& block : plane) {
            if (block.type == kHuff0Block && block.bytes.size() > kJumpTableSize + kStreams) coded.push_back(&block.bytes);
        }
    }
    std::string what;
    for (uint64_t n = 1 + below(random, 4) / 3; n > 0; --n) {
        const bool tables = coded.empty() || below(random, 8) == 0;
        what += what.empty() ? "" : ", ";
        what += tables ? damage_tables(parts, random) : damage_block(*coded[below(random, coded.size())], random);
        if (tables) break;  // the list of coded blocks may be wrong now
    }
    stream = put_together(parts);
    return what;
}

}  // namespace

Chunk damaged_chunk(const Chunk& good, const std::vector<Bytes>& corpus, Random& random) {
    Chunk bad = good;
    if (below(random, 16) == 0) {
        bad.name += ": another size asked for";
        bad.original_size += 1 + below(random, 8);
        if (below(random, 2) != 0 && good.original_size != 0) bad.original_size = below(random, good.original_size);
        return bad;
    }
    const bool continued = good.encoded[13] != 0;
    if (continued && below(random, 3) == 0) {  // one stream says that it is the only one
        const uint64_t second = load_u64(good.encoded.data() + 24);
        bad.encoded[13 + (below(random, 2) != 0 ? second : 0)] = 0;
        bad.name += ": a stream not continued";
        return bad;
    }
    if (!continued && below(random, 3) != 0) {
        bad.name += ": " + damage_parts(bad.encoded, random);
    } else {
        const Targets targets = find_targets(good.encoded);
        for (uint64_t n = 1 + below(random, 3); n > 0 && !bad.encoded.empty(); --n) {
            mutate(bad.encoded, targets, corpus, random);
        }
        bad.name += ": bytes changed";
    }
    // Decoded into what it claims, so that a changed size is not refused at once.
    const uint64_t claimed = bad.encoded.size() < kHeaderSize ? 0 : load_u64(bad.encoded.data() + 16);
    if (!continued && claimed <= kLargestClaim) bad.original_size = claimed;
    return bad;
}

}  // namespace dumont::test
