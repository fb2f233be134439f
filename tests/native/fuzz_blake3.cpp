// Hashes random pieces of random buffers, each buffer being a heap block of exactly its size.
//
//   fuzz_blake3 COUNT SEED
//
// Built with AddressSanitizer, so that one byte too far aborts. On every CPU path, pieces together and pieces alone must give the
// digests that the plain definition gives: a tree split at the largest power of two, one block after the other.
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <vector>

#include "blake3.h"
#include "damage.h"
#include "dumont_cpu.h"

namespace {

using namespace dumont;
using namespace dumont::test;

struct Value {
    uint32_t words[8];
};

void compress(Value& value, const uint8_t* bytes, uint32_t size, uint64_t counter, uint32_t flags) {
    uint8_t block[kBlake3Block] = {};
    std::copy(bytes, bytes + size, block);
    uint32_t message[16];
    for (uint32_t i = 0; i < 16; ++i) message[i] = load_u32(block + 4 * i);
    blake3_compress<uint32_t>(value.words, message,
                              {static_cast<uint32_t>(counter), static_cast<uint32_t>(counter >> 32), size, flags});
}

Value start() {
    Value value;
    for (uint32_t i = 0; i < 8; ++i) value.words[i] = blake3_start(i);
    return value;
}

Value plain_tree(const uint8_t* data, uint64_t size, uint64_t counter, uint32_t root) {
    Value value = start();
    if (size <= kBlake3Chunk) {
        uint64_t begin = 0;
        do {
            const uint32_t part = static_cast<uint32_t>(std::min<uint64_t>(size - begin, kBlake3Block));
            const bool last = begin + part == size;
            compress(value, data + begin, part, counter, (begin == 0 ? kChunkStart : 0u) | (last ? kChunkEnd | root : 0u));
            begin += part;
        } while (begin < size);
        return value;
    }
    uint64_t left = kBlake3Chunk;
    while (2 * left < size) left *= 2;
    const Value children[2] = {plain_tree(data, left, counter, 0),
                               plain_tree(data + left, size - left, counter + left / kBlake3Chunk, 0)};
    compress(value, reinterpret_cast<const uint8_t*>(children), sizeof children, 0, kParent | root);
    return value;
}

void expect(const Bytes& digest, const Value& value, const char* what) {
    if (std::memcmp(digest.data(), value.words, sizeof value) != 0) fail(what);
}

uint64_t random_size(Random& random) {
    constexpr uint64_t kMost[] = {70, 1100, 5000, 20'000, 70'000, 1'200'000};
    const uint64_t size = below(random, kMost[std::min<uint64_t>(below(random, 60) / 9, 5)]);
    return below(random, 3) == 0 ? size / kBlake3Chunk * kBlake3Chunk + below(random, 3) : size;
}

}  // namespace

int main(int argc, char** argv) {
    if (argc != 3) {
        std::fprintf(stderr, "usage: fuzz_blake3 COUNT SEED\n");
        return 2;
    }
    const uint64_t count = std::strtoull(argv[1], nullptr, 10);
    Random random(std::strtoull(argv[2], nullptr, 10));
    uint64_t hashed = 0, bytes = 0;
    for (uint64_t round = 0; round < count; ++round) {
        std::vector<uint64_t> begins(below(random, 80)), sizes(begins.size());
        uint64_t total = 0;
        for (uint64_t& size : sizes) total = std::max(total, size = random_size(random));
        total += below(random, 64);
        for (size_t i = 0; i < sizes.size(); ++i) begins[i] = below(random, total - sizes[i] + 1);
        const std::unique_ptr<uint8_t[]> data(new uint8_t[total]);
        for (uint64_t i = 0; i < total; ++i) data[i] = static_cast<uint8_t>(random());
        for (const char* path : {"portable", "avx2", "avx512", "neon"}) {
            if (dumont_select_cpu_path(path) != 0) continue;
            const std::unique_ptr<uint8_t[]> out(new uint8_t[32 * sizes.size()]);
            if (dumont_blake3_many(data.get(), total, begins.data(), sizes.data(), sizes.size(), out.get()) != 0) {
                fail("a piece inside the buffer was refused");
            }
            for (size_t i = 0; i < sizes.size(); ++i) {
                const Bytes piece(data.get() + begins[i], data.get() + begins[i] + sizes[i]);
                const Value value = plain_tree(piece.data(), piece.size(), 0, kRoot);
                expect(Bytes(out.get() + 32 * i, out.get() + 32 * i + 32), value, "a piece among others has another digest");
                Bytes alone(32);
                dumont_blake3(piece.data(), piece.size(), alone.data());
                expect(alone, value, "a piece alone has another digest");
                hashed += 1;
                bytes += piece.size();
            }
            if (sizes.empty()) continue;
            ++sizes.back();
            begins.back() = total - sizes.back() + 1;
            if (dumont_blake3_many(data.get(), total, begins.data(), sizes.data(), sizes.size(), out.get()) == 0) {
                fail("a piece outside the buffer was hashed");
            }
            --sizes.back();
            begins.back() = 0;
        }
    }
    std::printf("blake3: %llu digests of %llu bytes\n", static_cast<unsigned long long>(hashed),
                static_cast<unsigned long long>(bytes));
    return 0;
}
