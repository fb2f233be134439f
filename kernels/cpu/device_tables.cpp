// Lists the blocks of a chunk for a device, which decodes blocks in any order: the host checks headers and tables, the device
// looks inside blocks.
#include "device_tables.h"

#include <string.h>

#include "../shared/lz4_blocks.h"
#include "../shared/zipnn_blocks.h"
#include "../shared/zipnn_job.h"

// ---------------------------------------------------------------------------------------------------------------
// The structs and constants of kernels/shared that the host knows, too.

namespace dumont {
namespace {

struct NamedNumber {
    const char* name;
    uint64_t value;
};

constexpr NamedNumber kLayout[] = {
    {"DeviceBlock", sizeof(DeviceBlock)},
    {"EncodeJob", sizeof(EncodeJob)},
    {"PlanePlan", sizeof(PlanePlan)},
    {"StoredCopy", sizeof(StoredCopy)},
    {"FrameJob", sizeof(FrameJob)},
    {"kPlaneMemory", kPlaneMemory},
    {"kPlaneThreads", kPlaneThreads},
    {"kJoinThreads", kJoinThreads},
    {"kPlanMemory", kPlanMemory},
    {"kRoomAfterEncoded", kRoomAfterEncoded},
    {"kCopyThreads", kCopyThreads},
    {"kEncodeThreads", kEncodeThreads},
    {"kFrameThreads", kFrameThreads},
    {"kFrameArrays", kFrameArrays},
    {"kHeaderSize", kHeaderSize},
    {"kTableEntry", kTableEntry},
    {"kMaxPlanes", kMaxPlanes},
    {"kLz4BlockSize", kLz4BlockSize},
    {"kLz4BlockRoom", kLz4BlockRoom},
};

}  // namespace
}  // namespace dumont

uint64_t dumont_layout(const char* name) {
    for (const auto& number : dumont::kLayout) {
        if (strcmp(number.name, name) == 0) return number.value;
    }
    return 0;
}

// ---------------------------------------------------------------------------------------------------------------
// Decoding ZipNN streams.

namespace dumont {
namespace {

constexpr uint64_t kLargestStream = 1ull << 30;  // a chunk; offsets in DeviceBlock have 32 bits

// Describes one plane of a block, by the rules of the decoder in zipnn_decode.cpp; returns false if the plane is damaged.
bool describe_plane(const EncodedBlock& encoded, uint64_t share, uint64_t stream_begin, uint32_t plane,
                    DeviceBlock& block) {
    block.begin[plane] = static_cast<uint32_t>(stream_begin + encoded.begin);
    block.bytes[plane] = static_cast<uint32_t>(encoded.size);
    if (encoded.type != kRawBlock && encoded.type != kHuff0Block) return false;
    if (encoded.size == share) return true;
    if (encoded.type == kRawBlock || encoded.size == 0 || encoded.size > share) return false;
    if (encoded.size == 1) {
        block.constant = static_cast<uint8_t>(block.constant | 1u << plane);
        return true;
    }
    block.coded = static_cast<uint8_t>(block.coded | 1u << plane);
    return share <= kMaxHuff0Symbols;
}

class BlockList {
public:
    BlockList(DeviceBlock* blocks, uint64_t capacity) : blocks_(blocks), capacity_(capacity) {}

    int64_t add_stream(const uint8_t* stream, uint64_t begin, const Header& header, uint64_t encoded, uint64_t out) {
        Layout layout;
        if (!parse_layout(stream, header, layout)) return DUMONT_DAMAGED;
        const uint32_t planes = header.type.planes;
        for (uint64_t number = 0; number < layout.blocks; ++number) {
            const uint64_t offset = number * header.block_size;
            const uint64_t left = header.original_size - offset;
            const uint64_t size = left < header.block_size ? left : header.block_size;
            if (size % planes != 0 || count_ == capacity_) return DUMONT_UNSUPPORTED;
            DeviceBlock& block = blocks_[count_++];
            memset(&block, 0, sizeof block);
            block.encoded = encoded;
            block.out = out + offset;
            block.size = static_cast<uint32_t>(size);
            block.planes = static_cast<uint8_t>(planes);
            block.moves_sign = header.type.moves_sign;
            for (uint32_t plane = 0; plane < planes; ++plane) {
                const EncodedBlock part = encoded_block(layout, plane, number);
                if (!describe_plane(part, size / planes, begin, plane, block)) return DUMONT_DAMAGED;
            }
        }
        return 0;
    }

    // Sorts the blocks by their number of coded planes, in place.
    void sort(uint64_t* counts) {
        for (uint32_t coded = 0; coded <= kMaxPlanes; ++coded) counts[coded] = 0;
        for (uint64_t i = 0; i < count_; ++i) ++counts[coded_planes(blocks_[i])];
        uint64_t next[kMaxPlanes + 1];
        uint64_t end[kMaxPlanes + 1];
        uint64_t position = 0;
        for (uint32_t coded = 0; coded <= kMaxPlanes; ++coded) {
            next[coded] = position;
            position += counts[coded];
            end[coded] = position;
        }
        for (uint32_t coded = 0; coded <= kMaxPlanes; ++coded) {
            while (next[coded] < end[coded]) {
                const uint32_t belongs = coded_planes(blocks_[next[coded]]);
                if (belongs != coded) {
                    const DeviceBlock moved = blocks_[next[coded]];
                    blocks_[next[coded]] = blocks_[next[belongs]];
                    blocks_[next[belongs]] = moved;
                }
                ++next[belongs];
            }
        }
    }

private:
    static uint32_t coded_planes(const DeviceBlock& block) {
        return static_cast<uint32_t>(__builtin_popcount(block.coded));
    }

    DeviceBlock* blocks_;
    uint64_t capacity_;
    uint64_t count_ = 0;
};

}  // namespace
}  // namespace dumont

int64_t dumont_zipnn_device_blocks(const uint8_t* chunk, uint64_t chunk_size, uint64_t out_size, uint64_t encoded,
                                   uint64_t out, void* blocks, uint64_t capacity, uint64_t* counts) {
    using namespace dumont;
    if (chunk_size > kLargestStream || out_size > kLargestStream) return DUMONT_UNSUPPORTED;
    BlockList list(static_cast<DeviceBlock*>(blocks), capacity);
    uint64_t read = 0;
    uint64_t written = 0;
    do {  // as dumont_zipnn_decode reads streams
        Header header;
        const Parse parsed = parse_header(chunk + read, chunk_size - read, header);
        if (parsed != Parse::kOk) return parsed == Parse::kDamaged ? DUMONT_DAMAGED : DUMONT_UNSUPPORTED;
        if (!header.continued && (read != 0 || header.stream_size != chunk_size)) return DUMONT_DAMAGED;
        if (header.original_size > out_size - written) return DUMONT_DAMAGED;
        const int64_t status = list.add_stream(chunk + read, read, header, encoded, out + written);
        if (status != 0) return status;
        read += header.stream_size;
        written += header.original_size;
    } while (read < chunk_size);
    if (written != out_size) return DUMONT_DAMAGED;
    list.sort(counts);
    return 0;
}

// ---------------------------------------------------------------------------------------------------------------
// LZ4 frames: https://github.com/lz4/lz4/blob/dev/doc/lz4_Frame_format.md. The caller has checked the frame's header.

namespace dumont {
namespace {

constexpr uint8_t kLz4Checksums = 0x10 | 0x04;  // of blocks, of the content: the device does not check them

}  // namespace
}  // namespace dumont

int64_t dumont_lz4_device_blocks(const uint8_t* frame, uint64_t frame_size, uint64_t out_size, uint64_t encoded,
                                 uint64_t out, DumontLz4Blocks* blocks) {
    using namespace dumont;
    if (frame_size < kLz4HeaderSize) return DUMONT_DAMAGED;
    if (frame[4] & kLz4Checksums) return DUMONT_UNSUPPORTED;
    blocks->compressed_count = blocks->copy_count = 0;
    StoredCopy* copies = static_cast<StoredCopy*>(blocks->copies);
    uint64_t read = kLz4HeaderSize;
    uint64_t written = 0;
    while (written < out_size) {
        if (frame_size - read < 4) return DUMONT_DAMAGED;
        const uint32_t word = load_u32(frame + read);
        const uint64_t size = word & ~kLz4RawBit;
        read += 4;
        const uint64_t left = out_size - written;
        const uint64_t expected = left < kLz4BlockSize ? left : uint64_t{kLz4BlockSize};
        if (size == 0 || size > frame_size - read || size > kLz4BlockSize) return DUMONT_DAMAGED;
        if (blocks->compressed_count + blocks->copy_count == blocks->capacity) return DUMONT_UNSUPPORTED;
        if (word & kLz4RawBit) {
            if (size != expected) return DUMONT_UNSUPPORTED;  // a short block amid others: rare, so left to the CPU
            copies[blocks->copy_count++] = {encoded + read, out + written, size};
        } else {
            const uint64_t i = blocks->compressed_count++;
            blocks->from[i] = encoded + read;
            blocks->from_bytes[i] = size;
            blocks->to[i] = out + written;
            blocks->to_bytes[i] = expected;
        }
        read += size;
        written += expected;
    }
    return frame_size - read == 4 && load_u32(frame + read) == 0 ? 0 : static_cast<int64_t>(DUMONT_DAMAGED);
}

// ---------------------------------------------------------------------------------------------------------------
// Encoding: the device writes all of a stream but its header.

int64_t dumont_zipnn_encode_job(uint32_t dtype, uint64_t size, uint32_t block_log2, uint64_t source, uint64_t out,
                                uint64_t plans, void* job) {
    using namespace dumont;
    ElementType type;
    if (!find_element_type(dtype, type) || size % type.planes != 0 || size > kLargestStream) return DUMONT_ARGUMENT;
    if (block_log2 < 10 || block_log2 > 17) return DUMONT_ARGUMENT;
    const auto blocks = static_cast<uint32_t>((size + (1ull << block_log2) - 1) >> block_log2);
    *static_cast<EncodeJob*>(job) = {source, out, plans, size, blocks, block_log2, type.planes, type.moves_sign};
    return blocks * type.planes;
}

int64_t dumont_zipnn_header(uint32_t dtype, uint64_t size, uint32_t block_log2, uint64_t stream_size, uint8_t* out) {
    using namespace dumont;
    ElementType type;
    if (!find_element_type(dtype, type)) return DUMONT_ARGUMENT;
    write_header(type, block_log2, size, stream_size, out);
    return kHeaderSize;
}

uint64_t dumont_lz4_frame_job(uint64_t size, uint64_t source, uint64_t compressed, uint64_t out, uint64_t table_at, uint8_t* table) {
    using namespace dumont;
    const uint64_t blocks = (size + kLz4BlockSize - 1) / kLz4BlockSize;
    const auto array_at = [&](uint32_t array) { return sizeof(FrameJob) + 8 * blocks * array; };
    const auto array = [&](uint32_t number) { return reinterpret_cast<uint64_t*>(table + array_at(number)); };
    *reinterpret_cast<FrameJob*>(table) = {source, compressed, table_at + array_at(kCompressedSizes), table_at + array_at(kStatuses),
                                           table_at + array_at(kOffsets), out, size, blocks};
    for (uint64_t block = 0; block < blocks; ++block) {
        const uint64_t left = size - block * kLz4BlockSize;
        array(kSources)[block] = source + block * kLz4BlockSize;
        array(kSourceSizes)[block] = left < kLz4BlockSize ? left : uint64_t{kLz4BlockSize};
        array(kOutputs)[block] = compressed + block * kLz4BlockRoom;
    }
    return blocks;
}
