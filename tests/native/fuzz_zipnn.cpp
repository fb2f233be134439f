// Attacks the ZipNN codec with damaged streams and cramped buffers.
//
//   fuzz_zipnn corrupt DIRECTORY COUNT SEED    damages golden streams; decodes each on every CPU path
//   fuzz_zipnn roundtrip COUNT SEED            encodes random inputs into exact and too small buffers, decodes them
//
// Built with AddressSanitizer, every buffer being a heap block of exactly its size, so that one byte too far aborts.
// All paths must agree on the status and, where the stream decodes, on every byte. Prints one line at the end.
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <iterator>
#include <memory>
#include <string>
#include <vector>

#include "damage.h"
#include "device_tables.h"
#include "dumont_cpu.h"
#include "zipnn.h"
#include "zipnn_blocks.h"

namespace {

using namespace dumont::test;

constexpr size_t kCanary = 64;  // for builds without a sanitizer
constexpr uint64_t kMaxOutput = 1 << 20;

std::vector<std::string> available_paths() {
    std::vector<std::string> paths;
    for (const char* name : {"portable", "avx2", "avx512", "neon"}) {
        if (dumont_select_cpu_path(name) == 0) paths.push_back(name);
    }
    return paths;
}

// A heap block with exactly `size` usable bytes, filled with a pattern. With canaries the check does not need ASan.
class Guarded {
public:
    Guarded(size_t size, uint8_t fill) : size_(size), block_(new uint8_t[size + canary()]) {
        std::memset(block_.get(), fill, size);
        std::memset(block_.get() + size, 0xC7, canary());
    }
    uint8_t* data() { return block_.get(); }
    void check() const {
        for (size_t i = 0; i < canary(); ++i) {
            if (block_[size_ + i] != 0xC7) fail("write past the end");
        }
    }

private:
    static constexpr size_t canary() {
#if defined(__SANITIZE_ADDRESS__)
        return 0;  // the red zone starts at the first byte too far
#else
        return kCanary;
#endif
    }
    size_t size_;
    std::unique_ptr<uint8_t[]> block_;
};

struct Outcome {
    int64_t status;
    Bytes bytes;
};

Outcome decode(const Bytes& stream, uint64_t size, uint8_t fill) {
    Guarded source(stream.size(), 0);
    if (!stream.empty()) std::memcpy(source.data(), stream.data(), stream.size());
    Guarded out(size, fill);
    const int64_t status = dumont_zipnn_decode(source.data(), stream.size(), out.data(), size);
    out.check();
    if (status >= 0 && status != static_cast<int64_t>(size)) fail("neither a size nor a status");
    return {status, Bytes(out.data(), out.data() + size)};
}

// Decodes on every path; the output starts out different on each, so that a byte left unwritten is a difference.
Outcome decode_everywhere(const Bytes& stream, uint64_t size, const std::vector<std::string>& paths) {
    Outcome first{};
    for (size_t i = 0; i < paths.size(); ++i) {
        dumont_select_cpu_path(paths[i].c_str());
        Outcome outcome = decode(stream, size, static_cast<uint8_t>(0x5A + i));
        if (i == 0) {
            first = std::move(outcome);
            continue;
        }
        if (outcome.status != first.status) fail("paths disagree on the status");
        if (outcome.status >= 0 && outcome.bytes != first.bytes) fail("paths disagree on the bytes");
    }
    return first;
}

// What a device would be told of the stream: the listing reads no byte beyond it, and says what is wrong with a status.
void list_for_device(const Bytes& stream, uint64_t size) {
    const Bytes exact(stream);  // a heap block of its size
    std::vector<dumont::DeviceBlock> blocks(stream.size() / dumont::kTableEntry + 1);
    const int64_t status = dumont_zipnn_device_blocks(exact.data(), exact.size(), size, 0, 0, blocks.data(), blocks.size());
    if (status < 0 && status != DUMONT_DAMAGED && status != DUMONT_UNSUPPORTED) {
        fail("a status that the listing may not return");
    }
}

int corrupt(const char* directory, uint64_t count, uint64_t seed) {
    const std::vector<Bytes> corpus = read_corpus(directory);
    const std::vector<std::string> paths = available_paths();
    std::vector<Targets> targets;
    for (const Bytes& stream : corpus) {
        targets.push_back(find_targets(stream));
        const uint64_t size = dumont::load_u64(stream.data() + 16);
        if (decode_everywhere(stream, size, paths).status < 0) fail("a golden stream does not decode");
    }
    Random random(seed);
    uint64_t decoded = 0, damaged = 0, unsupported = 0;
    for (uint64_t i = 0; i < count; ++i) {
        const size_t pick = below(random, corpus.size());
        Bytes stream = corpus[pick];
        const uint64_t original = dumont::load_u64(stream.data() + 16);
        for (uint64_t n = 1 + below(random, 3); n > 0 && !stream.empty(); --n) {
            mutate(stream, targets[pick], corpus, random);
        }
        // Decode into what the stream claims where that is affordable, so that a changed size is not refused at once.
        const uint64_t claimed = stream.size() < 24 ? original : dumont::load_u64(stream.data() + 16);
        list_for_device(stream, claimed <= kMaxOutput ? claimed : original);
        const Outcome outcome = decode_everywhere(stream, claimed <= kMaxOutput ? claimed : original, paths);
        decoded += outcome.status >= 0;
        damaged += outcome.status == DUMONT_DAMAGED;
        unsupported += outcome.status == DUMONT_UNSUPPORTED;
    }
    if (decoded + damaged + unsupported != count) fail("a status that decode may not return");
    std::printf("corrupt: %llu streams from %zu golden ones on %zu paths: %llu decoded, %llu damaged, "
                "%llu unsupported\n",
                static_cast<unsigned long long>(count), corpus.size(), paths.size(),
                static_cast<unsigned long long>(decoded), static_cast<unsigned long long>(damaged),
                static_cast<unsigned long long>(unsupported));
    return 0;
}

Bytes random_input(Random& random, uint32_t element) {
    const uint64_t limit = below(random, 8) == 0 ? 300'000 : below(random, 4) == 0 ? 20'000 : 700;
    Bytes bytes(below(random, limit) / element * element);
    const uint64_t kind = below(random, 6);
    const uint8_t base = static_cast<uint8_t>(random());
    const uint64_t alphabet = 1 + below(random, 256);
    for (size_t i = 0; i < bytes.size(); ++i) {
        const uint64_t draw = random();
        switch (kind) {
            case 0: bytes[i] = static_cast<uint8_t>(draw); break;
            case 1: bytes[i] = base; break;
            case 2: bytes[i] = static_cast<uint8_t>(base + (draw == 0 ? 63 : __builtin_ctzll(draw))); break;
            case 3: bytes[i] = static_cast<uint8_t>(base + (draw & draw >> 8 & draw >> 16 & 0xFF) % alphabet); break;
            case 4: bytes[i] = static_cast<uint8_t>(i < bytes.size() / 2 ? base : draw % alphabet); break;
            default: bytes[i] = static_cast<uint8_t>(draw % 16 == 0 ? draw >> 8 : base + i / element % element); break;
        }
    }
    return bytes;
}

int64_t encode_into(const Bytes& input, uint64_t capacity, uint32_t dtype, uint32_t block_log2, Bytes& stream) {
    Guarded source(input.size(), 0);
    if (!input.empty()) std::memcpy(source.data(), input.data(), input.size());
    Guarded out(capacity, 0);
    const int64_t size = dumont_zipnn_encode(source.data(), input.size(), out.data(), capacity, dtype, block_log2);
    out.check();
    if (size < 0 || static_cast<uint64_t>(size) > capacity) fail("encode returned an impossible size");
    stream.assign(out.data(), out.data() + size);
    return size;
}

int roundtrip(uint64_t count, uint64_t seed) {
    constexpr struct { uint32_t dtype, bytes; } kTypes[] = {
        {DUMONT_FP32, 4}, {DUMONT_FP16, 2}, {DUMONT_BF16, 2}, {DUMONT_FP8_E4M3, 1}, {DUMONT_FP8_E5M2, 1}};
    const std::vector<std::string> paths = available_paths();
    Random random(seed);
    uint64_t original = 0, encoded = 0;
    for (uint64_t i = 0; i < count; ++i) {
        const auto type = kTypes[below(random, std::size(kTypes))];
        const auto block_log2 = static_cast<uint32_t>(10 + below(random, 8));
        const Bytes input = random_input(random, type.bytes);
        const uint64_t most = 32 + input.size() + 9 * type.bytes * (input.size() / (1u << block_log2) + 1);
        Bytes stream, exact, small;
        dumont_select_cpu_path(paths[0].c_str());
        const int64_t size = encode_into(input, most, type.dtype, block_log2, stream);
        if (size == 0) fail("a roomy buffer was too small");
        dumont_select_cpu_path(paths[below(random, paths.size())].c_str());
        if (encode_into(input, stream.size(), type.dtype, block_log2, exact) != size || exact != stream) {
            fail("an exact buffer gave another stream");
        }
        for (const uint64_t cramped : {stream.size() - 1, below(random, stream.size())}) {
            if (encode_into(input, cramped, type.dtype, block_log2, small) != 0) fail("it fitted into too little");
        }
        const Outcome outcome = decode_everywhere(stream, input.size(), paths);
        if (outcome.status < 0 || outcome.bytes != input) fail("the round trip changed the bytes");
        if (decode_everywhere(stream, input.size() + 1, paths).status != DUMONT_DAMAGED) fail("a wrong size passed");
        original += input.size();
        encoded += stream.size();
        if (!input.empty()) {
            float fractions[DUMONT_PROBE_COUNT];
            dumont_probe(input.data(), input.size(), fractions);
        }
    }
    std::printf("roundtrip: %llu inputs on %zu paths, %llu bytes as %llu\n", static_cast<unsigned long long>(count),
                paths.size(), static_cast<unsigned long long>(original), static_cast<unsigned long long>(encoded));
    return 0;
}

}  // namespace

int main(int argc, char** argv) {
    if (argc == 5 && std::strcmp(argv[1], "corrupt") == 0) {
        return corrupt(argv[2], std::strtoull(argv[3], nullptr, 10), std::strtoull(argv[4], nullptr, 10));
    }
    if (argc == 4 && std::strcmp(argv[1], "roundtrip") == 0) {
        return roundtrip(std::strtoull(argv[2], nullptr, 10), std::strtoull(argv[3], nullptr, 10));
    }
    std::fprintf(stderr, "usage: fuzz_zipnn corrupt DIRECTORY COUNT SEED | fuzz_zipnn roundtrip COUNT SEED\n");
    return 2;
}
