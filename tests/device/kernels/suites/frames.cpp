// The kernels that put LZ4 frames together, against a loop that does the same. They never look inside a block, so any
// bytes serve as compressed ones.
#include <cstdio>
#include <stdexcept>

#include "cases.h"
#include "device_memory.h"
#include "machine_abi.h"
#include "lz4_blocks.h"

namespace dumont::test {
namespace {

constexpr uint64_t kReadAhead = 4;  // bytes after the source that the kernel may read, as load_unaligned does
constexpr uint64_t kSmallFrames = 400;  // every size from 1
constexpr uint64_t kFrames = 1200;      // the others of any size up to the largest
constexpr uint64_t kLargestFrame = 200'000;
constexpr uint64_t kManyBlocks = 4;  // cases with more blocks than lz4_layout has threads, nearly all of them small

struct FrameCase {
    uint64_t size;
    std::vector<uint64_t> compressed_size;  // as nvCOMP reports it, of each block
    std::vector<int32_t> status;            // likewise; 0 is good
    uint64_t shift;                         // of the output, from a multiple of 16
};

uint64_t original_size(const FrameCase& frame, uint64_t block) {
    return std::min<uint64_t>(frame.size - block * kLz4BlockSize, kLz4BlockSize);
}

uint64_t any_compressed_size(uint64_t original, Random& random) {
    switch (below(random, 8)) {
        case 0: return 0;
        case 1: return original;
        case 2: return original + 1 + below(random, kLz4BlockRoom - original);
        case 3: return original - 1;
        case 4: return 1;
        default: return 1 + below(random, original);
    }
}

FrameCase frame_case(uint64_t number, Random& random) {
    FrameCase frame;
    const bool many = number >= kFrames;
    const uint64_t edge = kLz4BlockSize * (1 + below(random, 3)) - 4 + below(random, 9);
    frame.size = many                    ? (128 * (number - kFrames) + 1 + below(random, 130)) * kLz4BlockSize - below(random, 20)
                 : number < kSmallFrames ? number + 1
                 : number % 4 == 0       ? edge
                                         : 1 + below(random, kLargestFrame);
    frame.shift = number % 16;
    const uint64_t blocks = (frame.size + kLz4BlockSize - 1) / kLz4BlockSize;
    for (uint64_t block = 0; block < blocks; ++block) {
        const uint64_t original = original_size(frame, block);
        frame.status.push_back(below(random, 12) == 0 ? 12 : 0);
        frame.compressed_size.push_back(many && below(random, 50) != 0 ? 1 + below(random, std::min<uint64_t>(original, 60))
                                                                       : any_compressed_size(original, random));
    }
    return frame;
}

void append_u32(Bytes& bytes, uint64_t value) {
    for (uint32_t i = 0; i < 4; ++i) bytes.push_back(static_cast<uint8_t>(value >> (8 * i)));
}

// The frame but for its header.
Bytes frame_on_host(const FrameCase& frame, const uint8_t* source, const uint8_t* compressed) {
    Bytes bytes;
    for (uint64_t block = 0; block < frame.compressed_size.size(); ++block) {
        const uint64_t original = original_size(frame, block);
        const uint64_t size = frame.compressed_size[block];
        const bool raw = frame.status[block] != 0 || size == 0 || size >= original;
        append_u32(bytes, raw ? original | kLz4RawBit : size);
        const uint8_t* from = raw ? source + block * kLz4BlockSize : compressed + block * kLz4BlockRoom;
        bytes.insert(bytes.end(), from, from + (raw ? original : size));
    }
    append_u32(bytes, 0);
    return bytes;
}

void fill_random(uint8_t* begin, uint64_t size, Random& random) {
    for (uint64_t i = 0; i < size; i += 8) {
        const uint64_t value = random();
        std::memcpy(begin + i, &value, std::min<uint64_t>(8, size - i));
    }
}

// Throws what is wrong.
void check_frame(const FrameCase& frame, Random& random) {
    const uint64_t blocks = frame.compressed_size.size();
    Memory source(frame.size + kReadAhead);
    Memory compressed(blocks * kLz4BlockRoom);
    fill_random(source.data(), frame.size + kReadAhead, random);
    for (uint64_t block = 0; block < blocks; ++block) {
        fill_random(compressed.data() + block * kLz4BlockRoom, frame.compressed_size[block], random);
    }
    const Bytes expected = frame_on_host(frame, source.data(), compressed.data());
    for (const LaunchSetting& setting : settings_for(static_cast<uint32_t>(frame.shift), random)) {
        Memory sizes(8 * blocks);
        Memory statuses(4 * blocks);
        Memory offsets(8 * blocks);
        Memory result(8);
        Memory out(setting.misplace + kLz4HeaderSize + expected.size());
        std::memcpy(sizes.data(), frame.compressed_size.data(), 8 * blocks);
        std::memcpy(statuses.data(), frame.status.data(), 4 * blocks);
        uint8_t* begin = out.data() + setting.misplace;
        const auto address = [](uint8_t* memory) { return static_cast<uint64_t>(reinterpret_cast<uintptr_t>(memory)); };
        const FrameJob job = {address(source.data()),   address(compressed.data()), address(sizes.data()),
                              address(statuses.data()), address(offsets.data()),    address(begin),
                              frame.size,               blocks};
        const auto* size = reinterpret_cast<const uint64_t*>(result.data());
        machine_set_order(setting.order);
        machine_set_fill(setting.fill);
        if (machine::launch("lz4_layout", 1, kFrameThreads, 0, &job, size) ||
            machine::launch("lz4_write", static_cast<unsigned>(blocks), kFrameThreads, 0, &job)) {
            throw std::runtime_error(machine_error());
        }
        for (const Memory* memory : {&source, &compressed, &sizes, &statuses, &offsets, &result, &out}) memory->check_canaries();
        const uint8_t* body = begin + kLz4HeaderSize;
        if (*size != kLz4HeaderSize + expected.size()) throw std::runtime_error("a wrong size: " + std::to_string(*size));
        if (std::any_of(out.data(), begin + kLz4HeaderSize, [](uint8_t byte) { return byte != kCanary; })) {
            throw std::runtime_error("something was written before the first block");
        }
        const auto differs = std::mismatch(expected.begin(), expected.end(), body);
        if (differs.first != expected.end()) {
            throw std::runtime_error("byte " + std::to_string(differs.second - begin) + " of the frame is wrong");
        }
    }
}

int run(uint64_t first, uint64_t most) {
    constexpr uint64_t kSeed = 3;
    uint64_t cases = 0, bytes = 0, blocks = 0;
    for (uint64_t number = first; number < kFrames + kManyBlocks && number - first < most; ++number) {
        Random random = random_for(kSeed, number);
        const FrameCase frame = frame_case(number, random);
        try {
            check_frame(frame, random);
        } catch (const std::runtime_error& error) {
            std::fprintf(stderr, "a frame of %llu bytes: %s\n  again: machine_run frames %llu 1\n", wide(frame.size),
                         error.what(), wide(number));
            return 1;
        }
        ++cases;
        bytes += frame.size;
        blocks += frame.compressed_size.size();
    }
    std::printf("frames: %llu LZ4 frames of %llu blocks, %llu bytes, in 3 orders\n", wide(cases), wide(blocks), wide(bytes));
    return 0;
}

const Suite suite("frames", run);

}  // namespace
}  // namespace dumont::test
