// The encode kernels against the CPU's encoder.
//
// Rule: the same bytes. Every stream must decode, on the CPU and by the decode kernels.
#include <cstdio>
#include <cstdlib>
#include <stdexcept>

#include "encode_path.h"
#include "histograms.h"
#include "stream_parts.h"

namespace dumont::test {
namespace {

constexpr uint64_t kSourceAlignment = 16;
constexpr uint64_t kPlaces = 16;  // multiples of it in the alignment of memory

struct EncodeTally {
    uint64_t cases = 0, bytes = 0;
    uint64_t raw = 0, constant = 0, coded = 0;  // planes of blocks
    uint64_t longest_codes = 0;                 // planes whose code was cut to its limit
};

bool has_longest_codes(const Bytes& block) {
    HuffmanTree tree;
    ParseWorkspace workspace;
    if (!parse_tree(block.data(), static_cast<uint32_t>(block.size()), tree, workspace)) throw std::runtime_error("a bad tree");
    return tree.table_log == kMaxWrittenLength;
}

// Says where the device's stream differs from the CPU's; empty if nowhere.
std::string compare(const Bytes& device, const Bytes& host, EncodeTally& tally) {
    const StreamParts ours = take_apart(device);
    const StreamParts theirs = take_apart(host);
    for (size_t plane = 0; plane < ours.planes.size(); ++plane) {
        for (size_t block = 0; block < ours.planes[plane].size(); ++block) {
            const BlockPart& mine = ours.planes[plane][block];
            const BlockPart& reference = theirs.planes[plane][block];
            if (mine.type != reference.type || mine.bytes != reference.bytes) {
                return "plane " + std::to_string(plane) + " of block " + std::to_string(block) + " is not the CPU's";
            }
            const bool constant = mine.type == kHuff0Block && mine.bytes.size() == 1;
            tally.raw += mine.type == kRawBlock;
            tally.constant += constant;
            tally.coded += mine.type == kHuff0Block && !constant;
            if (mine.type == kHuff0Block && !constant) tally.longest_codes += has_longest_codes(mine.bytes);
        }
    }
    return device == host ? "" : "the same blocks, but another stream";
}

// Encodes and decodes with each of the settings; says what is wrong.
std::string check_stream(const Chunk& host, const Bytes& original, const DtypeName& dtype, uint32_t block_log2,
                         uint64_t shift, const std::vector<LaunchSetting>& settings, EncodeTally& tally) {
    Chunk device{host.name, {}, original.size()};
    for (const LaunchSetting& setting : settings) {
        Bytes stream = encode_on_device({{&original, &dtype, block_log2, shift}}, setting)[0];
        if (!device.encoded.empty() && stream != device.encoded) {
            return "another stream with order " + std::to_string(setting.order) + ", fill " + std::to_string(setting.fill);
        }
        device.encoded = std::move(stream);
    }
    const std::string wrong = compare(device.encoded, host.encoded, tally);
    if (!wrong.empty()) return wrong;
    const HostResult decoded = decode_on_host(device);
    if (decoded.status < 0 || decoded.out != original) return "the CPU decodes other bytes";
    const DeviceResult result = decode_on_device({&device}, settings.back())[0];
    if (result.host < 0 || result.worst() != kBlockGood) return "the device does not decode it";
    return contradiction(decoded, result);
}

// ---------------------------------------------------------------------------------------------------------------
// Cases.

constexpr uint64_t kCounts = 600;  // elements, from 1
constexpr uint64_t kSmall = kCounts * kDtypeCount;
constexpr uint64_t kPlaced = kPlaces * 16;  // places of the output, lengths of the last stream
constexpr uint64_t kRandom = 260;
constexpr uint64_t kManyBlocks = 5;  // more than zipnn_layout has threads
constexpr uint64_t kHidden = 10;     // see hidden_data
constexpr uint64_t kTiny = 70 * kDtypeCount;  // elements, from 1
constexpr uint64_t kShapedSizes = 8;          // see shaped_elements
constexpr uint64_t kShaped = kShapeCount * kShapedSizes * kDtypeCount;
constexpr uint64_t kEncodeCases = kSmall + kPlaced + kRandom + kManyBlocks + kHidden + kTiny + kShaped;

struct EncodeCase {
    size_t dtype;
    uint64_t elements;
    size_t kind;
    uint32_t block_log2;
    uint32_t misplace;
};

// One block, random where its sample is taken and constant elsewhere: the CPU and the device give the planes up alike.
Bytes hidden_data(const DtypeName& dtype, uint64_t elements, Random& random) {
    constexpr uint64_t kRuns = 32, kRun = 64;
    Bytes data(elements * dtype.bytes);
    for (uint64_t i = 0; i < elements; ++i) {
        if (i % (elements / kRuns) >= kRun) continue;
        for (uint32_t byte = 0; byte < dtype.bytes; ++byte) data[i * dtype.bytes + byte] = static_cast<uint8_t>(random());
    }
    return data;
}

// Sizes around those of a sample, of a vector and of a block; the last two end in a ragged block.
uint64_t shaped_elements(const DtypeName& dtype, uint64_t number, Random& random) {
    const uint64_t block = (1ull << 17) / dtype.bytes;
    switch (number) {
        case 0: return 256 + below(random, 1000);
        case 1: return 4095 - below(random, 2);
        case 2: return 4096 + below(random, 40);
        case 3: return 5000 + below(random, 5000);
        case 4: return block - 1 - below(random, 17);
        case 5: return block;
        case 6: return block + 1 + below(random, 70);
        default: return 2 * block + 4096 + below(random, 500);
    }
}

EncodeCase encode_case(uint64_t number, Random& random) {
    const auto log2 = static_cast<uint32_t>(10 + below(random, 8));
    const auto misplace = static_cast<uint32_t>(below(random, 16));
    const size_t kind = below(random, kDataKinds);
    uint64_t left = number;
    if (left < kSmall) {
        const uint64_t elements = 1 + left / kDtypeCount;
        const size_t dtype = left % kDtypeCount;
        return {dtype, elements, (elements + 3 * dtype) % kDataKinds, log2, misplace};
    }
    if ((left -= kSmall) < kPlaced) {
        constexpr size_t kBf16 = 2, kFewValues = 5;  // short enough to be coded
        return {kBf16, 40 + left / kPlaces, kFewValues, 17, static_cast<uint32_t>(left % kPlaces)};
    }
    const size_t dtype = number % kDtypeCount;
    if ((left -= kPlaced) < kRandom) {
        const uint64_t most = left % 20 == 0 ? 500'000 : 30'000;
        const uint64_t few_blocks = 4ull << log2;
        const uint64_t bytes = below(random, few_blocks < most ? few_blocks : most);
        return {dtype, 1 + bytes / kDtypes[dtype].bytes, kind, left % 20 == 0 ? 17 : log2, misplace};
    }
    if ((left -= kRandom) >= kManyBlocks) {
        if ((left -= kManyBlocks) < kHidden) return {dtype, 8192 + below(random, 20'000), kDataKinds, 17, misplace};
        if ((left -= kHidden) < kTiny) {
            return {left % kDtypeCount, 1 + left / kDtypeCount, kDataKinds + 1 + below(random, kShapeCount), 10, misplace};
        }
        left -= kTiny;
        const size_t type = left % kDtypeCount;
        return {type, shaped_elements(kDtypes[type], left / kDtypeCount % kShapedSizes, random),
                kDataKinds + 1 + left / kDtypeCount / kShapedSizes, 17, misplace};
    }
    return {dtype, (128 + below(random, 300)) * 1024 / kDtypes[dtype].bytes + below(random, 300), kind, 10, misplace};
}

// What zipnn_layout writes, if blocks are as large as no memory here holds.
std::string check_large_layout(uint64_t seed) {
    Random random = random_for(seed, 0);
    const uint32_t planes = 4;
    const auto blocks = static_cast<uint32_t>(128 * below(random, 4) + 1 + below(random, 128));
    const uint64_t entries = planes * blocks;
    std::vector<PlanePlan> plans(entries);
    for (PlanePlan& plan : plans) {
        plan.kind = static_cast<uint32_t>(below(random, 3));
        plan.size = ~0u - static_cast<uint32_t>(below(random, 1000));
    }
    Memory out(kHeaderSize + 9 * entries);
    EncodeJob job = {0, address_of(out.data()), reinterpret_cast<uintptr_t>(plans.data()), 0, blocks, 17, planes, 0};
    uint64_t size = 0;
    machine_set_order(static_cast<unsigned>(random() >> 40));
    launch_encoder("zipnn_layout", 1, 0, &job, &size);
    out.check_canaries();
    uint64_t offset = kHeaderSize + 9 * entries;
    for (uint32_t plane = 0; plane < planes; ++plane) {
        const uint64_t begin = offset;
        for (uint64_t index = plane * blocks; index < (plane + 1) * blocks; ++index) {
            const PlanePlan& plan = plans[index];
            if (plan.offset != offset) return "entry " + std::to_string(index) + " has a wrong place";
            offset += plan.size;
            if (out.data()[kHeaderSize + index] != (plan.kind == kRawPlane ? kRawBlock : kHuff0Block) ||
                load_u64(out.data() + kHeaderSize + entries + 8 * index) != offset - begin) {
                return "entry " + std::to_string(index) + " of the tables is wrong";
            }
        }
    }
    return size == offset ? "" : "a wrong size";
}

// Several chunks, of any types, in the same launches: each gets the stream that it has alone.
std::string check_batch(uint64_t seed) {
    Random random = random_for(seed, 1);
    const uint64_t count = 2 + below(random, 4);
    std::vector<Bytes> originals(count);
    std::vector<Chunk> hosts;
    std::vector<Input> inputs;
    for (uint64_t i = 0; i < count; ++i) {
        const DtypeName& dtype = kDtypes[below(random, kDtypeCount)];
        const auto block_log2 = static_cast<uint32_t>(10 + below(random, 4));
        const uint64_t elements = 1 + below(random, 3000);
        const size_t kind = below(random, kDataKinds);
        hosts.push_back(encoded_chunk(dtype, elements, kind, block_log2, random, originals[i]));
        inputs.push_back({&originals[i], &dtype, block_log2, kSourceAlignment * below(random, kPlaces)});
    }
    const std::vector<LaunchSetting> settings = settings_for(static_cast<uint32_t>(below(random, 16)), random);
    const std::vector<Bytes> streams = encode_on_device(inputs, settings[seed % settings.size()]);
    for (uint64_t i = 0; i < count; ++i) {
        if (streams[i] != hosts[i].encoded) return "of several chunks, " + hosts[i].name + " is not the CPU's";
    }
    return "";
}

int run(uint64_t first, uint64_t most) {
    constexpr uint64_t kSeed = 2;
    static const bool verbose = std::getenv("MACHINE_VERBOSE") != nullptr;
    EncodeTally tally;
    for (uint64_t number = first; number < kEncodeCases && number - first < most; ++number) {
        Random random = random_for(kSeed, number);
        const EncodeCase wanted = encode_case(number, random);
        const DtypeName& dtype = kDtypes[wanted.dtype];
        Bytes original;
        Chunk host;
        if (wanted.kind == kDataKinds) {
            original = hidden_data(dtype, wanted.elements, random);
            host = encoded_chunk(dtype, "hidden", original, wanted.block_log2);
        } else if (wanted.kind > kDataKinds) {
            const Shape& shape = kShapes[wanted.kind - kDataKinds - 1];
            original = shaped_data(dtype, shape, wanted.elements, random);
            host = encoded_chunk(dtype, shape.name, original, wanted.block_log2);
        } else {
            host = encoded_chunk(dtype, wanted.elements, wanted.kind, wanted.block_log2, random, original);
        }
        if (verbose) std::fprintf(stderr, "encode %llu: %s\n", wide(number), host.name.c_str());
        std::string wrong;
        try {
            const uint64_t shift = kSourceAlignment * (number % kPlaces);
            std::vector<LaunchSetting> settings = settings_for(wanted.misplace, random);
            const bool two_will_do = number < kSmall || wanted.kind > kDataKinds;
            if (two_will_do) settings.erase(settings.begin() + static_cast<std::ptrdiff_t>(number % 3));
            wrong = check_stream(host, original, dtype, wanted.block_log2, shift, settings, tally);
            if (wrong.empty() && number % 100 == 0) wrong = check_large_layout(number);
            if (wrong.empty() && number % 10 == 0) wrong = check_batch(number);
        } catch (const std::runtime_error& error) {
            wrong = error.what();
        }
        if (!wrong.empty()) {
            std::fprintf(stderr, "%s: %s\n  again: machine_run encode %llu 1\n", host.name.c_str(), wrong.c_str(),
                         wide(number));
            return 1;
        }
        ++tally.cases;
        tally.bytes += original.size();
    }
    std::printf("encode: %llu cases, %llu bytes, in 2 or 3 orders, all as the CPU's; %llu raw, %llu constant, %llu coded "
                "planes of blocks, %llu with codes at their limit\n",
                wide(tally.cases), wide(tally.bytes), wide(tally.raw), wide(tally.constant), wide(tally.coded),
                wide(tally.longest_codes));
    return 0;
}

const Suite suite("encode", run);

}  // namespace
}  // namespace dumont::test
