// A ZipNN stream taken apart, so that one block can be changed and the tables still fit.
#pragma once

#include "damage.h"

namespace dumont::test {

struct BlockPart {
    uint8_t type;
    Bytes bytes;
};

struct StreamParts {
    Bytes header;  // 32 bytes; put_together fills in the sizes
    uint64_t original_size;
    std::vector<std::vector<BlockPart>> planes;  // [plane][block]
};

// `stream` is a good one.
inline StreamParts take_apart(const Bytes& stream) {
    Header header;
    Layout layout;
    if (parse_header(stream.data(), stream.size(), header) != Parse::kOk || !parse_layout(stream.data(), header, layout)) {
        fail("a stream that should be good does not parse");
    }
    StreamParts parts{Bytes(stream.begin(), stream.begin() + kHeaderSize), header.original_size, {}};
    for (uint32_t plane = 0; plane < header.type.planes; ++plane) {
        parts.planes.emplace_back();
        for (uint64_t block = 0; block < layout.blocks; ++block) {
            const EncodedBlock encoded = encoded_block(layout, plane, block);
            const uint8_t* begin = stream.data() + encoded.begin;
            parts.planes.back().push_back({encoded.type, Bytes(begin, begin + encoded.size)});
        }
    }
    return parts;
}

inline Bytes put_together(const StreamParts& parts) {
    Bytes stream = parts.header;
    Bytes ends;
    Bytes body;
    for (const std::vector<BlockPart>& plane : parts.planes) {
        uint64_t end = 0;
        for (const BlockPart& block : plane) {
            stream.push_back(block.type);
            end += block.bytes.size();
            ends.resize(ends.size() + 8);
            set_u64(ends, ends.size() - 8, end);
            body.insert(body.end(), block.bytes.begin(), block.bytes.end());
        }
    }
    stream.insert(stream.end(), ends.begin(), ends.end());
    stream.insert(stream.end(), body.begin(), body.end());
    set_u64(stream, 16, parts.original_size);
    set_u64(stream, 24, stream.size());
    return stream;
}

}  // namespace dumont::test
