// Streams for the conformance suite: golden, encoded from every kind of data, assembled by hand, damaged.
#pragma once

#include "device_path.h"

namespace dumont::test {

struct GoldenStream {
    Chunk chunk;
    std::string original_sha256;
};

// What streams.json in `directory` lists.
std::vector<GoldenStream> read_golden(const std::string& directory);

struct DtypeName {
    uint32_t dtype;
    uint32_t bytes;
    const char* name;
};

constexpr DtypeName kDtypes[] = {{1, 4, "fp32"}, {4, 2, "fp16"}, {6, 2, "bf16"}, {29, 1, "e4m3"}, {30, 1, "e5m2"}};
constexpr size_t kDtypeCount = 5;
constexpr size_t kDataKinds = 12;

// A stream of our encoder; `original` gets what it was made from.
Chunk encoded_chunk(const DtypeName& dtype, uint64_t elements, size_t kind, uint32_t block_log2, Random& random,
                    Bytes& original);
Chunk encoded_chunk(const DtypeName& dtype, const std::string& name, const Bytes& original, uint32_t block_log2);

// One block, each of its planes raw, constant, or in a complete code of any shape, up to 12 bits long: what no encoder
// chooses and a decoder must read.
Chunk handmade_chunk(const DtypeName& dtype, Random& random);

// One block, all of its planes in stubborn codes (handmade.h). Few or no lanes of a warp start in step, so that the
// segments of a round are decoded one after the other: the worst case, which is slow and must be right.
Chunk stubborn_chunk(const DtypeName& dtype, uint64_t elements, Random& random);

// Decodes the chunk's blocks where their offsets are as large as they get: the last bytes of a chunk of 1 GiB, in a
// batch of several GiB. Throws std::runtime_error if that changes anything.
void check_far_offsets(const Chunk& chunk);

// Several `continued` streams, one after the other.
Chunk continued_chunk(const std::vector<Chunk>& streams);

// A damaged copy; says in its name what was done.
Chunk damaged_chunk(const Chunk& good, const std::vector<Bytes>& corpus, Random& random);

}  // namespace dumont::test
