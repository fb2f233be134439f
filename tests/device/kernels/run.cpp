// The CUDA kernels on the PTX machine against the CPU codec, which is the oracle.
//
//   machine_run streams DIRECTORY [FIRST [COUNT]]     golden streams, and streams of every shape and kind of data
//   machine_run corrupt DIRECTORY COUNT SEED [FIRST]  damaged ones
//   machine_run SUITE [FIRST [COUNT]]                 the cases of suites/SUITE.cpp
//
// DIRECTORY is tests/golden/streams. Every case is decoded with several orders of the threads and contents of uninitialised
// memory. Prints one line; at the first difference, the case and the command that repeats it. With MACHINE_VERBOSE in the
// environment each case is named before it runs, so that one that hangs is known.
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <stdexcept>

#include "cases.h"
#include "dumont_cpu.h"
#include "sha256.h"
#include "streams.h"

using namespace dumont;
using namespace dumont::test;

const Suite* Suite::all = nullptr;  // before any suite registers itself: a constant

namespace {

// A quarter of the cases.
uint32_t random_misplace(uint64_t number, Random& random) {
    return static_cast<uint32_t>(number % 4 == 3 ? 1 + below(random, 15) : 0);
}

struct Tally {
    uint64_t cases = 0, chunks = 0, bytes = 0;
    uint64_t blocks[kMaxPlanes + 1] = {};  // by coded planes
    uint64_t long_codes = 0;               // blocks left to the CPU
    uint64_t good = 0, refused = 0, damaged = 0, unsupported = 0;  // chunks, as the CPU says
    uint64_t found[kLongCodes + 1] = {};                           // damaged chunks, by their worst status; 0: by the host
};

void count(const Chunk& chunk, const HostResult& host, const DeviceResult& device, Tally& tally) {
    ++tally.chunks;
    tally.bytes += chunk.original_size;
    for (const DeviceBlockResult& block : device.blocks) {
        ++tally.blocks[__builtin_popcount(block.coded)];
        tally.long_codes += block.status == kLongCodes;
    }
    tally.good += host.status >= 0;
    tally.refused += host.status >= 0 && device.host < 0;
    tally.damaged += host.status == DUMONT_DAMAGED;
    tally.unsupported += host.status == DUMONT_UNSUPPORTED;
    if (host.status < 0) ++tally.found[device.worst()];
}

bool same(const DeviceResult& a, const DeviceResult& b) {
    if (a.host != b.host || a.out != b.out || a.blocks.size() != b.blocks.size()) return false;
    for (size_t i = 0; i < a.blocks.size(); ++i) {
        if (a.blocks[i].status != b.blocks[i].status) return false;
    }
    return true;
}

// Decodes the chunks together, once with each setting.
void check_case(const std::vector<Chunk>& chunks, const std::vector<LaunchSetting>& settings, Tally& tally) {
    std::vector<const Chunk*> batch;
    std::vector<HostResult> expected;
    for (const Chunk& chunk : chunks) {
        batch.push_back(&chunk);
        expected.push_back(decode_on_host(chunk));
    }
    std::vector<DeviceResult> first;
    for (const LaunchSetting& setting : settings) {
        const std::vector<DeviceResult> results = decode_on_device(batch, setting);
        if (first.empty()) first = results;
        for (size_t i = 0; i < chunks.size(); ++i) {
            std::string wrong = contradiction(expected[i], results[i]);
            if (wrong.empty() && !same(first[i], results[i])) {
                wrong = "another result with order " + std::to_string(setting.order) + ", fill " +
                        std::to_string(setting.fill);
            }
            if (wrong.empty() && expected[i].status >= 0 && results[i].host < 0 && !device_may_refuse(chunks[i])) {
                wrong = "the host lists no blocks, for no known reason";
            }
            if (!wrong.empty()) throw std::runtime_error(chunks[i].name + ": " + wrong);
        }
    }
    for (size_t i = 0; i < chunks.size(); ++i) count(chunks[i], expected[i], first[i], tally);
    ++tally.cases;
}

std::string names(const std::vector<Chunk>& chunks) {
    std::string text;
    for (const Chunk& chunk : chunks) text += (text.empty() ? "" : " + ") + chunk.name;
    return text;
}

// Runs one case, named; returns false if it fails.
bool run_case(const std::vector<Chunk>& chunks, const std::vector<LaunchSetting>& settings, bool far,
              const std::string& repeat, Tally& tally) {
    static const bool verbose = std::getenv("MACHINE_VERBOSE") != nullptr;
    if (verbose) std::fprintf(stderr, "%s: %s\n", repeat.c_str(), names(chunks).c_str());
    try {
        check_case(chunks, settings, tally);
        if (far) check_far_offsets(chunks[0]);
        return true;
    } catch (const std::runtime_error& error) {
        std::fprintf(stderr, "%s\n  in %s\n  again: machine_run %s\n", error.what(), names(chunks).c_str(), repeat.c_str());
        return false;
    }
}

// ---------------------------------------------------------------------------------------------------------------
// streams

struct Wanted {
    std::vector<Chunk> chunks;
    std::vector<Bytes> originals;  // of those that are known
    uint32_t misplace = 0;
};

void add_encoded(Wanted& wanted, const DtypeName& dtype, uint64_t elements, size_t kind, uint32_t block_log2,
                 Random& random) {
    Bytes original;
    wanted.chunks.push_back(encoded_chunk(dtype, elements, kind, block_log2, random, original));
    wanted.originals.push_back(original);
}

uint32_t random_block_log2(Random& random) {
    return 10 + static_cast<uint32_t>(below(random, 8));
}

void add_random(Wanted& wanted, uint64_t most_bytes, Random& random) {
    const DtypeName& dtype = kDtypes[below(random, kDtypeCount)];
    const uint32_t block_log2 = random_block_log2(random);
    const uint64_t few_blocks = 4ull << block_log2;
    const uint64_t bytes = below(random, 1 + (few_blocks < most_bytes ? few_blocks : most_bytes));
    add_encoded(wanted, dtype, bytes / dtype.bytes, below(random, kDataKinds), block_log2, random);
}

constexpr uint64_t kSmallestCounts = 601;
constexpr uint64_t kLarge = 200;
constexpr uint64_t kHandmade = 500;
constexpr uint64_t kContinued = 50;
constexpr uint64_t kBatches = 100;
constexpr uint64_t kFar = 19;  // one case in so many is decoded at large offsets too
constexpr uint64_t kPlacedCounts = 130;
constexpr uint64_t kPlaces = 16;
constexpr uint64_t kPlaced = kPlaces * kPlacedCounts;
constexpr uint64_t kEveryPlace = kPlaces * kDtypeCount * 8;
constexpr uint64_t kStubborn = 400;
constexpr uint64_t kGenerated =
    kSmallestCounts * kDtypeCount + kLarge + kHandmade + kContinued + kBatches + kPlaced + kEveryPlace + kStubborn;

Wanted generated_case(uint64_t number, Random& random) {
    Wanted wanted;
    wanted.misplace = random_misplace(number, random);
    uint64_t left = number;
    if (left < kSmallestCounts * kDtypeCount) {
        const uint64_t elements = left / kDtypeCount;
        const uint64_t dtype = left % kDtypeCount;
        // Each count with one kind of data, another for each type.
        const uint64_t kind = (elements + 3 * dtype) % kDataKinds;
        add_encoded(wanted, kDtypes[dtype], elements, kind, 10 + elements / kDataKinds % 8, random);
        return wanted;
    }
    left -= kSmallestCounts * kDtypeCount;
    if (left < kLarge) {
        add_random(wanted, left % 20 == 0 ? 400'000 : 40'000, random);
    } else if ((left -= kLarge) < kHandmade) {
        wanted.chunks.push_back(handmade_chunk(kDtypes[left % kDtypeCount], random));
    } else if ((left -= kHandmade) < kContinued) {
        for (uint64_t n = 1 + below(random, 4); n > 0; --n) add_random(wanted, 6'000, random);
        wanted.chunks = {continued_chunk(wanted.chunks)};
        Bytes all;
        for (const Bytes& original : wanted.originals) all.insert(all.end(), original.begin(), original.end());
        wanted.originals = {all};
    } else if ((left -= kContinued) < kPlaced) {
        // Every place of an output relative to 16 bytes, with every end of the last of the four streams.
        wanted.misplace = static_cast<uint32_t>(left % kPlaces);
        constexpr DtypeName kBf16 = kDtypes[2];
        constexpr size_t kFewValues = 5;  // short enough to be coded
        add_encoded(wanted, kBf16, 12 + left / kPlaces, kFewValues, 17, random);
    } else if ((left -= kPlaced) < kEveryPlace) {
        // And with every type, any planes, in streams of several rounds and of less than one.
        wanted.misplace = static_cast<uint32_t>(left % kPlaces);
        const DtypeName& dtype = kDtypes[left / kPlaces % kDtypeCount];
        const uint64_t turn = left / (kPlaces * kDtypeCount);
        if (turn < 4) {
            constexpr size_t kGauss = 0;
            add_encoded(wanted, dtype, turn < 2 ? 20'000 + below(random, 20) : 1 + below(random, 400),
                        turn % 2 == 0 ? kGauss : below(random, kDataKinds), 17, random);
        } else if (turn < 6) {
            wanted.chunks.push_back(handmade_chunk(dtype, random));
        } else {
            wanted.chunks.push_back(stubborn_chunk(dtype, 6 + below(random, 3'000), random));
        }
    } else if ((left -= kEveryPlace) < kStubborn) {
        const uint64_t most = left % 4 == 0 ? 300 : left % 4 == 1 ? 120'000 : 20'000;
        wanted.chunks.push_back(stubborn_chunk(kDtypes[left % kDtypeCount], 6 + below(random, most), random));
    } else {
        for (uint64_t n = 2 + below(random, 7); n > 0; --n) add_random(wanted, 12'000, random);
        if (number % 2 == 0) wanted.chunks.push_back(handmade_chunk(kDtypes[number % kDtypeCount], random));
    }
    return wanted;
}

std::string check_originals(const Wanted& wanted, const std::string& digest) {
    for (size_t i = 0; i < wanted.chunks.size(); ++i) {
        const HostResult host = decode_on_host(wanted.chunks[i]);
        if (host.status < 0) return "the CPU does not decode it";
        if (i < wanted.originals.size() && host.out != wanted.originals[i]) return "the CPU decodes other bytes";
        if (!digest.empty() && sha256(host.out) != digest) return "the CPU's bytes have another digest";
    }
    return "";
}

int run_streams(const std::string& directory, uint64_t first, uint64_t most) {
    constexpr uint64_t kSeed = 1;
    const std::vector<GoldenStream> golden = read_golden(directory);
    const uint64_t total = golden.size() + kGenerated;
    Tally tally;
    for (uint64_t number = first; number < total && number - first < most; ++number) {
        Random random = random_for(kSeed, number);
        const bool is_golden = number < golden.size();
        const Wanted wanted =
            is_golden ? Wanted{{golden[number].chunk}, {}, 0} : generated_case(number - golden.size(), random);
        const std::string repeat = "streams " + directory + " " + std::to_string(number) + " 1";
        const std::string wrong = check_originals(wanted, is_golden ? golden[number].original_sha256 : "");
        if (!wrong.empty()) {
            std::fprintf(stderr, "%s: %s\n  again: machine_run %s\n", names(wanted.chunks).c_str(), wrong.c_str(),
                         repeat.c_str());
            return 1;
        }
        if (!run_case(wanted.chunks, settings_for(wanted.misplace, random), number % kFar == 0, repeat, tally)) return 1;
        if (tally.refused != 0) {
            std::fprintf(stderr, "%s: left to the CPU\n", names(wanted.chunks).c_str());
            return 1;
        }
    }
    std::string blocks;
    for (const uint64_t of_class : tally.blocks) blocks += (blocks.empty() ? "" : "/") + std::to_string(of_class);
    std::printf("streams: %llu cases of %llu chunks, %llu bytes, in 3 orders; %s blocks of 0/1/2/3/4 coded planes, "
                "%llu with long codes\n",
                wide(tally.cases), wide(tally.chunks), wide(tally.bytes), blocks.c_str(), wide(tally.long_codes));
    return 0;
}

// ---------------------------------------------------------------------------------------------------------------
// corrupt

// What damage starts from: the golden streams, and small ones with few blocks, so that most of them is block inside.
std::vector<Chunk> good_chunks(const std::string& directory, uint64_t seed) {
    std::vector<Chunk> chunks;
    for (GoldenStream& golden : read_golden(directory)) chunks.push_back(std::move(golden.chunk));
    Random random(seed);
    for (size_t i = 0; i < 60; ++i) {
        Wanted wanted;
        add_encoded(wanted, kDtypes[i % kDtypeCount], 100 + below(random, 3'000), i / kDtypeCount % kDataKinds,
                    13 + static_cast<uint32_t>(below(random, 5)), random);
        chunks.push_back(wanted.chunks[0]);
    }
    for (size_t i = 0; i < 40; ++i) chunks.push_back(handmade_chunk(kDtypes[i % kDtypeCount], random));
    for (size_t i = 0; i < 20; ++i) {
        chunks.push_back(stubborn_chunk(kDtypes[i % kDtypeCount], 6 + below(random, 9'000), random));
    }
    for (size_t i = 0; i < 5; ++i) {
        chunks.push_back(continued_chunk({chunks[chunks.size() - 3 * i - 20], chunks[chunks.size() - 50]}));
    }
    return chunks;
}

int run_corrupt(const std::string& directory, uint64_t count, uint64_t seed, uint64_t first) {
    const std::vector<Chunk> good = good_chunks(directory, seed);
    std::vector<Bytes> corpus;
    for (const Chunk& chunk : good) corpus.push_back(chunk.encoded);
    Tally tally;
    for (uint64_t number = first; number - first < count; ++number) {
        Random random = random_for(seed, number);
        const Chunk& source = good[below(random, good.size())];
        std::vector<Chunk> chunks = {damaged_chunk(source, corpus, random)};
        if (number % 8 == 0) chunks.push_back(good[below(random, good.size())]);  // whose neighbour may not suffer
        std::vector<LaunchSetting> settings = settings_for(random_misplace(number, random), random);
        settings.erase(settings.begin() + static_cast<std::ptrdiff_t>(number % 2));  // first or last, and a drawn one
        const std::string repeat = "corrupt " + directory + " 1 " + std::to_string(seed) + " " + std::to_string(number);
        if (!run_case(chunks, settings, false, repeat, tally)) return 1;
    }
    std::printf("corrupt: %llu cases of %llu chunks from %llu good ones: %llu still decode (%llu left to the CPU, %llu "
                "blocks with long codes); ",
                wide(tally.cases), wide(tally.chunks), wide(good.size()), wide(tally.good), wide(tally.refused),
                wide(tally.long_codes));
    std::printf("%llu damaged, %llu unsupported: found by the host %llu, as tree %llu, jump table %llu, stream %llu, "
                "long codes %llu\n",
                wide(tally.damaged), wide(tally.unsupported), wide(tally.found[kBlockGood]), wide(tally.found[kBadTree]),
                wide(tally.found[kBadJumpTable]), wide(tally.found[kBadStream]), wide(tally.found[kLongCodes]));
    return 0;
}

uint64_t number_or(int argc, char** argv, int index, uint64_t otherwise) {
    return index < argc ? std::strtoull(argv[index], nullptr, 10) : otherwise;
}

}  // namespace

int main(int argc, char** argv) {
    if (argc >= 3 && argc <= 5 && std::strcmp(argv[1], "streams") == 0) {
        return run_streams(argv[2], number_or(argc, argv, 3, 0), number_or(argc, argv, 4, kMostCases));
    }
    if (argc >= 5 && argc <= 6 && std::strcmp(argv[1], "corrupt") == 0) {
        return run_corrupt(argv[2], number_or(argc, argv, 3, 0), number_or(argc, argv, 4, 0), number_or(argc, argv, 5, 0));
    }
    for (const Suite* suite = Suite::all; suite != nullptr; suite = suite->next) {
        if (argc >= 2 && argc <= 4 && std::strcmp(argv[1], suite->name) == 0) {
            return suite->run(number_or(argc, argv, 2, 0), number_or(argc, argv, 3, kMostCases));
        }
    }
    std::fprintf(stderr, "usage: machine_run streams DIRECTORY [FIRST [COUNT]] | corrupt DIRECTORY COUNT SEED [FIRST]");
    for (const Suite* suite = Suite::all; suite != nullptr; suite = suite->next) {
        std::fprintf(stderr, " |\n       %s [FIRST [COUNT]]", suite->name);
    }
    std::fprintf(stderr, "\n");
    return 2;
}
