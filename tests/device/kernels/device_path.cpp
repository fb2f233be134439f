#include "device_path.h"

#include <algorithm>
#include <cstring>
#include <stdexcept>

#include "device_memory.h"
#include "device_tables.h"
#include "machine_abi.h"

namespace dumont::test {
namespace {

constexpr uint64_t kAlignment = 16;  // of each chunk's encoded bytes in a batch
constexpr uint8_t kUnwritten = 0x5A;  // an output byte left out is then most likely a difference

uint64_t aligned(uint64_t offset) {
    return (offset + kAlignment - 1) / kAlignment * kAlignment;
}

// Where a chunk lies in the batch's memory.
struct Place {
    uint64_t encoded;
    uint64_t out;
};

struct Batch {
    std::vector<Place> places;
    uint64_t encoded_size = 0;  // ends with the last chunk's room
    uint64_t out_size = 0;
    std::vector<DeviceBlock> blocks;
};

Batch lay_out(const std::vector<const Chunk*>& chunks, uint32_t misplace) {
    Batch batch;
    for (const Chunk* chunk : chunks) {
        const Place place = {aligned(batch.encoded_size), aligned(batch.out_size) + misplace};
        batch.places.push_back(place);
        batch.encoded_size = place.encoded + chunk->encoded.size() + kRoomAfterEncoded;
        batch.out_size = place.out + chunk->original_size;
    }
    return batch;
}

void check_between(const Batch& batch, const std::vector<const Chunk*>& chunks, const uint8_t* out) {
    uint64_t next = 0;
    for (size_t i = 0; i < chunks.size(); ++i) {
        for (; next < batch.places[i].out; ++next) {
            if (out[next] != kCanary) throw std::runtime_error("a kernel wrote between two chunks' outputs");
        }
        next += chunks[i]->original_size;
    }
}

}  // namespace

int64_t list_blocks(const Chunk& chunk, uint64_t encoded, uint64_t out, std::vector<DeviceBlock>& blocks) {
    std::vector<DeviceBlock> listed(chunk.encoded.size() / kTableEntry + 1);
    const Bytes exact(chunk.encoded);  // a heap block of its size
    const int64_t count = dumont_zipnn_device_blocks(exact.data(), exact.size(), chunk.original_size, encoded, out,
                                                     listed.data(), listed.size());
    if (count > 0) blocks.insert(blocks.end(), listed.begin(), listed.begin() + count);
    return count;
}

std::vector<uint32_t> launch_blocks(const std::vector<DeviceBlock>& blocks, const uint8_t* source, uint8_t* output) {
    if (blocks.empty()) return {};
    Memory status(4 * blocks.size());
    auto* words = reinterpret_cast<uint32_t*>(status.data());
    std::fill_n(words, blocks.size(), kBlockGood);
    if (machine::launch("zipnn_decode", static_cast<unsigned>(blocks.size()), kDecodeThreads, kDecodeMemory, source, output,
                         blocks.data(), words)) {
        throw std::runtime_error(machine_error());
    }
    status.check_canaries();
    return std::vector<uint32_t>(words, words + blocks.size());
}

uint32_t DeviceResult::worst() const {
    uint32_t worst = kBlockGood;
    for (const DeviceBlockResult& block : blocks) worst = std::max(worst, block.status);
    return worst;
}

std::vector<DeviceResult> decode_on_device(const std::vector<const Chunk*>& chunks, const LaunchSetting& setting) {
    Batch batch = lay_out(chunks, setting.misplace);
    Memory source(batch.encoded_size);
    Memory output(batch.out_size);
    // What lies in the room after the encoded bytes may not matter.
    std::memset(source.data(), static_cast<int>(setting.fill ^ 0x33), batch.encoded_size);
    std::vector<DeviceResult> results(chunks.size());
    for (size_t i = 0; i < chunks.size(); ++i) {
        const Chunk& chunk = *chunks[i];
        std::copy(chunk.encoded.begin(), chunk.encoded.end(), source.data() + batch.places[i].encoded);
        std::fill_n(output.data() + batch.places[i].out, chunk.original_size, kUnwritten);
        results[i].host = list_blocks(chunk, batch.places[i].encoded, batch.places[i].out, batch.blocks);
    }
    machine_set_order(setting.order);
    machine_set_fill(setting.fill);
    const std::vector<uint32_t> status = launch_blocks(batch.blocks, source.data(), output.data());
    for (size_t i = 0, b = 0; i < chunks.size(); ++i) {
        for (int64_t n = 0; n < results[i].host; ++n, ++b) {
            const DeviceBlock& block = batch.blocks[b];
            results[i].blocks.push_back({block.out - batch.places[i].out, block.size, block.coded, status[b]});
        }
    }
    output.check_canaries();
    source.check_canaries();
    check_between(batch, chunks, output.data());
    for (size_t i = 0; i < chunks.size(); ++i) {
        const uint8_t* out = output.data() + batch.places[i].out;
        results[i].out.assign(out, out + chunks[i]->original_size);
    }
    return results;
}

HostResult decode_on_host(const Chunk& chunk) {
    HostResult result{0, Bytes(chunk.original_size, kUnwritten ^ 0xFF)};
    const Bytes exact(chunk.encoded);
    result.status = dumont_zipnn_decode(exact.data(), exact.size(), result.out.data(), result.out.size());
    return result;
}

std::string contradiction(const HostResult& host, const DeviceResult& device) {
    if (host.status < 0) {
        if (device.host < 0 || device.worst() != kBlockGood) return "";
        return "the CPU says " + std::to_string(host.status) + ", the device finds nothing wrong";
    }
    if (device.host == DUMONT_UNSUPPORTED) return "";
    if (device.host < 0) return "the CPU decodes it, the listing of its blocks says " + std::to_string(device.host);
    uint64_t next = 0;
    for (const DeviceBlockResult& block : device.blocks) {
        const std::string where =
            "block at " + std::to_string(block.begin) + " of " + std::to_string(block.size) + " bytes: ";
        if (block.begin != next) return where + "the one before it ends at " + std::to_string(next);
        next += block.size;
        if (block.status == kLongCodes) continue;
        if (block.status != kBlockGood) return where + "good for the CPU, status " + std::to_string(block.status);
        const auto begin = static_cast<std::ptrdiff_t>(block.begin);
        const auto end = static_cast<std::ptrdiff_t>(next);
        const auto differs = std::mismatch(host.out.begin() + begin, host.out.begin() + end, device.out.begin() + begin);
        if (differs.first != host.out.begin() + end) {
            return where + "byte " + std::to_string(differs.first - host.out.begin()) + " is " +
                   std::to_string(*differs.second) + " instead of " + std::to_string(*differs.first);
        }
    }
    return next == host.out.size() ? "" : "the blocks end at " + std::to_string(next);
}

bool device_may_refuse(const Chunk& chunk) {
    // Partial elements, which only the last block of a stream can have: no packer writes them.
    for (uint64_t read = 0; read < chunk.encoded.size();) {
        Header header;
        if (parse_header(chunk.encoded.data() + read, chunk.encoded.size() - read, header) != Parse::kOk) return false;
        if (header.original_size % header.type.planes != 0) return true;
        read += header.stream_size;
    }
    return false;
}

}  // namespace dumont::test
