#include "streams.h"

#include <cstring>
#include <fstream>

#include "dumont_cpu.h"
#include "handmade.h"
#include "stream_parts.h"

namespace dumont::test {
namespace {

// The value of `"key": ...` in a line of streams.json, without quotes; empty if it is another line.
std::string json_value(const std::string& line, const std::string& key) {
    const std::string start = "\"" + key + "\": ";
    const size_t found = line.find(start);
    if (found == std::string::npos) return "";
    std::string value;
    for (const char c : line.substr(found + start.size())) {
        if (c != '"' && c != ',') value += c;
    }
    return value;
}

struct FloatShape {
    uint32_t exponent_bits;
    uint32_t mantissa_bits;
};

FloatShape shape_of(uint32_t dtype) {
    switch (dtype) {
        case DUMONT_FP32: return {8, 23};
        case DUMONT_FP16: return {5, 10};
        case DUMONT_BF16: return {8, 7};
        case DUMONT_FP8_E4M3: return {4, 3};
        default: return {5, 2};
    }
}

// Cut, not rounded; what the shape cannot hold becomes its smallest or largest exponent.
uint32_t narrow(float value, const FloatShape& shape) {
    uint32_t bits;
    std::memcpy(&bits, &value, sizeof bits);
    const int bias = (1 << (shape.exponent_bits - 1)) - 1;
    const int most = (1 << shape.exponent_bits) - 1;
    const int exponent = static_cast<int>(bits >> 23 & 255) - 127 + bias;
    const auto kept = static_cast<uint32_t>(exponent < 0 ? 0 : exponent > most ? most : exponent);
    return (bits >> 31 << shape.exponent_bits | kept) << shape.mantissa_bits |
           (bits & 0x7FFFFF) >> (23 - shape.mantissa_bits);
}

struct Position {
    uint64_t index;
    uint64_t elements;
};

struct DataKind {
    const char* name;
    uint32_t (*element)(const FloatShape& shape, const Position& position, uint32_t constant, Random& random);
};

uint32_t gaussian(const FloatShape& shape, Random& random) {
    std::normal_distribution<float> weights(0, 0.02f);
    return narrow(weights(random), shape);
}

uint32_t geometric_byte(Random& random) {
    return static_cast<uint32_t>(__builtin_ctzll(random() | 1ull << 40));
}

constexpr DataKind kKinds[] = {
    {"gauss", [](const FloatShape& shape, const Position&, uint32_t, Random& random) { return gaussian(shape, random); }},
    {"constant", [](const FloatShape&, const Position&, uint32_t constant, Random&) { return constant; }},
    {"random", [](const FloatShape&, const Position&, uint32_t, Random& random) { return static_cast<uint32_t>(random()); }},
    {"denormal",
     [](const FloatShape& shape, const Position&, uint32_t, Random& random) {
         const auto draw = static_cast<uint32_t>(random());
         return (draw & ((1u << shape.mantissa_bits) - 1)) | draw >> 31 << (shape.exponent_bits + shape.mantissa_bits);
     }},
    {"nan",
     [](const FloatShape& shape, const Position&, uint32_t constant, Random& random) {
         const uint32_t infinity = ((1u << shape.exponent_bits) - 1) << shape.mantissa_bits;
         return below(random, 5) == 0 ? static_cast<uint32_t>(random()) : infinity | (constant & 3);
     }},
    {"few-values",
     [](const FloatShape&, const Position&, uint32_t constant, Random& random) {
         const uint64_t draw = below(random, 100);
         return draw < 90 ? constant : draw < 97 ? constant ^ 0x01010101 : constant ^ 0x80808080;
     }},
    {"uneven",
     [](const FloatShape&, const Position& position, uint32_t constant, Random& random) {
         return 4 * position.index < 3 * position.elements ? constant : static_cast<uint32_t>(random());
     }},
    {"geometric-bytes",
     [](const FloatShape&, const Position&, uint32_t constant, Random& random) {
         return constant ^ (geometric_byte(random) | geometric_byte(random) << 8 | geometric_byte(random) << 16 |
                            geometric_byte(random) << 24);
     }},
    {"widened",  // a shorter type in a longer one's clothes
     [](const FloatShape& shape, const Position&, uint32_t constant, Random& random) {
         const uint32_t dropped = shape.mantissa_bits * (2 + constant % 2) / 4;
         return gaussian(shape, random) >> dropped << dropped;
     }},
    {"one-bit",
     [](const FloatShape&, const Position&, uint32_t constant, Random& random) {
         return below(random, 20) == 0 ? static_cast<uint32_t>(random()) : constant;
     }},
    {"alternating",  // two values, now and then a third
     [](const FloatShape&, const Position& position, uint32_t constant, Random&) {
         return position.index % 1000 == 999 ? ~constant : position.index % 2 == 0 ? constant : constant ^ 0x05040302;
     }},
    {"all-values",  // of a byte, a few of them common
     [](const FloatShape&, const Position& position, uint32_t constant, Random&) {
         const auto index = static_cast<uint32_t>(position.index);
         return index % 3 != 0 ? constant : index / 3 * 0x01010101;
     }},
};
static_assert(sizeof kKinds / sizeof *kKinds == kDataKinds);

Bytes random_data(const DtypeName& dtype, uint64_t elements, const DataKind& kind, Random& random) {
    const FloatShape shape = shape_of(dtype.dtype);
    const auto constant = static_cast<uint32_t>(random());
    Bytes data(elements * dtype.bytes);
    for (uint64_t i = 0; i < elements; ++i) {
        const uint32_t value = kind.element(shape, {i, elements}, constant, random);
        std::memcpy(data.data() + i * dtype.bytes, &value, dtype.bytes);
    }
    return data;
}

Bytes stream_header(const DtypeName& dtype, uint32_t block_log2) {
    ElementType type;
    if (!find_element_type(dtype.dtype, type)) fail("no such type");
    Bytes header(kHeaderSize);
    header[0] = 'Z';
    header[1] = 'N';
    header[3] = 5;
    header[4] = 4;
    header[5] = type.byte_reorder;
    header[6] = type.bit_reorder;
    header[8] = 1;
    header[14] = static_cast<uint8_t>(block_log2);
    header[15] = type.dtype;
    return header;
}

BlockPart coded_plane(const CodeLengths& code, const Bytes& symbols) {
    const Bytes block = huff0_block(code, symbols);
    return block.size() < symbols.size() ? BlockPart{kHuff0Block, block} : BlockPart{kRawBlock, symbols};
}

BlockPart stubborn_plane(uint64_t elements, Random& random) {
    const CodeLengths code = stubborn_code(below(random, kStubbornCodes));
    const bool runs = below(random, 2) != 0;
    return coded_plane(code, runs ? symbol_runs(code, elements, random) : random_symbols(code, elements, random));
}

BlockPart random_plane(uint64_t elements, Random& random) {
    const uint64_t form = below(random, elements > kMaxHuff0Symbols ? 2 : 6);
    if (form == 0) return {kHuff0Block, {static_cast<uint8_t>(random())}};
    if (form == 1) {
        Bytes raw(elements);
        for (uint8_t& byte : raw) byte = static_cast<uint8_t>(random());
        return {static_cast<uint8_t>(below(random, 2)), raw};
    }
    const CodeLengths code = random_code(random, form == 2 ? kMaxTableLog : 1 + static_cast<uint32_t>(below(random, 11)));
    return coded_plane(code, random_symbols(code, elements, random));
}

}  // namespace

std::vector<GoldenStream> read_golden(const std::string& directory) {
    std::ifstream list(directory + "/streams.json");
    std::vector<GoldenStream> golden;
    for (std::string line; std::getline(list, line);) {
        if (const std::string name = json_value(line, "name"); !name.empty()) {
            golden.push_back({{name, read_file(directory + "/" + name + ".zipnn"), 0}, ""});
        }
        if (const std::string size = json_value(line, "original_size"); !size.empty()) {
            golden.back().chunk.original_size = std::stoull(size);
        }
        if (const std::string digest = json_value(line, "original_sha256"); !digest.empty()) {
            golden.back().original_sha256 = digest;
        }
    }
    if (golden.empty()) fail("no streams.json in the directory");
    return golden;
}

Chunk encoded_chunk(const DtypeName& dtype, uint64_t elements, size_t kind, uint32_t block_log2, Random& random,
                    Bytes& original) {
    original = random_data(dtype, elements, kKinds[kind], random);
    return encoded_chunk(dtype, kKinds[kind].name, original, block_log2);
}

Chunk encoded_chunk(const DtypeName& dtype, const std::string& name, const Bytes& original, uint32_t block_log2) {
    Bytes stream(kHeaderSize + original.size() + 9 * dtype.bytes * ((original.size() >> block_log2) + 1));
    const int64_t size = dumont_zipnn_encode(original.data(), original.size(), stream.data(), stream.size(), dtype.dtype,
                                             block_log2);
    if (size <= 0) fail("the encoder refused");
    stream.resize(static_cast<size_t>(size));
    return {std::string(dtype.name) + " " + name + ", " + std::to_string(original.size() / dtype.bytes) +
                " elements, blocks of 2^" + std::to_string(block_log2),
            stream, original.size()};
}

Chunk handmade_chunk(const DtypeName& dtype, Random& random) {
    const uint64_t draw = below(random, 32);
    const bool beyond_huff0 = draw == 0 && dtype.bytes > 1;  // fp8 has no such blocks
    const uint64_t elements = beyond_huff0 ? kMaxHuff0Symbols + 1 + below(random, 60'000)
                              : draw < 3   ? kMaxHuff0Symbols - below(random, 9)
                                           : 6 + below(random, 6000);
    const uint32_t block_log2 = 17 + highest_bit(dtype.bytes) + beyond_huff0;
    StreamParts parts{stream_header(dtype, block_log2), elements * dtype.bytes, {}};
    for (uint32_t plane = 0; plane < dtype.bytes; ++plane) parts.planes.push_back({random_plane(elements, random)});
    return {std::string(dtype.name) + " by hand, " + std::to_string(elements) + " elements", put_together(parts),
            parts.original_size};
}

Chunk stubborn_chunk(const DtypeName& dtype, uint64_t elements, Random& random) {
    StreamParts parts{stream_header(dtype, 17 + highest_bit(dtype.bytes)), elements * dtype.bytes, {}};
    for (uint32_t plane = 0; plane < dtype.bytes; ++plane) parts.planes.push_back({stubborn_plane(elements, random)});
    return {std::string(dtype.name) + " in stubborn codes, " + std::to_string(elements) + " elements", put_together(parts),
            parts.original_size};
}

Chunk continued_chunk(const std::vector<Chunk>& streams) {
    Chunk all{"continued:", {}, 0};
    for (const Chunk& stream : streams) {
        Bytes bytes = stream.encoded;
        bytes[13] = 128 + 20;
        all.name += " " + stream.name + ";";
        all.encoded.insert(all.encoded.end(), bytes.begin(), bytes.end());
        all.original_size += stream.original_size;
    }
    return all;
}

}  // namespace dumont::test
