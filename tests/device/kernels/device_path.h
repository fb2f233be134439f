// Chunks through the device path: the host lists their blocks, the kernels decode them, here on the PTX machine.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "damage.h"
#include "zipnn_blocks.h"

namespace dumont::test {

struct Chunk {
    std::string name;
    Bytes encoded;
    uint64_t original_size;
};

// How a launch is made; no result may depend on it.
struct LaunchSetting {
    unsigned order;     // of the threads, see machine_set_order
    unsigned fill;      // what shared memory starts with
    uint32_t misplace;  // bytes by which outputs miss a multiple of 16
};

struct DeviceBlockResult {
    uint64_t begin;  // in the chunk's original bytes
    uint64_t size;
    uint32_t coded;  // planes, a bit each
    uint32_t status;
};

struct DeviceResult {
    int64_t host;                           // what dumont_zipnn_device_blocks returned; a rest only if it is not negative
    std::vector<DeviceBlockResult> blocks;
    Bytes out;

    uint32_t worst() const;
};

// Decodes chunks together, in one launch. A launch that fails and a write out of bounds throw std::runtime_error.
std::vector<DeviceResult> decode_on_device(const std::vector<const Chunk*>& chunks, const LaunchSetting& setting);

// Appends the chunk's blocks to `blocks`; returns what dumont_zipnn_device_blocks does. `encoded` and `out` are where the
// chunk lies in the memory of a launch.
int64_t list_blocks(const Chunk& chunk, uint64_t encoded, uint64_t out, std::vector<DeviceBlock>& blocks);

// One launch. Returns the status of each block. Throws if it fails.
std::vector<uint32_t> launch_blocks(const std::vector<DeviceBlock>& blocks, const uint8_t* source, uint8_t* output);

// What the CPU codec says of the same chunk.
struct HostResult {
    int64_t status;
    Bytes out;
};

HostResult decode_on_host(const Chunk& chunk);

// Says how the device's result contradicts the CPU's; empty if it does not.
std::string contradiction(const HostResult& host, const DeviceResult& device);

// The only reasons to leave a good chunk to the CPU.
bool device_may_refuse(const Chunk& chunk);

}  // namespace dumont::test
