// Damages ZipNN streams where it hurts: headers, tables, trees, jump tables. Any test of a decoder starts from this.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <random>
#include <string>
#include <vector>

#include "zipnn.h"

namespace dumont::test {

using Bytes = std::vector<uint8_t>;
using Random = std::mt19937_64;

// A wrong result, or a test that cannot run.
[[noreturn]] inline void fail(const char* what) {
    std::fprintf(stderr, "%s\n", what);
    std::abort();
}

inline uint64_t below(Random& random, uint64_t bound) {
    return bound == 0 ? 0 : random() % bound;
}

// Where a mutation hurts most: the byte ranges of a good stream.
struct Targets {
    uint64_t tables_end;
    std::vector<uint64_t> blocks;  // offsets
};

inline Targets find_targets(const Bytes& stream) {
    Header header;
    Layout layout;
    if (parse_header(stream.data(), stream.size(), header) != Parse::kOk ||
        !parse_layout(stream.data(), header, layout)) {
        fail("a golden stream does not parse");
    }
    Targets targets{layout.plane_begin[0], {}};
    for (uint32_t plane = 0; plane < header.type.planes; ++plane) {
        for (uint64_t block = 0; block < layout.blocks; ++block) {
            const EncodedBlock encoded = encoded_block(layout, plane, block);
            if (encoded.type == kHuff0Block) targets.blocks.push_back(encoded.begin);
        }
    }
    return targets;
}

inline void set_u64(Bytes& stream, size_t offset, uint64_t value) {
    for (size_t i = 0; i < 8 && offset + i < stream.size(); ++i) {
        stream[offset + i] = static_cast<uint8_t>(value >> 8 * i);
    }
}

inline uint64_t interesting(Random& random, uint64_t near) {
    switch (below(random, 6)) {
        case 0: return near + below(random, 5) - 2;
        case 1: return 0;
        case 2: return ~0ull - below(random, 4);
        case 3: return 1ull << below(random, 64);
        case 4: return random();
        default: return below(random, 2 * near + 2);
    }
}

inline void change_byte(Bytes& stream, size_t offset, Random& random) {
    if (offset >= stream.size()) return;
    uint8_t& byte = stream[offset];
    switch (below(random, 4)) {
        case 0: byte ^= static_cast<uint8_t>(1u << below(random, 8)); break;
        case 1: byte = static_cast<uint8_t>(random()); break;
        case 2: byte = static_cast<uint8_t>(byte + below(random, 3) - 1); break;
        default: byte = below(random, 2) != 0 ? 0xFF : 0; break;
    }
}

inline void mutate(Bytes& stream, const Targets& targets, const std::vector<Bytes>& corpus, Random& random) {
    const uint64_t choice = below(random, 10);
    if (choice == 0) {  // anywhere
        change_byte(stream, below(random, stream.size()), random);
    } else if (choice == 1) {  // the header
        change_byte(stream, below(random, 32), random);
    } else if (choice == 2) {  // sizes in the header
        const size_t offset = below(random, 2) != 0 ? 16 : 24;
        set_u64(stream, offset, interesting(random, stream.size()));
    } else if (choice == 3) {  // types and ends
        change_byte(stream, 32 + below(random, targets.tables_end - 32), random);
    } else if (choice == 4 && targets.tables_end >= 40) {  // one end, whole
        set_u64(stream, targets.tables_end - 8 * (1 + below(random, (targets.tables_end - 32) / 9 + 1)),
                interesting(random, stream.size()));
    } else if (choice == 5) {  // truncation, with the header told of it or not
        stream.resize(below(random, stream.size() + 1));
        if (below(random, 4) != 0) set_u64(stream, 24, stream.size());
    } else if (choice == 6) {  // a splice
        const Bytes& other = corpus[below(random, corpus.size())];
        const size_t from = below(random, other.size());
        const size_t length = below(random, other.size() - from) / (1 + below(random, 64)) + 1;
        const size_t to = below(random, stream.size());
        for (size_t i = 0; i < length && from + i < other.size() && to + i < stream.size(); ++i) {
            stream[to + i] = other[from + i];
        }
    } else if (!targets.blocks.empty()) {  // tree, jump table, first stream
        const uint64_t block = targets.blocks[below(random, targets.blocks.size())];
        change_byte(stream, block + below(random, below(random, 2) != 0 ? 40 : 200), random);
    }
}

inline Bytes read_file(const std::filesystem::path& path) {
    std::ifstream file(path, std::ios::binary);
    return Bytes(std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>());
}

// Every *.zipnn of a directory, in the order of their names: a seed means the same everywhere.
inline std::vector<Bytes> read_corpus(const char* directory) {
    std::vector<std::filesystem::path> paths;
    for (const auto& entry : std::filesystem::directory_iterator(directory)) {
        if (entry.path().extension() == ".zipnn") paths.push_back(entry.path());
    }
    if (paths.empty()) fail("no *.zipnn in the directory");
    std::sort(paths.begin(), paths.end());
    std::vector<Bytes> corpus;
    for (const auto& path : paths) corpus.push_back(read_file(path));
    return corpus;
}

}  // namespace dumont::test
