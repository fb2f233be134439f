// The kernels that compute BLAKE3 digests of regions, against the library's digests on the CPU.
//
// A region without neighbours lies in memory of exactly its size, so that the sanitizers see a byte read outside it.
#include <algorithm>
#include <cstdio>
#include <deque>
#include <stdexcept>

#include "blake3_batch.h"
#include "cases.h"
#include "device_memory.h"
#include "device_tables.h"
#include "machine_abi.h"

namespace dumont::test {
namespace {

constexpr uint64_t kDrawn = 60;  // batches of several regions

// Sizes at which a block, a chunk, a level of the tree, a warp or a group begins or ends.
std::vector<uint64_t> edges() {
    std::vector<uint64_t> sizes = {0, 1, 2, 3, 15, 16, 17, 31, 32, 33, 63, 64, 65, 127, 128, 129, 960, 961, 1023, 1024, 1025};
    for (uint64_t chunks : {2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 32, 33, 34, 63, 64, 65, 96, 127, 128, 129, 130, 160, 161,
                            191, 192, 193, 255, 256, 257, 258, 288, 383, 384, 385, 511, 512, 513, 640, 1023, 1024, 1025}) {
        for (int64_t more : {-1, 0, 1}) sizes.push_back(chunks * kBlake3Chunk + static_cast<uint64_t>(more));
    }
    return sizes;
}

// More groups than blake3_roots takes in one pass of its threads: 512 and 513 are a full pass, and one value beyond it.
const uint64_t kLarge[] = {512 * kBlake3GroupSize, 512 * kBlake3GroupSize + 1};

struct Piece {
    uint64_t shift;  // of its begin, from a multiple of 16
    uint64_t size;
};

// Case numbers: every edge at an aligned and at a drawn address, then drawn batches, then the large regions.
std::vector<Piece> pieces_of(uint64_t number, Random& random) {
    static const std::vector<uint64_t> sizes = edges();
    if (number < 2 * sizes.size()) return {{number % 2 == 0 ? 0 : 1 + below(random, 15), sizes[number / 2]}};
    number -= 2 * sizes.size();
    if (number >= kDrawn) return {{0, kLarge[number - kDrawn]}};
    std::vector<Piece> pieces(1 + below(random, 20));
    for (Piece& piece : pieces) {
        const uint64_t size = below(random, 2) == 0 ? sizes[below(random, sizes.size())] : below(random, 3 * kBlake3GroupSize);
        piece = {below(random, 2) * below(random, 16), below(random, 4) == 0 ? below(random, 2000) : size};
    }
    return pieces;
}

uint64_t case_count() {
    return 2 * edges().size() + kDrawn + std::size(kLarge);
}

uint64_t address_of(const uint8_t* memory) {
    return reinterpret_cast<uintptr_t>(memory);
}

struct Batch {
    std::deque<Memory> data;  // of each piece
    std::vector<uint64_t> begins, sizes;
    std::vector<Bytes> expected;
    uint64_t groups = 0;
};

Batch batch_of(const std::vector<Piece>& pieces, Random& random) {
    Batch batch;
    for (const Piece& piece : pieces) {
        Memory& memory = batch.data.emplace_back(piece.shift + piece.size);
        uint8_t* begin = memory.data() + piece.shift;
        for (uint64_t i = 0; i < piece.size; i += 8) {
            const uint64_t value = random();
            std::memcpy(begin + i, &value, std::min<uint64_t>(8, piece.size - i));
        }
        Bytes digest(kBlake3Value);
        dumont_blake3(begin, piece.size, digest.data());
        batch.expected.push_back(digest);
        batch.begins.push_back(address_of(begin));
        batch.sizes.push_back(piece.size);
        batch.groups += blake3_group_count(piece.size);
    }
    return batch;
}

// Throws what is wrong.
void check_batch(const Batch& batch, const LaunchSetting& setting) {
    const uint64_t count = batch.begins.size();
    Memory digests(count * kBlake3Value);
    Memory values(batch.groups * kBlake3Value);
    Memory table(sizeof(Blake3Batch) + count * sizeof(Blake3Region));
    const uint64_t groups = dumont_blake3_batch(batch.begins.data(), batch.sizes.data(), count, address_of(digests.data()),
                                                address_of(values.data()), address_of(table.data()), table.data());
    if (groups != batch.groups) throw std::runtime_error("another number of groups: " + std::to_string(groups));
    const auto* job = reinterpret_cast<const Blake3Batch*>(table.data());
    machine_set_order(setting.order);
    machine_set_fill(setting.fill);
    if (machine::launch("blake3_groups", static_cast<unsigned>(batch.groups), kBlake3Group, 0, job) ||
        machine::launch("blake3_roots", static_cast<unsigned>(count), kBlake3RootThreads, 0, job)) {
        throw std::runtime_error(machine_error());
    }
    for (const Memory* memory : {&digests, &values, &table}) memory->check_canaries();
    for (uint64_t i = 0; i < count; ++i) {
        const uint8_t* found = digests.data() + i * kBlake3Value;
        if (!std::equal(batch.expected[i].begin(), batch.expected[i].end(), found)) {
            throw std::runtime_error("the digest of region " + std::to_string(i) + " of " + std::to_string(count) +
                                     " is wrong; it has " + std::to_string(batch.sizes[i]) + " bytes at " +
                                     std::to_string(batch.begins[i] % 16) + " modulo 16");
        }
    }
}

int run(uint64_t first, uint64_t most) {
    constexpr uint64_t kSeed = 11;
    uint64_t cases = 0, regions = 0, bytes = 0;
    for (uint64_t number = first; number < case_count() && number - first < most; ++number) {
        Random random = random_for(kSeed, number);
        const Batch batch = batch_of(pieces_of(number, random), random);
        try {
            for (const LaunchSetting& setting : settings_for(0, random)) check_batch(batch, setting);
        } catch (const std::runtime_error& error) {
            std::fprintf(stderr, "blake3: %s\n  again: machine_run blake3 %llu 1\n", error.what(), wide(number));
            return 1;
        }
        ++cases;
        regions += batch.sizes.size();
        for (const uint64_t size : batch.sizes) bytes += size;
    }
    std::printf("blake3: %llu batches of %llu regions, %llu bytes, in 3 orders\n", wide(cases), wide(regions), wide(bytes));
    return 0;
}

const Suite suite("blake3", run);

}  // namespace
}  // namespace dumont::test
